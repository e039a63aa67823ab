"""Moles, freckles, age spots, blemishes, birthmarks and scars: Gaussian spots of pigment and relief.

Legend of shape suffixes: B people · K spots · J spots that are more than melanin · C = 3 maps · R map side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
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
        height: mm that it stands out, for a radius of 1 mm.
    """

    count: int
    up: float
    spread: tuple[float, float]
    radius: tuple[float, float]
    melanin: tuple[float, float]
    blood: tuple[float, float]
    height: float


MARKS = {
    "freckle": MarkKind(160, -20, (27, 16), (0.35, 0.9), (0.2, 0.8), (0.0, 0.0), 0.0),
    "mole": MarkKind(12, -25, (40, 38), (0.35, 1.1), (0.8, 3.0), (0.0, 0.4), 0.25),
    "age_spot": MarkKind(16, -5, (42, 35), (1.2, 4.5), (0.2, 0.7), (0.0, 0.15), 0.0),
    "blemish": MarkKind(14, -30, (30, 35), (0.7, 2.2), (0.0, 0.15), (0.3, 1.1), 0.10),
    "birthmark": MarkKind(1, -15, (40, 35), (5.0, 13.0), (0.0, 0.6), (0.1, 1.1), 0.0),
}
"""Freckles come first: they are many and hold melanin only, which halves the work of painting."""

SCAR_SPOTS = 14
"""A scar is a row of this many spots."""


@dataclass(frozen=True)
class Marks(TensorRecord):
    """The spots of each person.

    Attributes:
        centre: (B, K, 2) chart mm. radius: (B, K) mm, standard deviation.
        melanin: (B, K) that each adds at its centre; zero for one that a person does not have.
        others: (B, J, 2) blood and mm of height that the last J spots add; the first ones, freckles, have none.
    """

    centre: Tensor
    radius: Tensor
    melanin: Tensor
    others: Tensor


def sample_marks(
    draws: Draws, seed: int, index_B: Tensor, stream: int, melanin: Tensor, age: Tensor, foundation: Tensor
) -> Marks:
    """Draw them: freckles on fair skin, age spots on old, and less of all under foundation (0 to 1)."""
    fair = torch.sigmoid((1.9 - melanin) / 0.4)
    share = torch.stack(
        [
            ((draws.uniform() - 0.6) / 0.4).clamp_min(0) * fair,
            draws.uniform().pow(3),
            (age * 1.6 - 0.5).clamp(0, 1) * draws.uniform(),
            draws.uniform().pow(2.5) * (1 - age),
            draws.chance(0.07),
        ],
        1,
    )
    kinds = list(MARKS.values())
    counts = torch.tensor([kind.count for kind in kinds], device=melanin.device)
    table = melanin.new_tensor([[k.up, k.height, *k.spread, *k.radius, *k.melanin, *k.blood] for k in kinds])
    up, height, across, along, *ranges = table.repeat_interleave(counts, 0).unbind(1)
    normals = draw_normals(seed, index_B, stream, (len(up), 5))
    uniform = torch.special.ndtr(normals[..., 2:])
    radius, more_melanin, more_blood = (
        torch.lerp(low, high, uniform[..., i])
        for i, (low, high) in enumerate(zip(ranges[::2], ranges[1::2], strict=True))
    )
    rank = torch.cat([torch.arange(kind.count, device=melanin.device) for kind in kinds])
    present = ((share * counts).repeat_interleave(counts, 1) - rank).clamp(0, 1) * (1 - 0.6 * foundation[:, None])
    spots = Marks(
        torch.stack([normals[..., 0] * across, normals[..., 1] * along + up], -1),
        radius,
        more_melanin * present,
        torch.stack([more_blood * present, height * radius * present], -1)[:, MARKS["freckle"].count :],
    )
    scar = _sample_scar(draws, melanin)
    return Marks(*(torch.cat([getattr(m, f.name) for m in (spots, scar)], 1) for f in fields(Marks)))


def _sample_scar(draws: Draws, melanin: Tensor) -> Marks:
    """One person in eight has a scar: a bent line, darker or paler and redder than the skin, sunk or raised."""
    along = torch.linspace(-0.5, 0.5, SCAR_SPOTS, device=melanin.device)
    length = draws.uniform(6.0, 24.0)[:, None]
    direction = torch.stack([draws.normal(), draws.normal()], 1)
    direction = direction / direction.norm(dim=1, keepdim=True).clamp_min(1e-6)
    bend = draws.normal(std=0.15)[:, None] * length * (along.square() - 0.25)
    middle = torch.stack([draws.normal(std=36.0), draws.normal(-22.0, 36.0)], 1)
    across = direction.flip(1) * direction.new_tensor([-1.0, 1.0])
    centre = middle[:, None] + (length * along)[..., None] * direction[:, None] + bend[..., None] * across[:, None]
    step = length / (SCAR_SPOTS - 1)
    radius = torch.maximum(0.6 * step, draws.uniform(0.5, 1.0)[:, None])
    profile = step / (math.sqrt(2 * math.pi) * radius) * (1 - (2 * along).square().square())  # the spots sum to 1
    looks = [draws.uniform(-0.4, 0.5) * melanin, draws.uniform(-0.2, 0.8), draws.normal(-0.08, 0.15)]
    effect = torch.stack(looks, 1) * draws.chance(0.12)[:, None]
    effects = profile[..., None] * effect[:, None]
    return Marks(centre, radius.expand(-1, SCAR_SPOTS), effects[..., 0], effects[..., 1:])


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
        """(B, C, N) what the marks add in melanin, blood and mm of height."""
        across = _texel_averages(self.edges_u, marks.centre[..., 0], marks.radius)
        down = _texel_averages(self.edges_v, marks.centre[..., 1], marks.radius)
        layers = [_sum_of_products(marks.melanin, across, down)]
        last = slice(-marks.others.shape[1], None)
        layers += [_sum_of_products(effect, across[:, last], down[:, last]) for effect in marks.others.unbind(2)]
        return torch.stack(layers, 1).flatten(2)


def _sum_of_products(weight_BK: Tensor, across_BKR: Tensor, down_BKR: Tensor) -> Tensor:
    """sum_k weight_k down_k across_k^T: (B, R, R)."""
    return down_BKR.transpose(1, 2) @ (weight_BK[..., None] * across_BKR)


def _texel_averages(edges: Tensor, centre_BK: Tensor, radius_BK: Tensor) -> Tensor:
    """Mean of exp(-(x - centre)^2 / (2 radius^2)) between neighbouring edges: (B, K, R)."""
    z = (edges - centre_BK[..., None]) / radius_BK[..., None]
    area = torch.special.ndtr(z).diff(dim=-1) * math.sqrt(2 * math.pi) * radius_BK[..., None]
    return area / edges.diff()
