"""A small analytic face in the benchmark's unit, with its regions and keypoints: for tests of REALY's protocol."""

from __future__ import annotations

import numpy as np

from fitdiff.evaluation.mesh_files import Mesh
from fitdiff.evaluation.realy.keypoints import Keypoints
from fitdiff.evaluation.realy.regions import Scan

SIDE = 41
CENTRES = {"nose": (0.0, 0.0), "mouth": (0.0, -4.0), "forehead": (0.0, 4.5), "cheek": (4.0, -1.0)}
RADII = {"nose": 1.6, "mouth": 2.0, "forehead": 3.5, "cheek": 1.9}


def surface(xy: np.ndarray) -> np.ndarray:
    """(N, 3) points of a face over (N, 2): an ellipsoid with a nose, brows, lips, and one cheek fuller."""
    x, y = xy.T
    z = 8 * np.sqrt(np.maximum(1 - (x / 9) ** 2 - (y / 11) ** 2, 0.05))
    z = z + 1.8 * np.exp(-(x**2 / 0.7) - (y + 0.5) ** 2 / 2) + 0.5 * np.exp(-((y - 3) ** 2) / 0.4)
    z = z + 0.4 * np.exp(-((y + 4) ** 2) / 0.5 - x**2 / 2) + 0.2 * np.sin(1.5 * x + y)
    return np.column_stack([xy, z])


def grid(side: int = SIDE, phase: float = 0.0) -> Mesh:
    """A mesh of it, side x side vertices over 12 x 14 units, slid by a share of a cell."""
    u = np.linspace(-1, 1, side) + phase * 2 / side
    xy = np.stack(np.meshgrid(6 * u, 7.5 * u, indexing="xy"), -1).reshape(-1, 2)
    i = np.arange(side * side).reshape(side, side)
    a, b, c, d = (part.ravel() for part in (i[:-1, :-1], i[:-1, 1:], i[1:, :-1], i[1:, 1:]))
    return Mesh(surface(xy), np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)]))


def keypoint_places() -> np.ndarray:
    """(85, 2) where the keypoints lie: scattered over the regions that use them, the rest along the jaw."""
    xy = np.column_stack([np.linspace(-5, 5, 85), np.full(85, -6.0)])
    for region, ids in {
        "nose": [*range(27, 36), 70, 71],
        "mouth": range(48, 68),
        "forehead": [*range(17, 27), *range(36, 48)],
        "cheek": [76, 77],
    }.items():
        k, ids = np.arange(len(ids)), list(ids)
        radius, angle = 0.8 * RADII[region] * np.sqrt((k + 0.5) / len(ids)), 2.4 * k
        xy[ids] = np.array(CENTRES[region]) + np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
    return xy


def keypoints_of(mesh: Mesh) -> Keypoints:
    """The keypoints at the mesh's nearest vertices."""
    distance = np.linalg.norm(mesh.vertices[None, :, :2] - keypoint_places()[:, None], axis=2)
    corners = np.repeat(distance.argmin(1)[:, None], 3, 1)
    return Keypoints(corners, np.tile([1.0, 0.0, 0.0], (85, 1)), len(mesh.vertices))


def regions_of(mesh: Mesh) -> dict[str, Mesh]:
    """The four regions, each a disc over the face."""
    inside = {name: np.linalg.norm(mesh.vertices[:, :2] - CENTRES[name], axis=1) < RADII[name] for name in CENTRES}
    return {name: Mesh(mesh.vertices, mesh.faces[mask[mesh.faces].all(1)]) for name, mask in inside.items()}


def scan_of(mesh: Mesh, keypoints: np.ndarray, mm_per_unit: float = 9.0) -> Scan:
    """The truth that a mesh is."""
    return Scan(regions_of(mesh), keypoints, mm_per_unit)
