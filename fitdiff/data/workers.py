"""Work in parallel processes; and shards of a data set made by them, each written atomically, with progress."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from fitdiff.storage import write_tensors
from fitdiff.training.interruption import leave_signals_to_parent

Job = tuple[Path, Sequence[int]]
"""A shard's file and the samples in it."""

_maker: Any = None  # one a worker process


def cores() -> int:
    """CPU cores that this process may use."""
    # Where the system does not say which are ours (macOS, Windows), all are.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def worker_processes(n: int, start: Callable[..., None], *arguments: Any) -> Iterator[ProcessPoolExecutor]:
    """`n` processes of one thread each that first call `start(*arguments)`.

    Whatever ends the block early, signals included, cancels the jobs that wait; those under way are finished.
    """
    context = multiprocessing.get_context("spawn")  # fork would copy torch's thread pools in an undefined state
    pool = ProcessPoolExecutor(n, context, initializer=_start, initargs=(start, *arguments))
    try:
        yield pool
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


def make_shards(maker: Any, jobs: Sequence[Job], workers: int, title: str) -> list[str]:
    """Write `maker.make(indices)` of each job to its file, in as many processes.

    Args:
        maker: anything picklable with `make`; with one worker, or one job, it runs in this process.
        title: of the progress line.

    Returns:
        Messages of the jobs that ended with a `ValueError`, which leave no file; the others are done all the same.
        Any other exception ends the work.
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
        with worker_processes(min(workers, len(jobs)), _keep, maker) as pool:
            for future in as_completed([pool.submit(_make_shard, None, path, indices) for path, indices in jobs]):
                finish(future.result)
    return faults


def _start(start: Callable[..., None], *arguments: Any) -> None:
    leave_signals_to_parent()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)  # one process a core is faster than one thread pool for all, and deterministic
    start(*arguments)


def _end_with_parent() -> None:
    """A parent that is killed can tell nobody."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _keep(maker: Any) -> None:
    global _maker
    _maker = maker


def _make_shard(maker: Any, path: Path, indices: Sequence[int]) -> int:
    write_tensors(path, (maker or _maker).make(indices))
    return len(indices)
