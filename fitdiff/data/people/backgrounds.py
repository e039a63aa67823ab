"""What is behind people: rooms out of focus, walls, gradients.

Legend of shape suffixes: N views · S side of the picture.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor

from fitdiff.colour import srgb_to_linear
from fitdiff.data.people.views import Views

LATTICES = (2, 4, 8, 16)
"""Knots along a side of the smooth fields; the first is a gradient."""

BOXES = 4


def sample_backgrounds(views: Views, size: int) -> Tensor:
    """(N, 3, size, size) linear light: smooth fields from gradients to texture, and soft-edged things."""
    draws = views.draws("background")
    base = torch.stack([draws.normal(std=0.05) for _ in range(3)], 1) + draws.uniform(0.12, 0.88)[:, None]
    picture = base[..., None, None].expand(-1, -1, size, size)
    lattices = views.normals("field", (sum(4 * n * n for n in LATTICES),))
    for n, lattice in zip(LATTICES, lattices.split([4 * n * n for n in LATTICES], 1), strict=True):
        amplitude = (draws.uniform().square() * 0.9 / n**1.15)[:, None, None, None]
        grey, colour = lattice.unflatten(1, (4, n, n)).split([1, 3], 1)
        field = amplitude * (grey + 0.2 * colour)
        picture = picture + nnf.interpolate(field, size=(size, size), mode="bicubic", align_corners=True)
    place = torch.linspace(-1, 1, size, device=base.device)
    for _ in range(BOXES):
        colour = torch.stack([draws.normal(std=0.06) for _ in range(3)], 1) + draws.uniform(0.05, 0.95)[:, None]
        edge = draws.uniform(0.01, 0.15)[:, None]
        across, down = (_soft_interval(place, draws.uniform(-1.1, 1.1), draws.uniform(0.1, 0.6), edge) for _ in "xy")
        cover = (draws.chance(0.4) * draws.uniform(0.3, 0.9))[:, None, None] * down[:, :, None] * across[:, None]
        picture = torch.lerp(picture, colour[..., None, None].expand_as(picture), cover[:, None])
    return srgb_to_linear(picture)


def _soft_interval(place: Tensor, centre: Tensor, half_width: Tensor, edge: Tensor) -> Tensor:
    """(N, S) 1 within half_width of the centre, with logistic edges."""
    return torch.sigmoid((half_width[:, None] - (place - centre[:, None]).abs()) / edge)
