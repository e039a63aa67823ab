"""Per-person random numbers: from the CPU, and from (seed, person, stream) alone, whatever the batch or the map size.

Legend of shape suffixes: B people.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def draw_normals(seed: int, index_B: Tensor, stream: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers of each person, (B, *shape) float32 on the device of `index_B`.

    Args:
        seed: of the population, non-negative. index_B: (B,) int64 people. stream: which of a person's lists.
    """
    numbers = np.empty((len(index_B), *shape), np.float32)
    for i, row in zip(index_B.tolist(), numbers, strict=True):
        bits = np.random.Philox(np.random.SeedSequence([seed, stream, i]))
        np.random.Generator(bits).standard_normal(dtype=np.float32, out=row)
    return torch.from_numpy(numbers).to(index_B.device)


class Draws:
    """A person's scalar draws, taken one after another: the order of the calls is part of who people are.

    Args:
        seed: of the population. index_B: (B,) int64, on the CPU. stream: as of `draw_normals`.
    """

    COUNT = 64

    def __init__(self, seed: int, index_B: Tensor, stream: int) -> None:
        self._columns = iter(draw_normals(seed, index_B, stream, (self.COUNT,)).unbind(1))

    def normal(self, mean: float | Tensor = 0.0, std: float | Tensor = 1.0) -> Tensor:
        """(B,) normal."""
        return next(self._columns) * std + mean

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """(B,) uniform in [low, high]."""
        return torch.special.ndtr(next(self._columns)) * (high - low) + low

    def chance(self, probability: float | Tensor) -> Tensor:
        """(B,) 1 with the given probability, else 0."""
        return (self.uniform() < probability).float()
