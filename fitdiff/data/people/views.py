"""Which portrait of which person: the place that the random numbers of a view come from.

Legend of shape suffixes: N views, ordered person by person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fitdiff.randomness import Draws, draw_normals

MOST_VIEWS = 1000
FIRST_STREAM = 1_000_000
"""Streams below belong to the person. Each part of a portrait has `MOST_VIEWS` streams, one a view."""

PARTS = (
    "camera",
    "light",
    "expression",
    "muscles",
    "background",
    "field",
    "bust",
    "threads",
    "occluders",
    "strands",
    "glasses",
    "hand",
    "cover",
    "optics",
    "sensor",
    "grain",
    "jpeg",
)
"""What of a portrait has random numbers of its own; what is appended changes none of the others."""


@dataclass(frozen=True)
class Views:
    """Portraits to be drawn.

    Attributes:
        seed: of the population. index: (N,) int64 person. view: (N,) int64 in [0, MOST_VIEWS).
    """

    seed: int
    index: Tensor
    view: Tensor

    @classmethod
    def of(cls, seed: int, indices: Sequence[int], views: int, device: torch.device | str = "cpu") -> Views:
        """The first `views` portraits of each person."""
        index = torch.as_tensor(list(indices), dtype=torch.int64, device=device)
        return cls(seed, index.repeat_interleave(views), torch.arange(views, device=device).repeat(len(index)))

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: Tensor) -> Views:
        return Views(self.seed, self.index[rows], self.view[rows])

    @property
    def of_person(self) -> Views:
        """The same people, each with one stream for all views: for what a person wears in every portrait."""
        return Views(self.seed, self.index, torch.zeros_like(self.view))

    def draws(self, part: str) -> Draws:
        """Scalar draws of each view, (N,), for one of `PARTS`."""
        return Draws(self.seed, self.index, self._stream(part))

    def normals(self, part: str, shape: tuple[int, ...]) -> Tensor:
        """(N, *shape) standard normal numbers; the first ones are those of `draws`."""
        return draw_normals(self.seed, self.index, self._stream(part), shape)

    def _stream(self, part: str) -> Tensor:
        return FIRST_STREAM + PARTS.index(part) * MOST_VIEWS + self.view
