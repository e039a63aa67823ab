"""What people's skin looks like, as traits drawn from their phenotypes: the person without the pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fitdiff.data.skin_eyes import Eyes, sample_eyes
from fitdiff.data.skin_hair import Hair, sample_hair
from fitdiff.data.skin_marks import Marks, sample_marks
from fitdiff.data.skin_mouth import Lips, sample_lips
from fitdiff.data.skin_relief import Relief, sample_relief
from fitdiff.data.skin_tone import REGIONS, Complexion, sample_complexion
from fitdiff.randomness import Draws, draw_normals
from fitdiff.types import TensorRecord

TRAIT_STREAM, REGION_STREAM, MARK_STREAM = 100, 1, 2
"""A person's lists of random numbers: scalar traits (one list a part of the face), regions, marks."""


class Phenotypes(Protocol):
    """What skin depends on.

    Attributes:
        index: (B,) int64, non-negative, which person of a population. gender: (B,) 0 female to 1 male.
        age: (B,) 0 young adult to 1 old. race: (B, 3) african, asian, caucasian; sums to 1. weight: (B,) 0 to 1.
    """

    index: Tensor
    gender: Tensor
    age: Tensor
    race: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Look(TensorRecord):
    """All traits of people's skin.

    Attributes:
        index: (B,) int64. blush: (B,) rouge on the cheeks, 0 to 1. foundation: (B,) how far make-up evens out the skin.
    """

    index: Tensor
    complexion: Complexion
    marks: Marks
    relief: Relief
    hair: Hair
    eyes: Eyes
    lips: Lips
    blush: Tensor
    foundation: Tensor


def sample_look(people: Phenotypes, seed: int) -> Look:
    """Draw the traits of people, on their device; those of person i depend on (seed, i) and their phenotype alone."""
    index = people.index
    age, male, weight, race = (x.float() for x in (people.age, people.gender, people.weight, people.race))

    def draws(part: int) -> Draws:
        return Draws(seed, index, TRAIT_STREAM + part)

    habits = draws(0)
    made_up = habits.chance(0.7 * torch.sigmoid((0.36 - male) / 0.05)) * habits.uniform(0.25, 1.0)
    foundation = made_up * habits.uniform(0.0, 1.0)
    blush = made_up * habits.uniform(0.0, 0.9)
    regions = draw_normals(seed, index, REGION_STREAM, (3, len(REGIONS)))
    complexion = sample_complexion(draws(1), regions, race, age, male)
    melanin = complexion.pigments[:, 0]
    return Look(
        index=index,
        complexion=complexion,
        marks=sample_marks(draws(2), seed, index, MARK_STREAM, melanin, age, foundation),
        relief=sample_relief(draws(3), age, weight, male),
        hair=sample_hair(draws(4), race, age, male, made_up),
        eyes=sample_eyes(draws(5), race, age, male, made_up),
        lips=sample_lips(draws(6), melanin, age, male, made_up),
        blush=blush,
        foundation=foundation,
    )
