"""Errors of synthetic people's faces from the true surface, region by region, as REALY measures them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fitdiff.evaluation.realy.keypoints import Keypoints
from fitdiff.evaluation.realy.regions import region_errors
from fitdiff.evaluation.realy.synthetic_scan import make_scan, region_faces


def scan_errors(model: Any, vertices_BV3: Tensor, truth_BV3: Tensor, seeds: list[int]) -> dict[str, Tensor]:
    """`<region>_scan_mm` -> (B,): mean distance of the scan's vertices from the corresponding points of the face.

    Unlike distances of equal vertices, these do not punish a surface that slides along itself.

    Args:
        vertices_BV3: neutral, mm. truth_BV3: of the same people, from which scans are made. seeds: of each scan's mesh.
    """
    topology = model.shape_model.topology
    keypoints = Keypoints.of_topology(topology)
    faces = topology.faces.cpu().numpy()
    mean = model.shape_model(torch.zeros(1, model.shape_model.n_identity, device=model.device))[0].cpu().numpy()
    parts = region_faces(topology, mean)
    rows = []
    for ours, true, seed in zip(vertices_BV3.cpu().numpy(), truth_BV3.cpu().numpy(), seeds, strict=True):
        scan = make_scan(true, parts, keypoints(true), seed)
        rows.append(region_errors(ours, faces, keypoints(ours), scan))
    return {f"{name}_scan_mm": torch.tensor([row[name] for row in rows]) for name in rows[0]}
