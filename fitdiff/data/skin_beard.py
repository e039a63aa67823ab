"""Facial hair from a shadow to a full beard, as coverage of the skin in zones that styles combine.

Legend of shape suffixes: B people · N texels · P texels of the patch · Z beard zones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fitdiff.data.skin_canvas import columns, soft_step
from fitdiff.data.skin_geometry import FaceGeometry, height_above, nearest_on_polyline, smooth_curve
from fitdiff.data.skin_hair_colour import HairPigments, hair_colour
from fitdiff.randomness import Draws
from fitdiff.types import TensorRecord

ZONES = ("moustache", "soul_patch", "chin", "circle", "jaw", "cheek", "sideburn")
STYLES = {
    "shaven": (1.0, 0.7, 1.0, 0.9, 0.9, 0.55, 0.6),
    "stubble": (1.0, 0.8, 1.0, 1.0, 1.0, 0.8, 0.8),
    "full": (1.0, 0.8, 1.0, 1.0, 1.0, 0.9, 0.9),
    "goatee": (0.1, 0.9, 1.0, 0.15, 0.05, 0.0, 0.2),
    "circle": (0.95, 0.7, 1.0, 1.0, 0.1, 0.0, 0.2),
    "van_dyke": (0.95, 0.9, 1.0, 0.1, 0.1, 0.05, 0.2),
    "moustache": (1.0, 0.1, 0.1, 0.1, 0.1, 0.05, 0.2),
    "chin_strap": (0.2, 0.4, 0.9, 0.15, 1.0, 0.1, 0.9),
    "mutton_chops": (0.9, 0.1, 0.05, 0.3, 0.8, 0.9, 1.0),
}
"""Relative coverage of the zones."""
STYLE_ODDS = (0.36, 0.12, 0.20, 0.05, 0.09, 0.05, 0.07, 0.04, 0.02)
STYLE_GROWTH = ((0.0, 0.22), (0.25, 0.55), *[(0.55, 0.97)] * 7)
"""Range of the coverage of each style."""


@dataclass(frozen=True)
class Beard(TensorRecord):
    """Facial hair.

    Attributes:
        colour: (B, 3) linear. zones: (B, Z) coverage in [0, 1] of each of `ZONES`, shadow included.
        line: (B,) mm that the cheeks' edge lies above (+) the mean's. moustache: (B,) mm, half height.
        patchy: (B,) contrast of its gaps. edge: (B,) mm, softness of its outline.
    """

    colour: Tensor
    zones: Tensor
    line: Tensor
    moustache: Tensor
    patchy: Tensor
    edge: Tensor


def sample_beard(draws: Draws, hair: HairPigments, male: Tensor) -> Beard:
    """Draw it, for men; grey hairs cast no shadow through shaven skin."""
    odds = male.new_tensor(STYLE_ODDS).cumsum(0)
    style = torch.searchsorted(odds, draws.uniform().contiguous()).clamp_max(len(STYLES) - 1)
    low, high = male.new_tensor(STYLE_GROWTH)[style].unbind(1)
    growth = torch.lerp(low, high, draws.uniform())
    fullness = torch.exp(torch.stack([draws.normal(std=0.4) for _ in ZONES], 1).clamp_max(0.5))
    grown = torch.sigmoid((male - 0.62) / 0.06)
    grey = hair.grey * draws.uniform(0.4, 1.0)
    short = (style <= 1).float()
    visible = 1 - 0.8 * grey * short
    amount = growth * grown * visible
    return Beard(
        colour=hair_colour((hair.eumelanin + draws.normal(-0.05, 0.1)).clamp(0.1, 1.1), hair.pheomelanin * 1.3, grey),
        zones=(male.new_tensor(list(STYLES.values()))[style] * amount[:, None] * fullness).clamp(0, 0.97),
        line=draws.normal(std=6.0),
        moustache=(4.3 * torch.exp(draws.normal(std=0.3))).clamp(2.0, 7.0),
        patchy=draws.uniform(0.03, 0.17),
        edge=draws.uniform(1.2, 4.0),
    )


class BeardPainter(nn.Module):
    """Coverage by beard: zones with soft outlines, broken up by noise."""

    def __init__(self, geometry: FaceGeometry) -> None:
        super().__init__()
        moustache, below = _moustache(geometry), _below_cheek_line(geometry)
        fixed = _fixed_zones(geometry)
        patch = ((fixed.amax(0) > 0.01) | (moustache < 9) | (below > -14)).nonzero().squeeze(1)
        self.register_buffer("patch", patch, persistent=False)
        self.register_buffer("fixed", fixed[:, patch], persistent=False)
        self.register_buffer("off_moustache", moustache[patch], persistent=False)
        self.register_buffer("below", below[patch], persistent=False)
        self.register_buffer("beside_chin", soft_step(geometry.side[patch] - 22, 4.0), persistent=False)
        self.register_buffer("texel", geometry.texel[patch], persistent=False)

    def forward(self, beard: Beard, patchiness_BN: Tensor, hairs_BN: Tensor) -> Tensor:
        """(B, P) coverage in [0, 1] on the patch, from unit-variance noise of about 1 cm and of hairs."""
        b = columns(beard)
        patchiness, hairs = patchiness_BN[:, self.patch], hairs_BN[:, self.patch]
        stray = 0.9 * hairs + 1.2 * patchiness
        below = self.below + b["line"] + stray
        zones = (
            soft_step(b["moustache"] - self.off_moustache + 0.5 * stray, 0.35 * b["edge"] + 0.3, self.texel),
            *self.fixed[:3],
            soft_step(below - 14, 1.5 * b["edge"]),
            soft_step(below, b["edge"], self.texel) * self.beside_chin,
            self.fixed[3],
        )
        bare = torch.ones_like(below)
        for zone, amount in zip(zones, beard.zones.unbind(1), strict=True):
            bare *= 1 - amount[:, None] * zone
        rough = 1 + b["patchy"] * patchiness + 0.3 * hairs
        return ((1 - bare) * rough).clamp(0, 1)


def _texels(g: FaceGeometry) -> Tensor:
    return torch.stack([g.side, g.up], 1)


def _moustache(g: FaceGeometry) -> Tensor:
    """(N,) mm from the moustache's middle line."""
    line = torch.stack([g.at(33, 51), g.at(33, 35, 52, 53, up=-1), g.at(54, side=2, up=2), g.at(54, side=5, up=-6)])
    return nearest_on_polyline(_texels(g), smooth_curve(line))[0]


def _below_cheek_line(g: FaceGeometry) -> Tensor:
    """(N,) mm below the mean upper edge of a full beard on the cheeks."""
    edge = torch.stack(
        [
            g.at(8, up=14),
            g.at(8, 54, side=8, up=4),
            g.at(54, side=18, up=-2),
            g.at(13, side=-14, up=4),
            g.at(15, side=-4),
        ]
    )
    return -height_above(g.side, g.up, smooth_curve(edge))


def _fixed_zones(g: FaceGeometry) -> Tensor:
    """(4, N) soul patch, chin, circle and sideburn: 0 to 1, smooth."""
    circle = torch.stack([g.at(54, side=4, up=-2), g.at(54, side=5, up=-12), g.at(8, 54, side=4, up=-6)])
    off_circle, _ = nearest_on_polyline(_texels(g), smooth_curve(circle))
    sideburn = soft_step(g.side - g.at(14)[0] + 16, 4.0) * soft_step(g.at(16)[1] + 22 - g.up, 4.0)
    return torch.stack(
        [
            g.bump(g.at(57, up=-6), (5, 4)),
            g.bump(g.at(8, up=4), (17, 11)),
            soft_step(4.0 - off_circle, 1.6),
            sideburn,
        ]
    )
