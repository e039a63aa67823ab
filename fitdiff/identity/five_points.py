"""The five alignment points (eyes, nose tip, mouth corners) of most face-recognition networks, from 68 landmarks."""

from __future__ import annotations

import torch
from torch import Tensor

POINT_LANDMARKS = (tuple(range(36, 42)), tuple(range(42, 48)), (30,), (48,), (54,))
"""Landmarks whose mean is each point; an eye's centre is the mean of its lids."""


def five_point_weights() -> Tensor:
    """(5, 68) rows that make the points from 68 landmarks."""
    weights = torch.zeros(len(POINT_LANDMARKS), 68)
    for row, landmarks in zip(weights, POINT_LANDMARKS, strict=True):
        row[list(landmarks)] = 1 / len(landmarks)
    return weights


def template_ndc(pixels: tuple[tuple[float, float], ...], size: int) -> Tensor:
    """Template in pixel indices, where 0 is the centre of the first pixel (OpenCV) -> (5, 2) crop NDC."""
    corner_based = torch.tensor(pixels) + 0.5
    return (corner_based * (2 / size) - 1) * torch.tensor([1.0, -1.0])
