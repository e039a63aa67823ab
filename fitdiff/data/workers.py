"""Make the shards of a data set in parallel, each written atomically, with progress."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from fitdiff.storage import write_tensors

Job = tuple[Path, Sequence[int]]
"""A shard's file and the samples in it."""

_maker: Any = None  # one a worker process


def make_shards(maker: Any, jobs: Sequence[Job], workers: int, title: str) -> list[str]:
    """Write `maker.make(indices)` of each job to its file, in as many processes.

    Args:
        maker: anything picklable with `make`; with one worker, or one job, it runs in this process.
        title: of the progress line.

    Returns:
        Messages of the jobs that ended with a `ValueError`, which leave no file; the others are done all the same.
    """
    faults: list[str] = []
    with Progress(*Progress.get_default_columns(), "{task.fields[rate]}") as progress:
        task = progress.add_task(title, total=sum(len(indices) for _, indices in jobs), rate="")

        def finish(result: Callable[[], int]) -> None:
            try:
                progress.advance(task, result())
            except ValueError as error:
                faults.append(str(error))
            speed = progress.tasks[task].speed
            progress.update(task, rate=f"{speed:.1f} people/s" if speed else "")

        if min(workers, len(jobs)) <= 1:
            for path, indices in jobs:
                finish(partial(_make_shard, maker, path, indices))
            return faults
        context = multiprocessing.get_context("spawn")  # fork would copy torch's thread pools in an undefined state
        with ProcessPoolExecutor(min(workers, len(jobs)), context, initializer=_start, initargs=(maker,)) as pool:
            for future in as_completed([pool.submit(_make_shard, None, path, indices) for path, indices in jobs]):
                finish(future.result)
    return faults


def _start(maker: Any) -> None:
    global _maker
    torch.set_num_threads(1)  # one process a core is faster than one thread pool for all, and deterministic
    _maker = maker


def _make_shard(maker: Any, path: Path, indices: Sequence[int]) -> int:
    write_tensors(path, (maker or _maker).make(indices))
    return len(indices)
