"""What a sweep knows of the entry points: where a trial of a name writes, and where its metric is."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from fitdiff.evaluation.results import RESULTS
from fitdiff.storage import read_json
from fitdiff.sweep.spec import SweepError
from fitdiff.training.log import read_log


class MetricError(ValueError):
    """A trial has no usable metric; the message says what it has."""


IDLE = ("hydra", "tracker", "device", "name", "outputs")
"""Keys of overrides that decide no result: how and where a trial runs, and who is told."""


class Program(Protocol):
    """An entry point whose trials a sweep runs. `folder` is that of a trial.

    Attributes:
        idle: keys of overrides that decide no result.
    """

    idle: tuple[str, ...]

    def folder(self, outputs: Path, trial: str) -> Path:
        """Where a trial writes that is given `outputs` and `name`, such as `lambda/trial-3`."""

    def result_file(self, folder: Path) -> Path:
        """What it writes last."""

    def result(self, folder: Path, metric: str) -> float:
        """The metric of a finished trial; raises `MetricError`."""

    def curve(self, folder: Path, metric: str) -> list[float]:
        """The metric at every evaluation so far."""

    def forget(self, folder: Path) -> None:
        """Remove what could be taken for a new trial's result or curve, and is an earlier one's of the same name.

        What it takes to continue a trial stays.
        """

    def prepares(self, folder: Path) -> bool:
        """Whether a running trial still makes what others may share, so that they wait for it."""


class Train:
    """`train.py`; its metrics are named `<stage>/held_out/<name>`, as trackers get them."""

    idle = IDLE

    def folder(self, outputs: Path, trial: str) -> Path:
        """The run's folder; the stages lie beside all others, so that trials share them."""
        return outputs / trial

    def result_file(self, folder: Path) -> Path:
        """Metrics of all stages."""
        return folder / "metrics.json"

    def result(self, folder: Path, metric: str) -> float:
        """The metric after the last step."""
        stage, _, name = metric.partition("/")
        stages = read_json(self.result_file(folder)) or {}
        return _finite(stages.get(stage) or {}, name.removeprefix("held_out/"), f"{self.result_file(folder)}, {stage}")

    def curve(self, folder: Path, metric: str) -> list[float]:
        """From the stage's log."""
        stage, _, name = metric.partition("/")
        stages = read_json(folder / "stages.json") or {}
        log = folder / stages.get(stage, "") / "log.jsonl"
        if stage not in stages or not log.exists():
            return []
        values = (entry[name] for entry in read_log(log) if name in entry)
        return [math.nan if value is None else value for value in values]

    def forget(self, folder: Path) -> None:
        """What the run writes anew whenever it begins or ends; its stages stay."""
        for path in (self.result_file(folder), folder / "stages.json"):
            path.unlink(missing_ok=True)

    def prepares(self, folder: Path) -> bool:
        """Until its last stage has begun: two runs cannot train one autoencoder, or make the same people, at once."""
        stages = read_json(folder / "stages.json") or {}
        return not stages or not (folder / list(stages.values())[-1]).exists()


class Evaluate:
    """`evaluate.py`; its metrics are those of the summary, named `<benchmark>/<name>`, as trackers get them."""

    idle = (*IDLE, "batch")

    def folder(self, outputs: Path, trial: str) -> Path:
        """Beside all other evaluations."""
        return outputs / "evaluations" / trial

    def result_file(self, folder: Path) -> Path:
        """Rows and summary."""
        return folder / RESULTS

    def result(self, folder: Path, metric: str) -> float:
        """The summary's number."""
        found = read_json(self.result_file(folder)) or {}
        name = metric.removeprefix(f"{found.get('benchmark')}/")
        return _finite(found.get("summary") or {}, name, f"{self.result_file(folder)}, summary")

    def curve(self, folder: Path, metric: str) -> list[float]:
        """An evaluation has its metric at the end alone."""
        return []

    def forget(self, folder: Path) -> None:
        """The summary; what is scored already stays."""
        self.result_file(folder).unlink(missing_ok=True)

    def prepares(self, folder: Path) -> bool:
        """Evaluations share nothing that they make."""
        return False


def place(outputs: Path, trial: str) -> list[str]:
    """The overrides by which a program writes to `Program.folder`."""
    return [f"outputs={outputs}", f"name={trial}"]


PROGRAMS: Mapping[str, Program] = {"train.py": Train(), "evaluate.py": Evaluate()}


def program_of(path: str) -> Program:
    """What is known of a sweep's program, by its file name; raises `SweepError`."""
    if (name := Path(path).name) not in PROGRAMS:
        raise SweepError(f"program: got {path}, expected one of {', '.join(PROGRAMS)}")
    return PROGRAMS[name]


def decisive(program: str, words: Sequence[str]) -> list[str]:
    """Of the words of a command, those that decide its result."""
    idle = program_of(program).idle
    return [word for word in words if re.split(r"[=./@]", word.lstrip("+~"), maxsplit=1)[0] not in idle]


def _finite(values: Mapping[str, Any], name: str, where: str) -> float:
    if name not in values:
        raise MetricError(f"{where} has no {name}; it has {', '.join(values) or 'nothing'}")
    if not isinstance(values[name], (int, float)) or not math.isfinite(values[name]):
        raise MetricError(f"{where}: {name} is {values[name]}, which is no number to compare by")
    return float(values[name])
