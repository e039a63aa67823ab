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
        shard_size, window: samples a file, and files whose samples are mixed with each other: files come in random
            order, so many at once are in use. None, or a window over all files, is a permutation of all samples.
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
    shards = torch.randperm(-(-n_samples // shard_size), generator=generator)
    order = torch.empty(n_samples, dtype=torch.int64)
    done = 0
    for chosen in shards.split(window):
        samples = (chosen[:, None] * shard_size + torch.arange(shard_size)).flatten()
        samples = samples[samples < n_samples]  # the last shard may be short
        order[done : done + len(samples)] = samples[torch.randperm(len(samples), generator=generator)]
        done += len(samples)
    return order
