"""Stage 2: the map latents of a data set, on disk beside what else the diffusion stage needs of every sample.

Shape codes and embeddings are stored with the latents, so that a step that renders nothing never touches the people's
maps and portraits. Nothing here holds the whole set: 10 million people are 200 GB at the paper's size.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from fitdiff.data.shards import MemorySamples, Samples, ShardedDataset, dequantise, shard_path
from fitdiff.model import FitDiff
from fitdiff.storage import write_tensors

VERSION = 1
"""Raise when the files change: the folder is keyed by it."""

KEYS = ("latent", "identity", "embedding")
PEOPLE_A_SHARD = 256
"""At least; whole files of the people make up a shard of latents, so that no two jobs read the same file."""

TEXELS_AT_ONCE = 1 << 22
STATISTICS_PEOPLE = 100_000
"""The first so many give mean and deviation: the error of a mean is then 0.3% of a deviation."""


def latent_shards(data: ShardedDataset) -> tuple[int, range]:
    """(samples a shard, numbers of the shards) of the latents of a data set."""
    size = -(-PEOPLE_A_SHARD // data.shard_size) * data.shard_size
    return size, range(-(-len(data) // size))


def write_latents(model: FitDiff, data: ShardedDataset, folder: Path, process: int = 0, processes: int = 1) -> None:
    """Write the shards of this process that are missing; each appears whole or not at all.

    Args:
        folder: of this split. process, processes: which share; the files do not depend on how many there are.
    """
    size, numbers = latent_shards(data)
    for number in numbers[process::processes]:
        path = shard_path(folder, number)
        if not path.exists():
            people = range(number * size, min((number + 1) * size, len(data)))
            rest = data.gather(people, ("identity", "embedding"))
            write_tensors(path, {"latent": encode_maps(model, data, people), **rest})


@torch.inference_mode()
def encode_maps(model: FitDiff, data: Samples, people: range | None = None) -> Tensor:
    """(n, C, h, w) map latents of a range of people, all by default, on the CPU."""
    people = range(len(data)) if people is None else people
    batch = min(64, max(1, TEXELS_AT_ONCE // int(model.config["resolution"]) ** 2))
    chunks = (people[i : i + batch] for i in range(0, len(people), batch))
    maps = (dequantise(data.gather(chunk, ("maps",))["maps"].to(model.device)) for chunk in chunks)
    return torch.cat([model.autoencoder.encode(m).cpu() for m in maps])


def open_latents(data: ShardedDataset, folder: Path, memory: float) -> Samples:
    """The latents that `write_latents` wrote: in memory if they are not more than `memory` bytes, else on disk.

    Raises:
        FileNotFoundError: a shard is missing.
    """
    size, _ = latent_shards(data)
    stored = ShardedDataset(folder, len(data), size)
    first = stored.gather([0], KEYS) if len(stored) else {}
    fits = len(stored) * sum(value.nbytes for value in first.values()) <= memory
    return MemorySamples({key: stored.load(key) for key in KEYS}) if first and fits else stored


def statistics(samples: Samples, key: str, limit: int = STATISTICS_PEOPLE) -> tuple[Tensor, Tensor]:
    """Mean and deviation (of n - 1) of one of `KEYS` over the first `limit` samples, in one pass, float64 inside.

    Returns:
        Two float64 tensors of the shape of a sample; embeddings are counted portrait by portrait.
    """
    n, total, squares = 0, 0.0, 0.0
    for rows in _chunks(samples, key, limit):
        n, total, squares = n + len(rows), total + rows.sum(0), squares + rows.square().sum(0)
    mean = total / n
    variance = (squares / n - mean.square()).clamp_min(0) * n / max(1, n - 1)
    return mean, variance.sqrt()


def _chunks(samples: Samples, key: str, limit: int, size: int = 1024) -> Iterator[Tensor]:
    n = min(limit, len(samples))
    for start in range(0, n, size):
        rows = samples.gather(range(start, min(start + size, n)), (key,))[key].double()
        yield rows.flatten(0, 1) if key == "embedding" else rows
