"""Errors of a predicted face in the four regions of a scan, in mm: the protocol of REALY (Chai et al. 2022).

1. The prediction is brought to the scan by seven keypoints: rotation, translation and a scale.
2. For each region by itself it is then moved rigidly, without scale, onto that region (`alignment.regional_icp`).
3. The region of the scan deforms towards it (`deformation.deform`), which pairs parts that correspond rather than parts
   that happen to be near.
4. The error is the mean distance from the scan's own vertices to the points of the prediction that are nearest to the
   deformed ones. (The benchmark calls it NMSE; it is neither squared nor normalised.)

Written from the published description and the behaviour of the benchmark's public program (github.com/czh-98/REALY,
MIT). Deviations: everything is float64; a prediction is never mirrored to fit; a last step smaller than the tolerance
is applied; parts of a scan that no pair pulls stay (`deformation.RIDGE`); keypoints that a topology lacks are
left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from fitdiff.evaluation.mesh_files import Mesh
from fitdiff.evaluation.realy.alignment import fit_similarity, regional_icp
from fitdiff.evaluation.realy.deformation import deform
from fitdiff.evaluation.realy.keypoints import DEFORMATION_KEYPOINTS, GLOBAL_KEYPOINTS, RIGID_KEYPOINTS
from fitdiff.evaluation.surface import Surface

CHEEK_SHARE = 0.25
"""Keypoints of the cheek lie around it, not on it, and count a quarter."""

USUAL_UNIT = 9.0
"""mm per unit of a scan that has no scale of its own: the middle of the benchmark's 100, which are 6.5 to 10.2."""


@dataclass(frozen=True)
class Scan:
    """The truth of one person.

    Attributes:
        regions: name -> mesh, some of nose, mouth, forehead and cheek, in units of about 9 mm. Each holds its keypoints
            (the forehead those of brows and eyes): a keypoint pulls at the vertex next to it, wherever that is.
        keypoints: (85, 3) in the same unit; NaN where unknown. mm_per_unit: the metrical scale.
    """

    regions: Mapping[str, Mesh]
    keypoints: np.ndarray
    mm_per_unit: float

    @classmethod
    def of_millimetres(cls, regions: Mapping[str, Mesh], keypoints: np.ndarray) -> Scan:
        """A scan in mm, in the benchmark's unit: tolerances and weights of the deformation depend on it."""
        scaled = {name: Mesh(mesh.vertices / USUAL_UNIT, mesh.faces) for name, mesh in regions.items()}
        return cls(scaled, keypoints / USUAL_UNIT, USUAL_UNIT)


def region_errors(vertices: np.ndarray, faces: np.ndarray, keypoints: np.ndarray, scan: Scan) -> dict[str, float]:
    """Mean error in mm of each region that the scan has. Neither the pose nor the scale of the prediction counts.

    Args:
        vertices: (V, 3) of the prediction, any unit and axes. faces: (F, 3). keypoints: (85, 3) on it, NaN if unknown.

    Raises:
        ValueError: one of the seven keypoints of the global alignment is unknown, the prediction has collapsed, or
            a region of the scan has no faces.
    """
    aligned, aligned_keypoints = align(vertices, keypoints, scan.keypoints)
    surface = Surface(aligned, faces)
    return {
        name: scan.mm_per_unit * region_error(surface, aligned_keypoints, mesh, scan.keypoints, name)
        for name, mesh in scan.regions.items()
    }


def align(vertices: np.ndarray, keypoints: np.ndarray, scan_keypoints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and its keypoints, brought to the scan by the seven keypoints.

    Raises:
        ValueError: one of the seven is unknown, or they lie in one place.
    """
    seven = list(GLOBAL_KEYPOINTS)
    if not np.isfinite([keypoints[seven], scan_keypoints[seven]]).all():
        raise ValueError(f"the keypoints {seven} align prediction and scan; all must be known")
    similarity = fit_similarity(keypoints[seven], scan_keypoints[seven], scaled=True)
    return similarity(vertices), similarity(keypoints)


def region_error(
    prediction: Surface, keypoints: np.ndarray, region: Mesh, scan_keypoints: np.ndarray, name: str
) -> float:
    """Mean error of one region, in the scan's unit: steps 2 to 4.

    Args:
        prediction: globally aligned. keypoints: (85, 3) on it. region: of the scan. scan_keypoints: (85, 3).
        name: of the region, which decides on the keypoints.
    """
    region = merged(region)
    used = _known(RIGID_KEYPOINTS[name], keypoints, scan_keypoints)
    share = CHEEK_SHARE if name == "cheek" else 1.0
    weight = int(share * len(region.vertices) / max(len(used), 1))
    motion = regional_icp(prediction, keypoints[used], region.vertices, scan_keypoints[used], weight)
    moved = Surface(motion(prediction.vertices), prediction.faces)
    pulling = _known(DEFORMATION_KEYPOINTS[name], keypoints, scan_keypoints)
    return bidirectional_error(moved, motion(keypoints[pulling]), region, scan_keypoints[pulling])


def bidirectional_error(prediction: Surface, keypoints: np.ndarray, region: Mesh, scan_keypoints: np.ndarray) -> float:
    """Mean distance of a region's vertices to the points of the prediction that correspond to them: steps 3 and 4.

    Args:
        prediction: regionally aligned. keypoints: (K, 3) on it, K >= 0. region: of the scan. scan_keypoints: (K, 3).
    """
    targets = prediction.closest(region.vertices).points
    landmark_vertices = cKDTree(region.vertices).query(scan_keypoints.reshape(-1, 3))[1]
    deformed = deform(region.vertices, region.faces, targets, landmark_vertices, keypoints)
    corresponding = prediction.closest(deformed).points
    return float(np.linalg.norm(corresponding - region.vertices, axis=1).mean())


def merged(mesh: Mesh) -> Mesh:
    """The mesh with vertices in the same place made one, and those of no triangle left out: they would count double.

    Raises:
        ValueError: it has no faces.
    """
    if not len(mesh.faces):
        raise ValueError("a region of the scan has no faces, only points: export it as a mesh")
    used = np.unique(mesh.faces)
    places, number = np.unique(mesh.vertices[used], axis=0, return_inverse=True)
    renumbered = np.zeros(len(mesh.vertices), np.int64)
    renumbered[used] = number.ravel()
    return Mesh(places, renumbered[mesh.faces])


def _known(names: tuple[int, ...], *keypoints: np.ndarray) -> list[int]:
    return [i for i in names if all(np.isfinite(points[i]).all() for points in keypoints)]
