"""Relief of the skin: wrinkles that come with age, undulation and pores, as a height map in mm.

Legend of shape suffixes: B people · N texels · P texels of a patch · G creases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fitdiff.data.skin_canvas import soft_step, stroke
from fitdiff.data.skin_geometry import FaceGeometry, nearest_on_polyline, smooth_curve
from fitdiff.randomness import Draws
from fitdiff.types import TensorRecord


class Crease(NamedTuple):
    """A fold that many faces share, drawn from landmark-anchored points.

    Attributes:
        points: (landmarks whose mean is the anchor, side mm, up mm).
        width: standard deviation of the groove, mm.
        depth: mm at youth and what age adds. std: relative spread between people.
    """

    points: tuple[tuple[tuple[int, ...], float, float], ...]
    width: float
    depth: tuple[float, float]
    std: float


def _fan(angle_up: float, length: float, drop: float) -> tuple[tuple[tuple[int, ...], float, float], ...]:
    """A crow's foot: from 5 mm beside the outer corner of the eye."""
    return (((45,), 5, drop), ((45,), 5 + length / 2, drop + angle_up * 0.6), ((45,), 5 + length, drop + angle_up))


CREASES = {
    "nasolabial": Crease((((35,), 3, 5), ((35,), 8, -4), ((54,), 9, 8), ((54,), 8, -3)), 1.7, (0.20, 0.55), 0.45),
    "marionette": Crease((((54,), 3, -3), ((54,), 5, -11), ((54,), 5, -20)), 1.4, (0.03, 0.40), 0.6),
    "chin_fold": Crease((((57,), 0, -8), ((57,), 9, -8.5), ((57,), 17, -11)), 1.8, (0.15, 0.15), 0.6),
    "tear_trough": Crease((((42,), 0, -5), ((47,), 0, -8), ((46,), 0, -10), ((46,), 8, -9)), 1.6, (0.14, 0.32), 0.55),
    "lower_lid": Crease(
        (((42,), 2, -2.5), ((47,), 0, -4), ((46,), 0, -4.2), ((45,), -1, -2.5)), 0.8, (0.06, 0.15), 0.6
    ),
    "frown": Crease((((22,), 1, 0), ((22,), 0.5, 7), ((22,), 2.5, 14)), 1.3, (0.02, 0.30), 0.7),
    "nose_root": Crease((((27,), 0, 6), ((27,), 6, 5), ((27,), 9, 3)), 0.9, (0.0, 0.25), 0.9),
    "crow_1": Crease(_fan(9, 15, 3), 0.7, (0.0, 0.30), 0.6),
    "crow_2": Crease(_fan(3, 18, 0), 0.7, (0.02, 0.34), 0.6),
    "crow_3": Crease(_fan(-6, 18, -3), 0.7, (0.0, 0.32), 0.6),
    "crow_4": Crease(_fan(-14, 15, -6), 0.8, (0.0, 0.26), 0.7),
    "cheek_fold": Crease((((54,), 17, 16), ((54,), 19, 2), ((54,), 15, -12)), 1.6, (0.0, 0.28), 0.9),
}

FOREHEAD_LINES = 5


@dataclass(frozen=True)
class Relief(TensorRecord):
    """A person's relief.

    Attributes:
        creases: (B, G) depth in mm of each of `CREASES`.
        forehead_depth: (B, 5) mm; forehead_height: (B, 5) mm above the brows.
        undulation: (B,) mm, standard deviation of bumps of 1 to 2 cm. pores: (B,) mm.
    """

    creases: Tensor
    forehead_depth: Tensor
    forehead_height: Tensor
    undulation: Tensor
    pores: Tensor


def sample_relief(draws: Draws, age: Tensor, weight: Tensor, male: Tensor) -> Relief:
    """Draw it: wrinkles deepen with age to the power 1.5, faster on thin faces."""
    wear = 1.5 * age.clamp(0, 1).pow(1.5) * (1.25 - 0.5 * weight)
    table = CREASES.values()
    creases = [
        ((c.depth[0] + c.depth[1] * wear) * torch.exp(c.std * draws.normal().clamp(-2, 1.6))).clamp_max(0.9)
        for c in table
    ]
    lined = (0.02 + 0.34 * wear * (0.75 + 0.5 * male)) * torch.exp(0.5 * draws.normal().clamp(-2, 1.5))
    lines = range(FOREHEAD_LINES)
    spacing = draws.uniform(6.0, 9.0)
    lowest = draws.uniform(9.0, 15.0)
    return Relief(
        torch.stack(creases, 1),
        torch.stack([lined * draws.uniform(0.0, 1.2) for _ in lines], 1),
        torch.stack([lowest + i * spacing + draws.normal(std=0.8) for i in lines], 1),
        0.04 * torch.exp(0.4 * draws.normal()) * (1 + 1.0 * age),
        0.016 * torch.exp(0.4 * draws.normal()) * (0.7 + 0.4 * male + 0.5 * age),
    )


class ReliefPainter(nn.Module):
    """Heights of the creases and forehead lines."""

    def __init__(self, geometry: FaceGeometry) -> None:
        super().__init__()
        self.register_buffer(
            "creases_GN", torch.stack([_groove(geometry, c) for c in CREASES.values()]), persistent=False
        )
        brow = geometry.at(23, 24, 25)[1]
        above = geometry.up - brow
        patch = ((above > 2) & (above < 60) & (geometry.side < 62)).nonzero().squeeze(1)
        side = geometry.side[patch]
        self.register_buffer("patch", patch, persistent=False)
        # Lines dip slightly over the nose and fall off towards the temples, as the frontalis muscle does.
        self.register_buffer("above", above[patch] + 0.004 * (side - 18).clamp_min(0) ** 2 * 1.2, persistent=False)
        self.register_buffer("fade", soft_step(44 - side, 5.0), persistent=False)
        self.register_buffer("texel", geometry.texel[patch], persistent=False)

    def forward(self, relief: Relief, wobble_BN: Tensor, strength_BN: Tensor) -> Tensor:
        """(B, N) mm, zero or negative.

        Args:
            wobble_BN: unit-variance noise of about 2 cm that bends the lines.
            strength_BN: unit-variance noise of about 1 cm that makes them uneven.
        """
        height = -(relief.creases @ self.creases_GN) * (1 + 0.2 * strength_BN).clamp(0.3, 1.7)
        above = self.above + 1.0 * wobble_BN[:, self.patch]
        lines = stroke(above[:, None] - relief.forehead_height[..., None], 0.95, self.texel)
        depth = (relief.forehead_depth[..., None] * lines).sum(1)
        uneven = (0.9 + 0.45 * strength_BN[:, self.patch]).clamp_min(0)
        height[:, self.patch] -= depth * uneven * self.fade
        return height


def _groove(geometry: FaceGeometry, crease: Crease) -> Tensor:
    """(N,) unit-depth Gaussian groove along a crease that fades at both ends; what a texel cannot hold is spread."""
    points = torch.stack([geometry.at(*anchor, side=side, up=up) for anchor, side, up in crease.points])
    texels = torch.stack([geometry.side, geometry.up], 1)
    curve = smooth_curve(points)
    distance, along = nearest_on_polyline(texels, curve)
    t = along / curve.diff(dim=0).norm(dim=1).sum()
    ends = soft_step(t - 0.25, 1 / 12) * soft_step(0.75 - t, 1 / 12)
    return stroke(distance, crease.width, geometry.texel) * ends
