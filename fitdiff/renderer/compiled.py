"""Loops over pixels, compiled for the CPU by numba, one image at a time, images side by side on the cores.

A kernel takes the number of an image first and touches that image's part of the outputs only: no two threads ever write
one place, and sums run in one order, so that results do not depend on the number of threads.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

_plain = False


@contextlib.contextmanager
def plain_torch() -> Iterator[None]:
    """Within it, no compiled loop serves: for comparisons. It holds for the whole process, not for one thread."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


def serves(*tensors: Tensor) -> bool:
    """Are these tensors what compiled loops take: float32 on the CPU?"""
    return not _plain and all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)


def arrays(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    """Contiguous arrays on the tensors' memory, or copies of those that are not contiguous; outside of autograd."""
    return tuple(tensor.detach().contiguous().numpy() for tensor in tensors)


def compiled(signature: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator: compile a kernel at its first call, or read it from numba's cache on disk.

    One explicit signature keeps the cache safe between processes: all of them write the same code under the same name.
    The code itself has one thread, since numba's thread pools do not survive the fork of a data loader's workers.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.cache
        def kernel() -> Callable[..., None]:
            import numba

            return numba.njit(signature, nogil=True, cache=True)(function)

        @functools.wraps(function)
        def call(*arguments: Any) -> None:
            kernel()(*arguments)

        call.kernel = kernel
        return call

    return decorate


def for_each_image(kernel: Callable[..., None], n_images: int, *arguments: Any) -> None:
    """Call `kernel(image, *arguments)` for every image of a batch, on as many threads as torch uses."""
    n_threads = min(torch.get_num_threads(), n_images)
    if n_threads < 2:
        for image in range(n_images):
            kernel(image, *arguments)
        return
    # Threads of a moment: a pool that outlives the call would not survive a fork.
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(lambda image: kernel(image, *arguments), range(n_images)))
