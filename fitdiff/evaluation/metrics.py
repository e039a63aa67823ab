"""Metrics of a fit. Each returns one number per person."""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor

from fitdiff.colour import LUMINANCE
from fitdiff.types import FaceMaps

METRICS = {
    "novel_id": ("novel ID", ".3f", True),
    "novel_id_centred": ("novel ID, centred", ".2f", True),
    "frontal_id": ("frontal ID", ".3f", True),
    "frontal_id_centred": ("frontal ID, centred", ".2f", True),
    "photo_id": ("photo ID", ".3f", True),
    "photo_id_centred": ("photo ID, centred", ".2f", True),
    "frontal_to_photo_id": ("frontal to photo ID", ".3f", True),
    "frontal_to_photo_id_centred": ("frontal to photo ID, centred", ".2f", True),
    "shape_mm": ("shape mm", ".2f", False),
    "nose_mm": ("nose mm", ".2f", False),
    "mouth_mm": ("mouth mm", ".2f", False),
    "forehead_mm": ("forehead mm", ".2f", False),
    "cheek_mm": ("cheek mm", ".2f", False),
    "all_mm": ("all regions mm", ".2f", False),
    "true_landmarks": ("true landmarks", ".3f", False),
    "detected_landmarks": ("detected landmarks", ".3f", False),
    "diffuse_db": ("diffuse dB", ".1f", True),
    "visible_diffuse_db": ("visible diffuse dB", ".1f", True),
    "specular_db": ("specular dB", ".1f", True),
    "normals_db": ("normals dB", ".1f", True),
    "ita_degrees": ("ITA°", ".1f", False),
    "light_stops": ("light, stops", ".2f", False),
    "light_degrees": ("light, degrees", ".1f", False),
    "nose_scan_mm": ("nose, scan mm", ".2f", False),
    "mouth_scan_mm": ("mouth, scan mm", ".2f", False),
    "forehead_scan_mm": ("forehead, scan mm", ".2f", False),
    "cheek_scan_mm": ("cheek, scan mm", ".2f", False),
    "seconds": ("s a photo", ".2f", False),
}
"""Label, format, and whether more is better."""


def facts_of(metric: str) -> tuple[str, str, bool]:
    """Label, format, and whether more is better; of `method/metric` those of the metric.

    What `METRICS` does not name is a cosine by another judge.
    """
    name = metric.rpartition("/")[2]
    return METRICS.get(name, (name.replace("_", " "), ".3f", True))


def similarity_align(source_BV3: Tensor, target_BV3: Tensor) -> Tensor:
    """Source moved, turned and scaled onto target, least squares (Umeyama 1991); corresponding vertices."""
    source_mean, target_mean = source_BV3.mean(1, keepdim=True), target_BV3.mean(1, keepdim=True)
    source, target = source_BV3 - source_mean, target_BV3 - target_mean
    u, s, vt = torch.linalg.svd(target.transpose(1, 2) @ source)
    sign = torch.ones_like(s)
    sign[:, 2] = torch.sign(torch.linalg.det(u @ vt))  # never a reflection
    rotation = (u * sign[:, None]) @ vt
    scale = (s * sign).sum(1) / source.square().sum((1, 2))
    return scale[:, None, None] * source @ rotation.transpose(1, 2) + target_mean


def vertex_distance(vertices_BV3: Tensor, truth_BV3: Tensor) -> Tensor:
    """(B, V) distance in mm of corresponding vertices after similarity alignment over all vertices.

    Args:
        vertices_BV3, truth_BV3: mm, neutral expression.
    """
    return (similarity_align(vertices_BV3, truth_BV3) - truth_BV3).norm(dim=2)


def shape_error(vertices_BV3: Tensor, truth_BV3: Tensor, mask_V: Tensor | None = None) -> Tensor:
    """(B,) mean `vertex_distance`, with `mask_V` that of these vertices only (a region)."""
    distance = vertex_distance(vertices_BV3, truth_BV3)
    return distance.mean(1) if mask_V is None else distance[:, mask_V].mean(1)


def map_psnr(maps: FaceMaps, truth: FaceMaps, mask_B1RR: Tensor | None = None) -> dict[str, Tensor]:
    """Per map, (B,) PSNR in dB of the displayed images in [0, 1] (sRGB diffuse, specular, normals).

    Args:
        mask_B1RR: bool, (B or 1, 1, R, R): only these texels count; NaN where a person has none.
    """
    ours, theirs = maps.to_images(), truth.to_images()
    squared = {name: (ours[name] - theirs[name]).square() for name in theirs}
    if mask_B1RR is None:
        return {name: -10 * error.mean((1, 2, 3)).log10() for name, error in squared.items()}
    counts = mask_B1RR.sum((1, 2, 3))
    return {
        name: -10 * ((error.mean(1, keepdim=True) * mask_B1RR).sum((1, 2, 3)) / counts).log10()
        for name, error in squared.items()
    }


def identity_cosine(embedding_BD: Tensor, truth_BD: Tensor, mean_D: Tensor | None = None) -> Tensor:
    """(B,) cosine similarity; with `mean_D` (mean embedding of the training set) it is centred, which spreads it."""
    if mean_D is not None:
        embedding_BD, truth_BD = embedding_BD - mean_D, truth_BD - mean_D
    return nnf.cosine_similarity(embedding_BD, truth_BD)


def landmark_error(landmarks_B682: Tensor, truth_B682: Tensor) -> Tensor:
    """(B,) mean landmark distance in units of the distance of the outer eye corners (300-W's convention)."""
    interocular = (truth_B682[:, 36] - truth_B682[:, 45]).norm(dim=1)
    return (landmarks_B682 - truth_B682).norm(dim=2).mean(1) / interocular


def light_error(received_B3: Tensor, truth_B3: Tensor) -> dict[str, Tensor]:
    """How far mean received light (linear RGB) is from the truth, each (B,).

    Returns:
        stops: |log2| of the ratio of luminances. degrees: angle between the two as vectors, which no strength changes
            (the recovery error of colour constancy).
    """
    weights = received_B3.new_tensor(LUMINANCE)
    ours, theirs = ((light @ weights).clamp_min(1e-6) for light in (received_B3, truth_B3))
    cosine = nnf.cosine_similarity(received_B3.double(), truth_B3.double()).clamp(-1, 1)
    return {"stops": (ours / theirs).log2().abs(), "degrees": torch.rad2deg(cosine.acos()).to(received_B3)}
