"""What a stage logs: `log.jsonl` in its folder, one JSON object a line, each with its step; and the tracker."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fitdiff.storage import CheckpointError
from fitdiff.tracker import Tracker


class Log:
    """Appends `{"step": n, name: value, ...}`; numbers that are not finite become null.

    Args:
        path: of the file. step: where the run begins; lines beyond it, of steps that come again, are cut off.
        name: of the stage. tracker: also gets everything, as `<name>/<key>`.
    """

    def __init__(self, path: Path, step: int, name: str, tracker: Tracker) -> None:
        self.path, self.name, self.tracker = path, name, tracker
        self._last = step, time.perf_counter()
        self._newest: tuple[int, set[str]] | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            kept = [(len(line), entry) for line, entry in _entries(path) if entry["step"] <= step]
            os.truncate(path, sum(length for length, _ in kept))
            self._newest = _kind(kept[-1][1]) if kept else None
            tell_history(path, name, tracker)

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Add a line; one of the same step and names as the newest is that one again, after a kill."""
        entry = {"step": step, **{key: value if math.isfinite(value) else None for key, value in values.items()}}
        if _kind(entry) == self._newest:
            return
        self._newest = _kind(entry)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self.tracker.log({f"{self.name}/{key}": value for key, value in values.items()}, step)

    def steps_per_second(self, step: int) -> float:
        """Since the last call."""
        (before, then), self._last = self._last, (step, time.perf_counter())
        return (step - before) / (self._last[1] - then)


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The entries in the order of their steps.

    Raises:
        CheckpointError: a line is damaged.
    """
    return (entry for _, entry in _entries(path))


def tell_history(path: Path, name: str, tracker: Tracker) -> None:
    """Log all entries: `Trackers` leaves out what a store has, so that it gets what a kill lost, or it never had.

    Args:
        path: of the log. name: of the stage.

    Raises:
        CheckpointError: a line is damaged.
    """
    for entry in read_log(path):
        known = {key: value for key, value in entry.items() if key != "step" and value is not None}
        tracker.log({f"{name}/{key}": value for key, value in known.items()}, entry["step"])


def training_seconds(path: Path, batch_size: int) -> float:
    """Time that the steps took, of all sessions, and what was done between them."""
    seconds, before = 0.0, 0
    for entry in read_log(path):
        if entry.get("samples_per_second"):
            seconds += (entry["step"] - before) * batch_size / entry["samples_per_second"]
            before = entry["step"]
    return seconds


def _entries(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Lines and what they say, without the half line that a killed process may leave at the end."""
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if line.endswith(b"\n"):
            try:
                entry = json.loads(line)
                entry["step"] + 0
            except (ValueError, KeyError, TypeError) as error:
                raise CheckpointError(
                    f"{path}, line {number} is damaged ({line[:60]!r}): delete that line; nothing depends on it"
                ) from error
            yield line, entry


def _kind(entry: Mapping[str, Any]) -> tuple[int, set[str]]:
    return entry["step"], set(entry)
