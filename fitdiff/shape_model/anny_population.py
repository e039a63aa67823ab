"""Synthetic people for the embedded face model: phenotypes, and the morph-target weights that they stand for.

People are drawn from phenotypes (sex, age, ancestry, build) and local changes, not from a Gaussian on the shape
components, so that the skin painted on them can depend on the same phenotypes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from scipy import special
from torch import Tensor

from fitdiff.randomness import draw_normals
from fitdiff.shape_model import makehuman
from fitdiff.types import TensorRecord

GENDERS = ("female", "male")
AGES = ("young", "old")
RACES = ("african", "asian", "caucasian")
MUSCLES = ("minmuscle", "averagemuscle", "maxmuscle")
WEIGHTS = ("minweight", "averageweight", "maxweight")
HEIGHTS = ("minheight", "maxheight")
PROPORTIONS = ("uncommonproportions", "idealproportions")

LOCAL_FOLDERS = ("asym", "cheek", "chin", "eyebrows", "eyes", "forehead", "head", "mouth", "neck", "nose")
NOT_FACE = ("asym-ear", "asymm-", "measure-neck", "neck-back", "neck-scale", "neck-trans", "head-trans")
"""Targets that leave the face alone, and `head-trans`, which only moves the whole head."""

OPPOSITES = (
    ("decr", "incr"),
    ("down", "up"),
    ("in", "out"),
    ("backward", "forward"),
    ("concave", "convex"),
    ("compress", "uncompress"),
)

BETAS = {
    "gender": (0.4, 0.4),
    "age": (0.8, 1.3),
    "muscle": (4, 4),
    "weight": (3, 3),
    "height": (3, 3),
    "proportions": (2, 3),
}
"""Parameters of the beta distributions of the phenotypes."""
RACE_CONCENTRATION = 0.45
"""Of the symmetric Dirichlet distribution: most people are mainly of one ancestry, and no ancestry is rarer."""

STREAM = 1000
"""List of random numbers that people are made of."""
GRID_REACH, GRID_SIZE = 6.5, 2048
"""Normal numbers between which the distributions are tabulated, and how finely."""

LOCAL_STD = 0.36
ASYMMETRY_STD = 0.12
SIDE_STD = 0.07
LOCAL_MAX_STD_MM = 2.4
"""A local change moves no vertex by more than this at one standard deviation (`forehead-nubian` would move 9 mm)."""


@dataclass(frozen=True)
class Modifier:
    """One local change: a pair of opposite morph targets, or a single one of non-negative weight.

    Attributes:
        name: of its positive target.
        negative: path of the target for negative scores, None if there is none.
        positive: path of the target for positive scores.
        std: standard deviation of the weight before the cap in mm.
    """

    name: str
    negative: Path | None
    positive: Path
    std: float


@dataclass(frozen=True)
class Population(TensorRecord):
    """People as phenotypes and local changes.

    Attributes:
        index: (B,) int64, which person of the seed's endless list.
        gender: (B,) 0 female to 1 male.
        age: (B,) 0 young adult to 1 old.
        race: (B, 3) african, asian, caucasian; sums to 1.
        muscle, weight, height, proportions: (B,) in [0, 1], 0.5 average.
        local: (B, len(modifiers())) scores of the local changes in standard deviations; >= 0 for unpaired ones.
    """

    index: Tensor
    gender: Tensor
    age: Tensor
    race: Tensor
    muscle: Tensor
    weight: Tensor
    height: Tensor
    proportions: Tensor
    local: Tensor


@cache
def modifiers() -> tuple[Modifier, ...]:
    """The local changes in a fixed order (sorted by folder, then by name)."""
    found: list[Modifier] = []
    for folder in LOCAL_FOLDERS:
        paths = {k: v for k, v in makehuman.target_paths(folder).items() if not k.startswith(NOT_FACE)}
        negatives = {_opposite(name): name for name in paths if _opposite(name) in paths}
        std = ASYMMETRY_STD if folder == "asym" else LOCAL_STD
        found += [
            Modifier(name, paths[negatives[name]] if name in negatives else None, path, std)
            for name, path in paths.items()
            if name not in negatives.values()
        ]
    return tuple(found)


def _opposite(negative: str) -> str | None:
    """`nose-base-down` -> `nose-base-up`; None for a name that does not end in a negative word."""
    stem, _, word = negative.rpartition("-")
    return f"{stem}-{dict(OPPOSITES)[word]}" if word in dict(OPPOSITES) else None


def sample_population(seed: int, indices: Iterable[int] | Tensor) -> Population:
    """Draw people; person i of a seed is the same in every batch, order and process (see `randomness`).

    Args:
        seed: names an endless list of people.
        indices: which of them, non-negative; an int64 tensor decides the device.

    Returns:
        The people in the order of `indices`, float32.
    """
    index = indices if isinstance(indices, Tensor) else torch.tensor([int(i) for i in indices])
    normals = draw_normals(seed, index, STREAM, (len(BETAS) + len(RACES) + len(modifiers()),))
    phenotypes, races, local = normals.split([len(BETAS), len(RACES), len(modifiers())], 1)
    tables = {name: table.to(normals) for name, table in _quantiles().items()}
    columns = {
        name: torch.sigmoid(_interpolate(tables[name], z)) for name, z in zip(BETAS, phenotypes.unbind(1), strict=True)
    }
    # Independent gamma variates, divided by their sum, are a Dirichlet variate.
    race = _interpolate(tables["race"], races).softmax(1)
    return Population(index=index, race=race, local=_couple(local), **columns)


@cache
def _quantiles() -> dict[str, Tensor]:
    """Quantiles of the phenotypes at the levels of normal numbers on a grid: logits of the betas, logs of the gamma.

    In these units they are smooth functions of the normal number, which straight lines follow to 1e-5.
    """
    z = np.linspace(-GRID_REACH, GRID_REACH, GRID_SIZE)
    low, high = special.ndtr(z), special.ndtr(-z)
    tables = {
        name: np.log(special.betaincinv(a, b, low)) - np.log(special.betaincinv(b, a, high))
        for name, (a, b) in BETAS.items()
    }
    gamma = np.where(
        z < 0, special.gammaincinv(RACE_CONCENTRATION, low), special.gammainccinv(RACE_CONCENTRATION, high)
    )
    return {name: torch.from_numpy(table).float() for name, table in (tables | {"race": np.log(gamma)}).items()}


def _interpolate(table: Tensor, z: Tensor) -> Tensor:
    """Value of a table of `_quantiles` at normal numbers of any shape, straight between its grid points."""
    place = ((z / GRID_REACH + 1) / 2 * (GRID_SIZE - 1)).clamp(0, GRID_SIZE - 1.001)
    below = place.long()
    return torch.lerp(table[below], table[below + 1], place - below)


def _couple(scores: Tensor) -> Tensor:
    """Give both sides of the face nearly the same change (B, M), and unpaired changes a non-negative weight.

    What tells the sides apart is added to one and subtracted from the other: no side differs on average.
    """
    left, right, unpaired = (ids.to(scores.device) for ids in _layout())
    difference = scores[:, right] * (SIDE_STD / LOCAL_STD / 2)
    coupled = scores.index_copy(1, left, scores[:, left] + difference)
    coupled = coupled.index_copy(1, right, scores[:, left] - difference)
    return coupled.index_copy(1, unpaired, coupled[:, unpaired].clamp_min(0))


@cache
def _layout() -> tuple[Tensor, Tensor, Tensor]:
    """Positions of the left changes, of their right partners, and of the unpaired ones."""
    names = [modifier.name for modifier in modifiers()]
    left = [i for i, name in enumerate(names) if name.startswith("l-")]
    right = [names.index("r-" + names[i][2:]) for i in left]
    unpaired = [i for i, modifier in enumerate(modifiers()) if modifier.negative is None]
    return torch.tensor(left), torch.tensor(right), torch.tensor(unpaired)


@cache
def macro_paths() -> tuple[Path, ...]:
    """Morph targets of the phenotypes, in the order of `macro_weights`' columns."""
    paths = makehuman.target_paths("macrodetails")
    height, proportions = (makehuman.target_paths(f"macrodetails/{kind}") for kind in ("height", "proportions"))
    build = (GENDERS, AGES, MUSCLES, WEIGHTS)

    def select(table: dict[str, Path], prefix: str, *factors: tuple[str, ...]) -> list[Path]:
        return [table[prefix + "-".join(words)] for words in itertools.product(*factors)]

    return (
        *select(paths, "universal-", *build),
        *select(paths, "", RACES, GENDERS, AGES),
        *select(height, "", *build, HEIGHTS),
        *select(proportions, "", *build, PROPORTIONS),
    )


def macro_weights(people: Population) -> Tensor:
    """Weights (B, 192) of `macro_paths`: products of the piecewise linear weights of each phenotype's anchors."""
    gender, age = _two(people.gender), _two(people.age)
    muscle, weight = _three(people.muscle), _three(people.weight)
    # A height or proportion of 0.5 is the base mesh itself and has no target.
    height, proportions = _three(people.height)[:, ::2], _three(people.proportions)[:, ::2]
    build = torch.einsum("bg,ba,bm,bw->bgamw", gender, age, muscle, weight)
    return torch.cat(
        [
            build.flatten(1),
            torch.einsum("br,bg,ba->brga", people.race, gender, age).flatten(1),
            torch.einsum("bgamw,bh->bgamwh", build, height).flatten(1),
            torch.einsum("bgamw,bp->bgamwp", build, proportions).flatten(1),
        ],
        1,
    )


def _two(value: Tensor) -> Tensor:
    return torch.stack([1 - value, value], 1)


def _three(value: Tensor) -> Tensor:
    """Weights of the anchors 0, 1/2 and 1."""
    low, high = (1 - 2 * value).clamp_min(0), (2 * value - 1).clamp_min(0)
    return torch.stack([low, 1 - low - high, high], 1)
