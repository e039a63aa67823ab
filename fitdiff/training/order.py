"""The order in which samples are seen: a pure function of seed and step, so that a run continues exactly, anywhere.

No process keeps a place in a stream: whoever knows the step knows the global batch, and takes its own rows of it. So a
run goes on after any stop, on any number of processes, without a state to save.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import torch
from torch import Tensor


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of all random numbers of a step on a process."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()[:7], "little")


def global_batch(
    n_samples: int, batch_size: int, seed: int, step: int, shard_size: int = 1, window: int | None = None
) -> list[int]:
    """Sample indices of a step, of all processes together.

    Each epoch visits every sample once; batches run on across its end. The last two epochs' orders are kept in memory,
    8 bytes a sample, and drawn anew for no step but the first of an epoch.

    Args:
        n_samples: size of the training set. batch_size: global. step: from 0.
        shard_size, window: samples a file, and how many files are in use at once, None for all of them. Files take
            turns in random order, a new one every `shard_size` samples; the samples of a file are spread over those of
            the `window` files that come after it.
    """
    first = step * batch_size
    if window is None or window * shard_size >= n_samples:
        shard_size, window = 1, n_samples  # one entry of the cache for all ways to say it
    indices: list[int] = []
    while len(indices) < batch_size:
        epoch, offset = divmod(first + len(indices), n_samples)
        order = _epoch(n_samples, seed, epoch, shard_size, window)
        indices += order[offset : offset + batch_size - len(indices)].tolist()
    return indices


@lru_cache(maxsize=2)
def _epoch(n_samples: int, seed: int, epoch: int, shard_size: int, window: int) -> Tensor:
    """(n,) int64 order of an epoch."""
    generator = torch.Generator().manual_seed(step_seed(seed, epoch, -1))
    if window >= n_samples:
        return torch.randperm(n_samples, generator=generator)
    turn = torch.randperm(-(-n_samples // shard_size), generator=generator).to(torch.float64)
    place = torch.rand(n_samples, generator=generator, dtype=torch.float64) * window
    place += turn.repeat_interleave(shard_size)[:n_samples]  # the last file may be short
    return place.argsort(stable=True)
