"""Synthetic people (`data=people`): generated once in parallel, cached on disk, extended when more are asked for."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.progress import Progress

from fitdiff.data.shards import ShardedDataset, shard_path
from fitdiff.registry import register
from fitdiff.storage import cache_folder, write_tensors

if TYPE_CHECKING:
    from fitdiff.data.people.maker import PeopleMaker

VERSION = 2
"""Raise when the same parameters make other people: the cache is keyed by it."""

HELD_OUT_OFFSET = 1_000_000_000
"""Index of the first held-out person: far from any training set, whatever its size."""


@register("data", "people")
class People:
    """People with portraits, from the embedded face model and procedural skin.

    Run-time objects: `shape_model` (an `AnnyFace`: phenotypes are its own), `identity`, `renderer`, `resolution`
    (side R of the maps) and `fingerprint`, which must change when any of those does (it keys the cache).

    Attributes:
        train, held_out: `ShardedDataset`s with the tensors of `PeopleMaker.make`; available after `prepare()`.
    """

    def __init__(
        self,
        shape_model: Any,
        identity: Any,
        renderer: Any,
        resolution: int,
        fingerprint: str,
        *,
        n: int = 100_000,
        held_out: int = 1_000,
        views: int = 2,
        portrait_size: int = 224,
        seed: int = 0,
        start: int = 0,
        shard_size: int = 50,
        workers: int | None = None,
        cache: str | None = None,
    ) -> None:
        """`start`: index of the first training person. `workers`: processes; null is one a core. `cache`: folder; null
        is the user cache."""
        from fitdiff.config import config_hash
        from fitdiff.data.people.maker import PeopleMaker

        self.n, self.n_held_out, self.start, self.shard_size = n, held_out, start, shard_size
        self.workers = workers or len(os.sched_getaffinity(0))
        key = config_hash(VERSION, fingerprint, resolution, views, portrait_size, seed, start, shard_size)
        self.folder = Path(cache or cache_folder()) / f"people-{resolution}px-{key}"
        self.maker = PeopleMaker(shape_model, identity, renderer, resolution, portrait_size, views, seed)

    def prepare(self) -> None:
        """Generate the shards that are missing (resumable at any moment: each shard is written atomically)."""
        jobs = self._missing("train", self.n, self.start) + self._missing("held_out", self.n_held_out, HELD_OUT_OFFSET)
        if jobs:
            self._generate(jobs)

    @property
    def train(self) -> ShardedDataset:
        """The training people."""
        return ShardedDataset(self.folder / "train", self.n, self.shard_size)

    @property
    def held_out(self) -> ShardedDataset:
        """People that no model is trained on."""
        return ShardedDataset(self.folder / "held_out", self.n_held_out, self.shard_size)

    def _missing(self, split: str, n: int, offset: int) -> list[tuple[Path, range]]:
        """Jobs (file, indices) of the shards that are not there. Shards are always whole."""
        starts = range(0, n, self.shard_size)
        paths = [(shard_path(self.folder / split, start // self.shard_size), start + offset) for start in starts]
        return [(path, range(i, i + self.shard_size)) for path, i in paths if not path.exists()]

    def _generate(self, jobs: list[tuple[Path, range]]) -> None:
        context = multiprocessing.get_context("spawn")  # fork would copy torch's thread pools in an undefined state
        with (
            Progress(*Progress.get_default_columns(), "{task.fields[rate]}") as progress,
            ProcessPoolExecutor(
                min(self.workers, len(jobs)), context, initializer=_start_worker, initargs=(self.maker,)
            ) as pool,
        ):
            task = progress.add_task("making people", total=len(jobs) * self.shard_size, rate="")
            for future in as_completed([pool.submit(_make_shard, path, indices) for path, indices in jobs]):
                progress.advance(task, future.result())
                speed = progress.tasks[task].speed
                progress.update(task, rate=f"{speed:.1f} people/s" if speed else "")


_maker: PeopleMaker | None = None  # one a worker process


def _start_worker(maker: PeopleMaker) -> None:
    global _maker
    torch.set_num_threads(1)  # one process a core is faster than one thread pool for all, and deterministic
    _maker = maker


def _make_shard(path: Path, indices: range) -> int:
    if _maker is None:
        raise RuntimeError("worker was not started")
    write_tensors(path, _maker.make(indices))
    return len(indices)
