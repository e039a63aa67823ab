"""Small random motions of the aligned crops, so that a fit cannot please the recognition network by fixed pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor

from fitdiff.randomness import draw_normals

SEED, STREAM = 0, 1 << 20
TURN, SCALE, SHIFT = 0.03, 0.02, 0.03
"""Deviations at strength 1: radians, part of the size, part of half the crop's side."""


class CropJitter:
    """One motion (turn, scale, shift, and for every other one a mirror image) for all crops of a step.

    Args:
        strength: times the deviations above. step: the motion is a function of it alone.
    """

    def __init__(self, strength: float, step: int) -> None:
        turn, scale, x, y, mirror = draw_normals(SEED, torch.zeros(1, dtype=torch.int64), STREAM + step, (5,))[0]
        size, angle = 1 + SCALE * strength * scale, TURN * strength * turn
        side = torch.where(mirror < 0, -1.0, 1.0)
        rows = [size * angle.cos() * side, -size * angle.sin(), SHIFT * strength * x]
        rows += [size * angle.sin() * side, size * angle.cos(), SHIFT * strength * y]
        self.transform = torch.stack(rows).view(1, 2, 3)

    def __call__(self, crops_B3SS: Tensor) -> Tensor:
        """(B, 3, S, S) -> the same, moved; edge pixels are repeated. Differentiable."""
        theta = self.transform.to(crops_B3SS).expand(len(crops_B3SS), -1, -1)
        grid = nnf.affine_grid(theta, list(crops_B3SS.shape), align_corners=False)
        return nnf.grid_sample(crops_B3SS, grid, padding_mode="border", align_corners=False)
