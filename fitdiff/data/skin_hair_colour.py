"""The colour of a person's hair: two melanins and grey.

Legend of shape suffixes: B people.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fitdiff.randomness import Draws
from fitdiff.types import TensorRecord

WHITE_BLOND = (0.62, 0.50, 0.34)
EUMELANIN = (3.9, 4.1, 3.9)
PHEOMELANIN = (0.10, 0.60, 1.35)
GREY = (0.40, 0.355, 0.30)


@dataclass(frozen=True)
class HairPigments(TensorRecord):
    """(B,) each: eumelanin and pheomelanin, 0 to about 1, and the share of grey hairs on the head, 0 to 1."""

    eumelanin: Tensor
    pheomelanin: Tensor
    grey: Tensor


def hair_colour(eumelanin_B: Tensor, pheomelanin_B: Tensor, grey_B: Tensor) -> Tensor:
    """(B, 3) linear colour: base * exp(-eumelanin e - pheomelanin p), mixed with grey by its share."""
    like = eumelanin_B
    absorbed = eumelanin_B[:, None] * like.new_tensor(EUMELANIN) + pheomelanin_B[:, None] * like.new_tensor(PHEOMELANIN)
    colour = like.new_tensor(WHITE_BLOND) * torch.exp(-absorbed)
    return torch.lerp(colour, like.new_tensor(GREY), grey_B[:, None])


def sample_hair_pigments(draws: Draws, race_B3: Tensor, age: Tensor) -> HairPigments:
    """Draw them: dark for african and asian ancestry, black to blond or red for caucasian, greying from about 45."""
    fair = race_B3[:, 2].pow(1.5)
    return HairPigments(
        eumelanin=1 - fair * draws.uniform(0.0, 0.95) + draws.normal(std=0.05),
        pheomelanin=0.25 + 0.5 * fair * draws.uniform() + fair * draws.chance(0.12) * 0.9,
        grey=torch.sigmoid((age - 0.55 + draws.normal(std=0.13)) / 0.08),
    )
