"""Hair of the scalp as far as the face's mesh reaches it, and all hair of a face together.

Legend of shape suffixes: B people · N texels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fitdiff.data.skin_beard import Beard, sample_beard
from fitdiff.data.skin_brows import Brows, sample_brows
from fitdiff.data.skin_canvas import columns, soft_step
from fitdiff.data.skin_geometry import FaceGeometry
from fitdiff.data.skin_hair_colour import HairPigments, hair_colour, sample_hair_pigments
from fitdiff.randomness import Draws
from fitdiff.types import TensorRecord


@dataclass(frozen=True)
class Hairline(TensorRecord):
    """Scalp hair as far as the face reaches it; (B,) mm unless said otherwise.

    Attributes:
        colour: (B, 3) linear. opacity: 0 bald, 0.5 shorn, 1 covered. curl: 0 straight strands to 1 curls.
        height: above the brows at the middle. corners: that the hair recedes at the temples. peak: of widow's peak.
        parting: that the hair lies lower on the subject's left (+) than in the middle. side: that it comes forward at
        the sides. softness: of the edge. ragged: how far strands stand out. bottom: above the eyes, where hair beside
        the face ends.
    """

    colour: Tensor
    opacity: Tensor
    curl: Tensor
    height: Tensor
    corners: Tensor
    peak: Tensor
    parting: Tensor
    side: Tensor
    softness: Tensor
    ragged: Tensor
    bottom: Tensor


@dataclass(frozen=True)
class Hair(TensorRecord):
    """All hair of a face."""

    brows: Brows
    beard: Beard
    hairline: Hairline


def sample_hair(draws: Draws, race_B3: Tensor, age: Tensor, male: Tensor, made_up: Tensor) -> Hair:
    """Draw it; brows and beard have about the colour of the head, which women may dye."""
    pigments = sample_hair_pigments(draws, race_B3, age)
    brows = sample_brows(draws, pigments, age, male, made_up)
    beard = sample_beard(draws, pigments, male)
    return Hair(brows, beard, _sample_hairline(draws, pigments, race_B3, age, male))


def _sample_hairline(draws: Draws, hair: HairPigments, race_B3: Tensor, age: Tensor, male: Tensor) -> Hairline:
    balding = male * torch.sigmoid((age - 0.55 + draws.normal(std=0.3)) / 0.12)
    shorn = draws.chance(0.05 + 0.3 * male)
    fringe = draws.chance(0.05 + 0.25 * (1 - male)) * draws.uniform(0.5, 1.0)
    dyed = draws.chance(0.3 * (1 - male))
    bleach = dyed * draws.uniform(0.0, 0.8)
    curl = (race_B3[:, 0] * draws.uniform(0.6, 1.2) + draws.chance(0.15) * draws.uniform()).clamp(0, 1)
    full = (0.8 + 0.4 * draws.uniform()).clamp_max(1) * (1 - shorn * draws.uniform(0.25, 0.6))
    loose = (1 - shorn) * draws.uniform(0.3, 1.6) + 0.3
    return Hairline(
        colour=hair_colour(
            (hair.eumelanin * (1 - bleach)).clamp(0.05, 1.1),
            hair.pheomelanin + dyed * draws.uniform(0.0, 0.7),
            hair.grey * (1 - dyed),
        ),
        opacity=(full * (1 - balding * draws.uniform(0.3, 1.0))).clamp(0, 1),
        curl=curl,
        height=draws.normal(45.0, 7.0) + 12 * balding - 27 * fringe,
        corners=(draws.normal(3.0, 4.0) + 5 * male + 14 * balding).clamp_min(-2) * (1 - fringe),
        peak=draws.normal(0.5, 3.0).clamp_min(0) * (1 - fringe),
        parting=draws.normal(std=3.0) + (1 - male) * (1 - shorn) * draws.chance(0.35) * draws.normal(std=9.0),
        side=draws.normal(2.0, 6.0),
        softness=draws.uniform(1.2, 4.0),
        ragged=loose * (1 + fringe),
        bottom=torch.where(draws.uniform() < 0.12 + 0.75 * (1 - male), -300.0, draws.normal(-14.0, 9.0)),
    )


class HairlinePainter(nn.Module):
    """Coverage by scalp hair above the forehead and beside the temples."""

    def __init__(self, geometry: FaceGeometry) -> None:
        super().__init__()
        brow = geometry.at(23, 24, 25)
        self.temple = geometry.at(26)[0].item()
        side = geometry.side
        buffers = {
            "above": geometry.up - brow[1],
            "up": geometry.up,
            "side": side,
            "texel": geometry.texel,
            "lean": torch.tanh(geometry.signed / 30),
            "corner": torch.exp(-0.5 * ((side - 0.72 * self.temple) / 13).square()),
            "middle": torch.exp(-0.5 * (side / 9).square()),
            "beside": soft_step(side - self.temple, 5.0),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, hairline: Hairline, wobble_BN: Tensor, strands_BN: Tensor) -> Tensor:
        """(B, N) coverage in [0, 1]; `wobble_BN` of about 2 cm bends the edge, `strands_BN` frays it."""
        h = columns(hairline)
        fall = 0.028 * (self.side - 0.45 * self.temple - h["corners"]).clamp_min(0).square()
        edge = h["height"] + h["corners"] * self.corner - h["peak"] * self.middle - h["side"] * self.beside - fall
        edge = edge - h["parting"] * self.lean
        inside = self.above - edge + 1.5 * wobble_BN + h["ragged"] * h["softness"] * strands_BN
        return h["opacity"] * soft_step(inside, h["softness"], self.texel) * soft_step(self.up - h["bottom"], 4.0)
