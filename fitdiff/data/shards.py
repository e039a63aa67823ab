"""A data set on disk as equal shards of safetensors: read lazily, extended without rewriting."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from fitdiff.types import FaceMaps


def shard_path(folder: Path, number: int) -> Path:
    """File of a shard."""
    return folder / f"shard-{number:06d}.safetensors"


def quantise(maps: FaceMaps) -> Tensor:
    """FaceMaps -> (B, 9, R, R) uint8 of the map tensor: what is stored."""
    return ((maps.to_tensor() * 0.5 + 0.5) * 255).round().clamp(0, 255).to(torch.uint8)


def dequantise(stored: Tensor) -> Tensor:
    """(…, 9, R, R) uint8 -> float32 map tensor in [-1, 1]."""
    return stored.float() / 127.5 - 1


class ShardedDataset:
    """The first `n` samples of a folder of shards with `shard_size` samples each.

    Args:
        folder: holds `shard-000000.safetensors`, ...
        n: number of samples; the last shard may hold more.
        open_shards: how many files stay open (each is memory-mapped, so the system's page cache does the caching).

    Raises:
        FileNotFoundError: a shard is missing.
    """

    def __init__(self, folder: Path, n: int, shard_size: int, open_shards: int = 256) -> None:
        self.folder, self.n, self.shard_size, self.open_shards = folder, n, shard_size, open_shards
        self._open: OrderedDict[int, Any] = OrderedDict()
        for number in range(-(-n // shard_size)):
            if not shard_path(folder, number).exists():
                raise FileNotFoundError(f"{shard_path(folder, number)} is missing: run the data generation again")

    def __len__(self) -> int:
        return self.n

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}  # open files do not travel to worker processes

    def gather(self, indices: Iterable[int], keys: Sequence[str]) -> dict[str, Tensor]:
        """Samples `indices` of the tensors `keys`, stacked in the order of `indices`."""
        places = [divmod(int(i), self.shard_size) for i in indices]
        return {key: torch.stack([self._shard(shard).get_slice(key)[row] for shard, row in places]) for key in keys}

    def load(self, key: str) -> Tensor:
        """One tensor of the whole data set."""
        shards = range(-(-self.n // self.shard_size))
        return torch.cat([self._shard(number).get_tensor(key) for number in shards])[: self.n]

    def _shard(self, number: int) -> Any:
        handle = self._open.pop(number, None)
        if handle is None:
            handle = safe_open(shard_path(self.folder, number), "pt")
        self._open[number] = handle
        if len(self._open) > self.open_shards:
            self._open.popitem(last=False)
        return handle
