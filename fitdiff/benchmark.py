"""What all benchmarks share: contenders that take turns, memory at its peak, and what the machine can do at best."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

Tasks = Mapping[str, Callable[[], object]]
"""What to time of one contender, by name."""


def take_turns(
    contenders: Mapping[str, Tasks], repeats: int, device: torch.device, warm_up: bool = True, patience: float = 1e9
) -> dict[str, dict[str, list[float]]]:
    """Seconds of each task of each contender, one call each in turn, so that a busy machine is unfair to none.

    Args:
        repeats: rounds that count. warm_up: begin with a round that does not.
        patience: seconds after which no other round starts; at least one counts.
    """
    times = {name: {task: list[float]() for task in tasks} for name, tasks in contenders.items()}
    start = time.perf_counter()
    for turn in range(repeats + warm_up):
        if turn > warm_up and time.perf_counter() - start > patience:
            break
        for name, tasks in contenders.items():
            for task, function in tasks.items():
                elapsed = seconds(function, device)
                if turn or not warm_up:
                    times[name][task].append(elapsed)
    return times


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """Of one call, until the device has finished."""
    _wait(device)
    start = time.perf_counter()
    function()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second of a large copy, reading and writing both counted (as in STREAM); the fastest of ten."""
    source = torch.zeros(1 << 26, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(seconds(lambda: target.copy_(source), device) for _ in range(10))


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP per second of a large square matrix product (2 n^3 each); the fastest of ten."""
    n = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return 2 * n**3 / min(seconds(lambda: a @ b, device) for _ in range(10))


def peak_memory(function: Callable[[], object], device: torch.device) -> float | None:
    """Bytes by which a call's peak exceeds what was in use before: allocated on CUDA, resident on Linux, else None."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        return torch.cuda.max_memory_allocated(device) - before
    if not Path("/proc/self/clear_refs").exists():
        return None
    ctypes.CDLL(None).malloc_trim(0)  # what the allocator keeps for later would hide the next call's need
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = resident("VmRSS")
    function()
    return resident("VmHWM") - before


def resident(name: str) -> int | None:
    """Bytes of this process by a name in /proc/self/status: VmRSS now, VmHWM at its peak; None without that file."""
    if not Path("/proc/self/status").exists():
        return None
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
