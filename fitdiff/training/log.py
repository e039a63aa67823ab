"""What a stage logs: `log.jsonl` in its folder, one JSON object a line, each with its step; and the tracker."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            os.truncate(path, sum(len(line) for line in _whole_lines(path) if json.loads(line)["step"] <= step))

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Add a line."""
        entry = {key: value if math.isfinite(value) else None for key, value in values.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **entry}) + "\n")
        self.tracker.log({f"{self.name}/{key}": value for key, value in values.items()}, step)

    def steps_per_second(self, step: int) -> float:
        """Since the last call."""
        (before, then), self._last = self._last, (step, time.perf_counter())
        return (step - before) / (self._last[1] - then)


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The entries in the order of their steps."""
    return map(json.loads, _whole_lines(path))


def _whole_lines(path: Path) -> list[bytes]:
    """Without the half line that a killed process may leave at the end."""
    return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
