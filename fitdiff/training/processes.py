"""What processes that train together must agree on. Alone, a process agrees with itself and nothing is sent."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar("T")


def together() -> bool:
    """True in a process group."""
    return dist.is_available() and dist.is_initialized()


def is_main() -> bool:
    """True in the one process that writes."""
    return not together() or dist.get_rank() == 0


def on_main(work: Callable[[], T]) -> T:
    """Run `work` in the main process; every process returns what it returned, or raises what it raised.

    Collective: every process must call it. The result travels pickled, so it must be small.
    """
    if not together():
        return work()
    outcome: list[Any] = [None, None]
    error = None
    if is_main():
        try:
            outcome[0] = work()
        except Exception as caught:  # whatever it is, every process raises it
            error, outcome[1] = caught, _portable(caught)
    dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1] if error is None else error
    return outcome[0]


def on_all(work: Callable[[], T]) -> T:
    """Run `work` in every process; if it raises in one, it raises in all of them, so that they never part.

    Where it went well, the error is that of the first process where it did not, which its message names.
    """
    if not together():
        return work()
    result, error = None, None
    try:
        result = work()
    except Exception as caught:  # raised again below, once all know of it
        error = caught
    errors: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(errors, None if error is None else _portable(error))
    if error is not None:
        raise error
    for process, other in enumerate(errors):
        if other is not None:
            raise _retold(other, f"process {process}: ")
    return result


def _portable(error: Exception) -> Exception:
    """The error, if it can travel; else one that says the same."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class makes of it
        return RuntimeError(f"{type(error).__name__}: {error}")


def _retold(error: Exception, prefix: str) -> Exception:
    """The error with a longer message; of another class, if its own is not made from a message."""
    try:
        return type(error)(f"{prefix}{error}")
    except TypeError:
        return RuntimeError(f"{prefix}{type(error).__name__}: {error}")
