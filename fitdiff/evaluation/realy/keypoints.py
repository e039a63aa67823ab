"""The 85 keypoints of REALY on a mesh: iBUG's 68 in their order, then 17 of the benchmark's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fitdiff.evaluation.mesh_files import MeshError, read_mesh
from fitdiff.types import Topology

N_KEYPOINTS = 85
GLOBAL_KEYPOINTS = (36, 39, 42, 45, 33, 48, 54)
"""Corners of the eyes, base of the nose, corners of the mouth: they fix pose and scale."""

MOUTH = (*range(48, 61), 64)
RIGID_KEYPOINTS: Mapping[str, tuple[int, ...]] = {
    "nose": (*range(27, 36), 70, 71),
    "mouth": MOUTH,
    "forehead": (*range(17, 27), *range(36, 48)),
    "cheek": (7, 8, 9, 36, 39, 40, 41, 42, 45, 46, 47, *MOUTH, 76, 77),
}
"""Keypoints that each region's rigid alignment sees."""

DEFORMATION_KEYPOINTS: Mapping[str, tuple[int, ...]] = {
    "nose": tuple(range(27, 36)),
    "mouth": MOUTH,
    "forehead": RIGID_KEYPOINTS["forehead"],
    "cheek": (),
}
"""Keypoints that pull each region's deformation."""

REGIONS = tuple(RIGID_KEYPOINTS)


@dataclass(frozen=True)
class Keypoints:
    """Where the keypoints lie on every mesh of one topology.

    Attributes:
        corners: (85, 3) int64 vertex numbers. weights: (85, 3) float64 barycentric; NaN where a keypoint is unknown.
        n_vertices: of the topology.
    """

    corners: np.ndarray
    weights: np.ndarray
    n_vertices: int

    def __call__(self, vertices: np.ndarray) -> np.ndarray:
        """(85, 3) keypoints of (V, 3) vertices, in their unit; NaN where unknown.

        Raises:
            ValueError: a mesh of another number of vertices.
        """
        if len(vertices) != self.n_vertices:
            raise ValueError(
                f"the mesh has {len(vertices)} vertices, its topology {self.n_vertices}: the keypoints are vertex "
                "numbers, so meshes must keep the template's vertices and their order"
            )
        return np.einsum("kcx,kc->kx", vertices[self.corners], self.weights)

    @property
    def unknown(self) -> str:
        """Which keypoints are unknown, as in `68-84`; empty if none is."""
        ids = np.flatnonzero(np.isnan(self.weights).any(1))
        runs = np.split(ids, np.flatnonzero(np.diff(ids) > 1) + 1) if len(ids) else []
        return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)

    @classmethod
    def of_topology(cls, topology: Topology) -> Keypoints:
        """iBUG's 68 from the shape model's landmarks; the benchmark's own 17 stay unknown."""
        corners, weights = np.zeros((N_KEYPOINTS, 3), np.int64), np.full((N_KEYPOINTS, 3), np.nan)
        corners[:68] = topology.landmark_vertices.cpu().numpy()
        weights[:68] = topology.landmark_weights.cpu().numpy()
        return cls(corners, weights, len(topology.uv))

    @classmethod
    def read(cls, path: Path, faces: np.ndarray, n_vertices: int) -> Keypoints:
        """Read a `<TOPOLOGY>.txt` of the benchmark: JSON, 85 x [triangle, b0, b1], with b2 = 1 - b0 - b1.

        Raises:
            MeshError: not readable, not of this form, or a triangle that the mesh lacks.
        """
        try:
            table = np.asarray(json.loads(path.read_text()), np.float64)
        except (OSError, ValueError, RecursionError) as error:
            raise MeshError(f"{path}: cannot be read as keypoints ({error})") from error
        if table.shape != (N_KEYPOINTS, 3) or not np.isfinite(table).all():
            raise MeshError(f"{path}: keypoints are {table.shape}, expected 85 x [triangle, b0, b1], all finite")
        triangles = table[:, 0].astype(np.int64)
        if (triangles != table[:, 0]).any() or triangles.min() < 0 or triangles.max() >= len(faces):
            raise MeshError(
                f"{path}: names triangles {table[:, 0].min():g} to {table[:, 0].max():g}, "
                f"the template has 0 to {len(faces) - 1}: is it of another topology?"
            )
        weights = np.column_stack([table[:, 1:], 1 - table[:, 1:].sum(1)])
        return cls(faces[triangles], weights, n_vertices)


def read_template(mesh: Path, table: Path) -> Keypoints:
    """Keypoints of a template mesh and the benchmark's table for it.

    Raises:
        MeshError: as `read_mesh` and `Keypoints.read`.
    """
    template = read_mesh(mesh)
    return Keypoints.read(table, template.faces, len(template.vertices))
