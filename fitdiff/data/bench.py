"""How fast samples are read: `python -m fitdiff.data.bench`. From the page cache, from the disk; plain reads beside."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from fitdiff.command import run_command
from fitdiff.data.shards import Samples, ShardedDataset, shard_path
from fitdiff.storage import write_tensors
from fitdiff.training.order import global_batch

SIZES = {"laptop": (64, 128), "base": (256, 224), "paper": (512, 224)}
"""Side of the maps and of the portraits."""

VIEWS, PEOPLE_A_SHARD = 2, 50
MAPS, PORTRAITS, EMBEDDING = ("maps",), ("image", "landmarks"), ("identity", "embedding")
"""What a step reads of each sample: the autoencoder's; the diffusion model's that renders; and that which does not."""


@dataclass
class Options:
    """What the command line sets."""

    n: int = 1000  # people in the set that is read; give more than fit in memory for honest cold reads
    batch: int = 16  # people a batch
    seconds: float = 3.0  # for each row of the table
    folder: str = ""  # where to write the set; the default is the folder for temporary files


@dataclass(frozen=True)
class Speed:
    """Of reading in one process and thread."""

    samples: float
    megabytes: float


def reading_speed(
    samples: Samples, keys: Sequence[str], batch: int = 16, seconds: float = 3.0, epochs: float = 1e9
) -> Speed:
    """Gather batches in the order of training, for about so many seconds and no more than so many epochs."""
    n = read = size = 0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds and read < epochs * len(samples):
        tensors = samples.gather(global_batch(len(samples), batch, 0, n), keys)
        size += sum(value.nbytes for value in tensors.values())
        n, read = n + 1, read + batch
    elapsed = time.perf_counter() - start
    return Speed(read / elapsed, size / elapsed / 1e6)


def write_stand_in(folder: Path, resolution: int, portrait_size: int, n: int) -> ShardedDataset:
    """A data set of noise with the shapes of synthetic people: for reading, content does not matter."""
    shapes = {"maps": (9, resolution, resolution), "image": (VIEWS, 3, portrait_size, portrait_size)}
    one = {key: torch.randint(256, (PEOPLE_A_SHARD, *shape), dtype=torch.uint8) for key, shape in shapes.items()}
    one |= {
        "identity": torch.zeros(PEOPLE_A_SHARD, 158),
        "embedding": torch.zeros(PEOPLE_A_SHARD, VIEWS, 512),
        "landmarks": torch.zeros(PEOPLE_A_SHARD, VIEWS, 68, 2),
    }
    for number in range(-(-n // PEOPLE_A_SHARD)):
        write_tensors(shard_path(folder, number), one)
    return ShardedDataset(folder, n, PEOPLE_A_SHARD)


def forget(folder: Path) -> None:
    """Drop a folder's files from the page cache; macOS takes no such advice, so nothing is cold there."""
    for path in folder.iterdir() if hasattr(os, "posix_fadvise") else ():
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def plain_speed(folder: Path) -> float:
    """MB/s of reading the files one after another, whole: what the disk or the page cache gives."""
    start, size = time.perf_counter(), 0
    buffer = bytearray(1 << 24)
    for path in sorted(folder.iterdir()):
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                size += count
    return size / (time.perf_counter() - start) / 1e6


def main() -> None:
    """Measure every size."""
    run_command(_bench, Options, __doc__)


def _bench(options: Options, console: Console) -> None:
    table = Table("people", "read", "samples/s cached", "MB/s", "samples/s cold", "MB/s", "plain MB/s cached", "cold")
    for name, (resolution, portrait_size) in SIZES.items():
        with tempfile.TemporaryDirectory(dir=options.folder or None) as place:
            folder = Path(place)
            write_stand_in(folder, resolution, portrait_size, options.n)
            for keys in (MAPS, PORTRAITS, EMBEDDING):
                cold = _after(forget, folder, options, keys, 1)  # what is read again comes from the page cache
                warm = _after(plain_speed, folder, options, keys, 1e9)
                row = [f"{speed:,.0f}" for speed in (warm.samples, warm.megabytes, cold.samples, cold.megabytes)]
                forget(folder)
                plain = [f"{plain_speed(folder):,.0f}" for _ in range(2)][::-1]
                table.add_row(name, " ".join(keys), *row, *plain)
    console.print(table)


def _after(
    prepare: Callable[[Path], object], folder: Path, options: Options, keys: Sequence[str], epochs: float
) -> Speed:
    prepare(folder)
    # No more files open than in a set of thousands of files, where nearly every row is in one that is not.
    data = ShardedDataset(folder, options.n, PEOPLE_A_SHARD, open_shards=1)
    return reading_speed(data, keys, options.batch, options.seconds, epochs)


if __name__ == "__main__":
    main()
