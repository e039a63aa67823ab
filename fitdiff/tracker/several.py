"""Any number of trackers as one, none of which can end a run, or show a step twice."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.console import Console

from fitdiff.registry import build
from fitdiff.tracker.base import Artifact, NoTracker, Status, TrackedRun, Tracker, safe_name

T = TypeVar("T")


class Trackers(Tracker):
    """The trackers of a run by name, as one.

    - One that fails is told of once, closed, and left out from then on.
    - Names that some dashboard refuses are made such that all take them (`safe_name`).
    - What its store has already is not sent again: a run that continues repeats the steps after its checkpoint, with
      the same numbers. What the store lost in a kill, or never had, is sent when the history comes (`training.log`).
    """

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self.trackers = {name: tracker for name, tracker in trackers.items() if not isinstance(tracker, NoTracker)}
        self.newest: dict[str, dict[str, int]] = {name: {} for name in self.trackers}

    def __bool__(self) -> bool:
        """Whether anything is tracked at all."""
        return bool(self.trackers)

    def start(self, run: TrackedRun) -> None:
        """Open the run in all of them."""

        def begin(name: str, tracker: Tracker) -> None:
            tracker.start(run)
            self.newest[name] = dict(tracker.logged())

        self._each(begin)

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Log the scalars that are new to a tracker; those that are not finite are left out, as in the run's log."""
        finite = {key: value for key, value in scalars.items() if math.isfinite(value)}
        self._each(lambda name, tracker: self._new(name, finite, step, tracker.log))

    def log_images(self, images: Mapping[str, np.ndarray], step: int) -> None:
        """Log the pictures that are new to a tracker."""
        self._each(lambda name, tracker: self._new(name, images, step, tracker.log_images))

    def log_mesh(self, name: str, path: Path, step: int) -> None:
        """Log a mesh."""
        self._each(lambda _, tracker: tracker.log_mesh(safe_name(name), path, step))

    def log_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log a table."""
        self._each(lambda _, tracker: tracker.log_table(safe_name(name), rows))

    def log_artifact(self, artifact: Artifact, uses: Sequence[Artifact] = ()) -> None:
        """Record what the run made."""
        self._each(lambda _, tracker: tracker.log_artifact(artifact, uses))

    def use_artifact(self, artifact: Artifact) -> None:
        """Record what the run uses."""
        self._each(lambda _, tracker: tracker.use_artifact(artifact))

    def finish(self, status: Status = "finished") -> None:
        """Close all of them."""
        self._each(lambda _, tracker: tracker.finish(status))

    def _new(self, name: str, values: Mapping[str, T], step: int, send: Callable[[Mapping[str, T], int], None]) -> None:
        newest = self.newest[name]
        safe = {safe_name(key): value for key, value in values.items()}
        new = {key: value for key, value in safe.items() if step > newest.get(key, -1)}
        if new:
            send(new, step)
            newest.update(dict.fromkeys(new, step))

    def _each(self, call: Callable[[str, Tracker], None]) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                call(name, tracker)
            except Exception as error:  # whatever a dashboard suffers from, the training goes on
                del self.trackers[name]
                with suppress(Exception):  # left open, it would be in the way of the next run of this process
                    tracker.finish("failed")
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                Console(stderr=True).print(
                    f"tracker={name} failed and is left out of the rest of this run ({reason}); "
                    "the run's own files have everything: python -m fitdiff.tracker.relog",
                    soft_wrap=True, highlight=False, markup=False, style="yellow",
                )  # fmt: skip


def build_trackers(nodes: Mapping[str, Any]) -> Trackers:
    """The trackers of a config's group `tracker`.

    Raises:
        ComponentError: an option is wrong, or a package is missing; the message says what to install.
    """
    return Trackers({name: build(node, "tracker") for name, node in nodes.items()})


def require(package: str, install: str) -> None:
    """See that an optional package is there, without importing it.

    Raises:
        ValueError: it is not; the message says how to get it.
    """
    if importlib.util.find_spec(package) is None:
        raise ValueError(f"{package} is missing: pip install {install} (all trackers: pip install 'fitdiff[trackers]')")
