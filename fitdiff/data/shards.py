"""A data set as equal shards of safetensors, on a local disk or behind a URL: random access, and nothing is unpickled.

Any sample can be read at any time, so the order of training needs no state (see `training.order`), and only the
tensors that are asked for are read.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from fitdiff.data.mirror import Mirror
from fitdiff.data.shard_file import ShardFile
from fitdiff.storage import sweep, write_json
from fitdiff.types import FaceMaps

MANIFEST = "manifest.json"
SPLITS = ("train", "held_out")


def shard_path(folder: Path, number: int) -> Path:
    """File of a shard."""
    return folder / f"shard-{number:06d}.safetensors"


def missing_shards(folder: Path, numbers: Iterable[int]) -> list[Path]:
    """Files that are not in the folder, found with one listing: there may be 200,000."""
    there = set(os.listdir(folder)) if folder.exists() else set()
    return [path for number in numbers if (path := shard_path(folder, number)).name not in there]


def quantise(maps: FaceMaps) -> Tensor:
    """FaceMaps -> (B, 9, R, R) uint8 of the map tensor: what is stored."""
    return ((maps.to_tensor() * 0.5 + 0.5) * 255).round().clamp(0, 255).to(torch.uint8)


def dequantise(stored: Tensor) -> Tensor:
    """(…, 9, R, R) uint8 -> float32 map tensor in [-1, 1]."""
    return stored.float() / 127.5 - 1


class Samples(Protocol):
    """Random access to samples, wherever they are."""

    def __len__(self) -> int:
        """How many there are."""

    def gather(self, indices: Iterable[int], keys: Sequence[str]) -> dict[str, Tensor]:
        """Samples `indices` of the tensors `keys`, stacked in the order of `indices`."""

    def load(self, key: str) -> Tensor:
        """One tensor of all samples."""


class MemorySamples:
    """`Samples` in memory: tensors by key, a row a sample."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = dict(tensors)

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def gather(self, indices: Iterable[int], keys: Sequence[str]) -> dict[str, Tensor]:
        """See `Samples`."""
        rows = torch.as_tensor(list(indices), dtype=torch.int64)
        return {key: self.tensors[key][rows] for key in keys}

    def load(self, key: str) -> Tensor:
        """See `Samples`."""
        return self.tensors[key]


class ShardedDataset:
    """The first `n` samples of a folder of shards with `shard_size` samples each.

    Args:
        folder: holds `shard-000000.safetensors`, ...
        n: number of samples; the last shard may hold more.
        open_shards: how many files stay open (the system's page cache does the caching).
        mirror: brings files that are not in `folder`, which must lie in the mirror's folder; None: all are there.
        window: files that training uses at once (see `order.global_batch`); None for all.

    Raises:
        FileNotFoundError: a shard is missing.
    """

    def __init__(
        self,
        folder: Path,
        n: int,
        shard_size: int,
        open_shards: int = 64,
        mirror: Mirror | None = None,
        window: int | None = None,
    ) -> None:
        self.folder, self.n, self.shard_size, self.open_shards = folder, n, shard_size, open_shards
        self.mirror, self.window = mirror, window
        self._open: OrderedDict[int, ShardFile] = OrderedDict()
        missing = [] if mirror else missing_shards(folder, self.numbers)
        if missing:
            others = f", as are {len(missing) - 1} others" if len(missing) > 1 else ""
            raise FileNotFoundError(
                f"{missing[0]} is missing{others}: run again what makes it, prepare.py (data) or train.py (latents)"
            )

    @property
    def numbers(self) -> range:
        """Numbers of the shards."""
        return range(-(-self.n // self.shard_size))

    def __len__(self) -> int:
        return self.n

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}  # open files do not travel to worker processes

    def gather(self, indices: Iterable[int], keys: Sequence[str]) -> dict[str, Tensor]:
        """See `Samples`."""
        places = [divmod(int(i), self.shard_size) for i in indices]
        gathered: dict[str, Tensor] = {}
        for place, (number, row) in enumerate(places):
            shard = self.shard(number)
            for key in keys:
                out = gathered.get(key)
                if out is None:
                    out = gathered[key] = shard.empty(key, len(places))
                shard.read_rows(key, row, out[place : place + 1])
        return gathered

    def load(self, key: str) -> Tensor:
        """See `Samples`."""
        out = self.shard(0).empty(key, self.n)
        for number in self.numbers:
            first = number * self.shard_size
            self.shard(number).read_rows(key, 0, out[first : first + self.shard_size])
        return out

    def shard(self, number: int) -> ShardFile:
        """Open file of a shard."""
        file = self._open.pop(number, None)
        if file is None:
            path = shard_path(self.folder, number)
            file = self.mirror.open(f"{self.folder.name}/{path.name}") if self.mirror else ShardFile(path)
        self._open[number] = file
        if len(self._open) > self.open_shards:
            self._open.popitem(last=False)
        return file


def write_manifest(folder: Path, shard_size: int, resolution: int, fingerprint: str) -> None:
    """Say in `folder/manifest.json` what a finished data set is, so that it can be copied anywhere and read by URL.

    A set is the shards from number 0 up to the first gap, even if others lie beyond it. What killed jobs left is swept.

    Args:
        folder: holds `train/` and `held_out/`. resolution: side R of the maps. fingerprint: of the face model, the
            identity network and the renderer that its samples were made with.
    """
    manifest: dict[str, Any] = {"name": folder.name, "resolution": resolution, "fingerprint": fingerprint}
    manifest["shard_size"] = shard_size
    for split in SPLITS:
        sweep(folder / split)
        sizes = list(_sizes(folder / split))
        manifest[split] = {"shards": len(sizes), "bytes": sum(sizes)}
    path = folder / MANIFEST
    if not path.exists() or json.loads(path.read_text()) != manifest:
        write_json(path, manifest)


def _sizes(folder: Path) -> Iterator[int]:
    """Bytes of the shards 0, 1, ... up to the first that is not there."""
    with suppress(FileNotFoundError):
        for number in count():
            yield shard_path(folder, number).stat().st_size
