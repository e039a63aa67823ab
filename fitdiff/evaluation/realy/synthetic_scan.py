"""Scans of people whose shape is known, cut into regions and re-meshed as a scan would be: on our own topologies."""

from __future__ import annotations

import igl
import numpy as np

from fitdiff.evaluation.mesh_files import Mesh
from fitdiff.evaluation.realy.keypoints import REGIONS, Keypoints
from fitdiff.evaluation.realy.regions import Scan, merged
from fitdiff.types import Topology

BELOW_LIDS, BEYOND_BROWS = 4.0, 4.0
"""mm around the landmarks of eyes and brows that belong to the upper face."""

JITTER = 0.3
"""Share of an edge by which vertices slide along it."""


def region_faces(topology: Topology, mean: np.ndarray) -> dict[str, np.ndarray]:
    """Triangles (F', 3) of the four regions: the topology's own, and with the forehead brows and lids.

    REALY's forehead holds the keypoints of brows and eyes, ours begins above them.

    Args:
        mean: (V, 3) mm, head space, of the mean face.

    Raises:
        ValueError: the topology does not name its regions.
    """
    if missing := [name for name in REGIONS if name not in topology.regions]:
        raise ValueError(f"the shape model names no regions {missing}: it cannot be cut up as REALY's scans are")
    masks = {name: topology.regions[name].cpu().numpy() for name in REGIONS}
    masks["forehead"] = masks["forehead"] | _brows_and_lids(topology, mean, masks)
    faces = topology.faces.cpu().numpy()
    return {name: faces[mask[faces].all(1)] for name, mask in masks.items()}


def _brows_and_lids(topology: Topology, mean: np.ndarray, masks: dict[str, np.ndarray]) -> np.ndarray:
    """(V,) skin around eyes and brows that is on neither nose nor cheek."""
    landmarks = Keypoints.of_topology(topology)(mean)[:68]
    outline = landmarks[[*range(17, 27), *range(36, 48)]]
    least, greatest = outline.min(0) - BELOW_LIDS, outline.max(0) + BEYOND_BROWS
    inside = ((mean > least) & (mean < greatest))[:, :2].all(1) & (mean[:, 2] > least[2])
    inner = [topology.regions[name].cpu().numpy() for name in ("eyes", "inner_mouth") if name in topology.regions]
    return inside & ~np.any([masks["nose"], masks["mouth"], masks["cheek"], *inner], axis=0)


def make_scan(
    vertices: np.ndarray, faces: dict[str, np.ndarray], keypoints: np.ndarray, seed: int, *, finer: int = 1
) -> Scan:
    """The scan of a person: every region subdivided, its vertices slid along edges, so that no vertex is the model's.

    All vertices lie on the person's own surface: a prediction that is the person has no error.

    Args:
        vertices: (V, 3) mm. faces: of each region. keypoints: (85, 3) mm. seed: of the sliding. finer: subdivisions.
    """
    generator = np.random.default_rng(seed)
    meshes = {name: _remeshed(merged(Mesh(vertices, part)), finer, generator) for name, part in faces.items()}
    return Scan.of_millimetres(meshes, keypoints)


def _remeshed(mesh: Mesh, finer: int, generator: np.random.Generator) -> Mesh:
    vertices, faces = igl.upsample(mesh.vertices, mesh.faces, finer)
    neighbour = np.arange(len(vertices))
    neighbour[faces[:, 0]] = faces[:, 1]
    share = JITTER * generator.random((len(vertices), 1))
    return Mesh(vertices + share * (vertices[neighbour] - vertices), np.asarray(faces, np.int64))
