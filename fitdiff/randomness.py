"""Random numbers without a state: number k of (seed, stream, person) is a pure function of these four integers.

The bits are Philox-4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011): ten
rounds of two 32 x 32 -> 64-bit products turn the counter (block, stream, person low, person high) under the key (seed
low, seed high) into four words. Box and Muller (1958) make two normal numbers of two words. So numbers are drawn where
they are needed, for all people at once, by compiled loops on the CPU and by vectorised torch elsewhere: the same bits,
and the same numbers up to the rounding of logarithm and sine.

Legend of shape suffixes: B people.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
WORD = 0xFFFFFFFF


def draw_normals(seed: int, index_B: Tensor, stream: int | Tensor, shape: tuple[int, ...], first: int = 0) -> Tensor:
    """Standard normal numbers of each person, (B, *shape) float32 on the device of `index_B`.

    Args:
        seed: of the population, in [0, 2^64). index_B: (B,) int64 people, non-negative.
        stream: which of a person's lists, in [0, 2^32); one for all, or (B,) int64.
        first: where in that list to begin, a multiple of 4. A longer draw begins with the numbers of a shorter one.
    """
    count = math.prod(shape)
    streams = torch.as_tensor(stream, device=index_B.device).expand(index_B.shape)
    blocks = range(first // 4, (first + count + 3) // 4)
    normals = _normals_compiled if index_B.device.type == "cpu" else _normals_torch
    return normals(seed, index_B, streams, blocks)[:, :count].unflatten(1, shape)


class Draws:
    """A person's scalar draws, taken one after another: the order of the calls is part of who people are.

    Args:
        seed, index_B, stream: as of `draw_normals`. What is drawn lies on the device of `index_B`.
    """

    AT_ONCE = 64

    def __init__(self, seed: int, index_B: Tensor, stream: int | Tensor) -> None:
        self._columns = self._draw(seed, index_B, stream)

    def _draw(self, seed: int, index_B: Tensor, stream: int | Tensor) -> Iterator[Tensor]:
        first = 0
        while True:
            yield from draw_normals(seed, index_B, stream, (self.AT_ONCE,), first).unbind(1)
            first += self.AT_ONCE

    def normal(self, mean: float | Tensor = 0.0, std: float | Tensor = 1.0) -> Tensor:
        """(B,) normal."""
        return next(self._columns) * std + mean

    def uniform(self, low: float | Tensor = 0.0, high: float | Tensor = 1.0) -> Tensor:
        """(B,) uniform in [low, high]."""
        return torch.special.ndtr(next(self._columns)) * (high - low) + low

    def chance(self, probability: float | Tensor) -> Tensor:
        """(B,) 1 with the given probability, else 0."""
        return (self.uniform() < probability).float()


def philox(counter: tuple[Tensor, ...], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Philox-4x32-10 of four int64 tensors that hold 32-bit words and broadcast; on any device."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        # int64 products wrap modulo 2^64, so their bits are those of the unsigned ones.
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32 & WORD) ^ c1 ^ k0, p1 & WORD, (p0 >> 32 & WORD) ^ c3 ^ k1, p0 & WORD
        k0, k1 = k0 + KEY_STEPS[0] & WORD, k1 + KEY_STEPS[1] & WORD
    return c0, c1, c2, c3


def _normals_torch(seed: int, index_B: Tensor, stream_B: Tensor, blocks: range) -> Tensor:
    """(B, 4 * blocks) normal numbers."""
    block = torch.arange(blocks.start, blocks.stop, device=index_B.device)
    person, stream = index_B[:, None], stream_B[:, None]
    words = philox((block, stream, person & WORD, person >> 32), _key(seed))
    radius = [(-2 * ((word.float() + 1) * 2.0**-32).log()).sqrt() for word in words[::2]]
    angle = [word.float() * (2 * math.pi * 2.0**-32) for word in words[1::2]]
    pairs = [r * turn for r, a in zip(radius, angle, strict=True) for turn in (a.cos(), a.sin())]
    return torch.stack(pairs, -1).flatten(1)


def _normals_compiled(seed: int, index_B: Tensor, stream_B: Tensor, blocks: range) -> Tensor:
    """The same by compiled loops on the CPU, four times as fast there."""
    numbers = np.empty((len(index_B), 4 * len(blocks)), np.float32)
    key, person, stream = (np.array(x, np.uint64) for x in (_key(seed), index_B.numpy(), stream_B.numpy()))
    _compiled_kernel()(key, person, stream, np.uint64(blocks.start), numbers)
    return torch.from_numpy(numbers)


def _key(seed: int) -> tuple[int, int]:
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"seed is {seed}: give an integer in [0, 2^64)")
    return seed & WORD, seed >> 32


@functools.cache
def _compiled_kernel() -> Callable[..., None]:
    """The loops, compiled once per machine (see `renderer.visibility` for why the signature is explicit)."""
    import numba

    signature = "void(uint64[::1], uint64[::1], uint64[::1], uint64, float32[:,::1])"
    return numba.njit(signature, nogil=True, cache=True)(_normals_kernel)


def _normals_kernel(key, person, stream, first, numbers):
    word, half = np.uint64(WORD), np.uint64(32)
    m0, m1 = np.uint64(MULTIPLIERS[0]), np.uint64(MULTIPLIERS[1])
    step0, step1 = np.uint64(KEY_STEPS[0]), np.uint64(KEY_STEPS[1])
    unit, turn = np.float32(2.0**-32), np.float32(2 * math.pi * 2.0**-32)
    for row in range(len(person)):
        for place in range(numbers.shape[1] // 4):
            c0, c1 = first + np.uint64(place), stream[row]
            c2, c3 = person[row] & word, person[row] >> half
            k0, k1 = key
            for _ in range(ROUNDS):
                p0, p1 = c0 * m0, c2 * m1
                c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ k0, p1 & word, (p0 >> half) ^ c3 ^ k1, p0 & word
                k0, k1 = (k0 + step0) & word, (k1 + step1) & word
            for pair, (u, v) in enumerate(((c0, c1), (c2, c3))):
                radius = np.sqrt(np.float32(-2) * np.log((np.float32(u) + np.float32(1)) * unit))
                angle = np.float32(v) * turn
                numbers[row, 4 * place + 2 * pair] = radius * np.cos(angle)
                numbers[row, 4 * place + 2 * pair + 1] = radius * np.sin(angle)
