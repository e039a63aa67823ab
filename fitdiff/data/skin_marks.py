"""Moles, freckles, age spots, blemishes and birthmarks: Gaussian spots of pigment.

Legend of shape suffixes: B people · K spots · C = 3 pigments (melanin, blood, carotene) · R map side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fitdiff.data.atlas import UvAtlas
from fitdiff.randomness import Draws, draw_normals
from fitdiff.types import TensorRecord


class MarkKind(NamedTuple):
    """What one kind of mark is like, in mm of the atlas' chart and in units of pigment.

    Attributes:
        count: at most. up: mean height. spread: standard deviation (across, up). radius, melanin, blood: ranges.
    """

    count: int
    up: float
    spread: tuple[float, float]
    radius: tuple[float, float]
    melanin: tuple[float, float]
    blood: tuple[float, float]


MARKS = {
    "mole": MarkKind(10, -25, (40, 38), (0.4, 1.2), (0.8, 3.0), (0.0, 0.4)),
    "freckle": MarkKind(160, -20, (27, 16), (0.3, 0.75), (0.15, 0.7), (0.0, 0.1)),
    "age_spot": MarkKind(14, -5, (42, 35), (1.2, 4.0), (0.15, 0.6), (0.0, 0.15)),
    "blemish": MarkKind(8, -30, (32, 35), (0.7, 2.0), (0.0, 0.1), (0.25, 0.9)),
    "birthmark": MarkKind(1, -15, (40, 35), (5.0, 13.0), (0.0, 0.5), (0.1, 0.9)),
}


@dataclass(frozen=True)
class Marks(TensorRecord):
    """The spots of each person.

    Attributes:
        centre: (B, K, 2) chart mm. radius: (B, K) mm, standard deviation.
        pigments: (B, K, 3) what each adds at its centre; zero for one that a person does not have.
    """

    centre: Tensor
    radius: Tensor
    pigments: Tensor


def sample_marks(
    draws: Draws, seed: int, index_B: Tensor, stream: int, melanin: Tensor, age: Tensor, foundation: Tensor
) -> Marks:
    """Draw them: freckles on fair skin, age spots on old, and less of all under foundation (0 to 1)."""
    fair = torch.sigmoid((1.9 - melanin) / 0.4)
    share = torch.stack(
        [
            draws.uniform().square(),
            ((draws.uniform() - 0.62) / 0.38).clamp_min(0) * fair,
            (age * 1.6 - 0.5).clamp(0, 1) * draws.uniform(),
            draws.uniform().square() * (1 - age),
            draws.chance(0.06),
        ],
        1,
    )
    kinds = list(MARKS.values())
    counts = torch.tensor([kind.count for kind in kinds])
    table = torch.tensor([[kind.up, *kind.spread, *kind.radius, *kind.melanin, *kind.blood] for kind in kinds])
    up, across, along, *ranges = table.repeat_interleave(counts, 0).unbind(1)
    normals = draw_normals(seed, index_B, stream, (len(up), 5))
    uniform = torch.special.ndtr(normals[..., 2:])
    radius, more_melanin, more_blood = (
        torch.lerp(low, high, uniform[..., i])
        for i, (low, high) in enumerate(zip(ranges[::2], ranges[1::2], strict=True))
    )
    rank = torch.cat([torch.arange(kind.count) for kind in kinds])
    present = ((share * counts).repeat_interleave(counts, 1) - rank).clamp(0, 1) * (1 - 0.6 * foundation[:, None])
    return Marks(
        torch.stack([normals[..., 0] * across, normals[..., 1] * along + up], -1),
        radius,
        torch.stack([more_melanin * present, more_blood * present, torch.zeros_like(present)], -1),
    )


class MarkPainter(nn.Module):
    """Sums of Gaussian spots, each averaged exactly over the texels.

    Args:
        atlas: of the drawing.
    """

    def __init__(self, atlas: UvAtlas) -> None:
        super().__init__()
        self.register_buffer("edges_u", atlas.chart_edges(0), persistent=False)
        self.register_buffer("edges_v", atlas.chart_edges(1), persistent=False)

    def forward(self, marks: Marks) -> Tensor:
        """(B, C, N) pigments."""
        across = _texel_averages(self.edges_u, marks.centre[..., 0], marks.radius)
        down = _texel_averages(self.edges_v, marks.centre[..., 1], marks.radius)
        weighted = marks.pigments.transpose(1, 2)[..., None] * across[:, None]
        return (down.transpose(1, 2)[:, None] @ weighted).flatten(2)


def _texel_averages(edges: Tensor, centre_BK: Tensor, radius_BK: Tensor) -> Tensor:
    """Mean of exp(-(x - centre)^2 / (2 radius^2)) between neighbouring edges: (B, K, R)."""
    z = (edges - centre_BK[..., None]) / radius_BK[..., None]
    area = torch.special.ndtr(z).diff(dim=-1) * math.sqrt(2 * math.pi) * radius_BK[..., None]
    return area / edges.diff()
