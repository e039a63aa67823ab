"""Signals that ask a run to stop: a scheduler's pre-emption (SIGTERM, SIGUSR1) and Ctrl-C (SIGINT)."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name))
"""Windows has no SIGUSR1."""


class InterruptedRun(BaseException):
    """A run ends early because it was asked to; nothing is lost, and the same command continues it.

    Not an `Exception`, just as `KeyboardInterrupt` is not: nothing on its way that handles errors may swallow it.
    """


class Interruption:
    """Within its context, the first signal raises `InterruptedRun`; where that is deferred, it is noted first.

    A second Ctrl-C raises `KeyboardInterrupt` at once. Other signals after the first change nothing, since schedulers
    and launchers repeat them.

    Attributes:
        requested: name of the signal that came, or None.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._deferred = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        self._previous = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def deferred(self, yes: bool = True) -> Iterator[None]:
        """A signal in this block raises at its end, not inside; with False, in a block inside such a one, it does."""
        before, self._deferred = self._deferred, yes
        try:
            self._raise_if_due()
            yield
        finally:
            self._deferred = before
        self._raise_if_due()

    def _receive(self, number: int, _: FrameType | None) -> None:
        again, self.requested = self.requested, signal.Signals(number).name
        if not again:
            self._raise_if_due()
        elif number == signal.SIGINT:
            raise KeyboardInterrupt

    def _raise_if_due(self) -> None:
        if self.requested and not self._deferred:
            raise InterruptedRun(f"stopped by {self.requested}")


def leave_signals_to_parent(_: int = 0) -> None:
    """Start of a worker process: a scheduler signals every process, but the parent decides when work ends.

    So only the parent's SIGTERM ends it, or anyone's once the parent is gone. Where the sender cannot be known (macOS,
    Windows), SIGTERM stays as it is.
    """
    for number in SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told, args=(os.getppid(),), daemon=True).start()


def _end_when_told(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent == os.getppid():
        pass
    os._exit(0)
