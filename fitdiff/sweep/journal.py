"""Where a sweep's trials are kept: an Optuna storage, or a journal on disk that survives kills and power cuts."""

from __future__ import annotations

import os
from pathlib import Path

import optuna
from filelock import FileLock
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend


def open_storage(folder: Path, url: str | None) -> BaseStorage:
    """The storage of that URL, or without one a journal in the folder."""
    if url:
        return optuna.storages.get_storage(url)
    path, lock = folder / "study.journal", KernelLock(folder / ".journal.lock")
    with lock.lock:
        _cut_half_line(path)
    # Optuna's base class of locks is private: what it takes has `acquire` and `release`.
    return JournalStorage(JournalFileBackend(str(path), lock))  # type: ignore[arg-type]


class KernelLock:
    """A lock for Optuna's journal that the system releases when its holder is killed (Optuna's own stays 30 s)."""

    def __init__(self, path: Path) -> None:
        self.lock = FileLock(path)

    def acquire(self) -> bool:
        """Wait for it."""
        self.lock.acquire()
        return True

    def release(self) -> None:
        """Let the next one in."""
        self.lock.release()


def _cut_half_line(path: Path) -> None:
    """Remove what a power cut left at the end of a journal: the next line would be glued to it."""
    if path.exists() and (text := path.read_bytes()) and not text.endswith(b"\n"):
        os.truncate(path, text.rfind(b"\n") + 1)
