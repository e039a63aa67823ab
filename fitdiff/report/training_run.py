"""Reads the folder of a training run, finished or not, and the stages that it names."""

from __future__ import annotations

import json
import os
import re
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fitdiff.report.metrics import duration
from fitdiff.report.runs import (
    FAILED,
    TRAINING,
    Curve,
    Number,
    Picture,
    Run,
    RunError,
    flatten,
    number,
    provenance_facts,
    read_hydra,
    read_object,
)  # fmt: skip
from fitdiff.storage import read_json

HELD_OUT = "held_out/"
"""What logged names of evaluations begin with."""

LONGEST_REASON = 160
"""Characters of why a run failed that stand beside its name; its notes have the whole."""


@dataclass
class Stage:
    """What one stage adds to a run."""

    name: str
    folder: Path
    log: list[dict[str, Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def source(self) -> str:
        """The same for all runs that share the stage."""
        return os.path.realpath(self.folder)

    @property
    def finished(self) -> bool:
        """Whether its result is there."""
        return (self.folder / "result.json").is_file()


def read_training(folder: Path, name: str) -> Run:
    """A run of `train.py` from its `stages.json`.

    Raises:
        NotARunError, RunError: it is not one.
    """
    stages = [Stage(stage, path) for stage, path in _folders(folder).items()]
    for stage in stages:
        _read(stage)
    config, command = _configured(folder, stages)
    run = Run(name, folder, TRAINING, config=config, compared=config, command=command)
    run.status = _state(folder, stages, config, run.notes)
    for stage in stages:
        run.numbers |= _numbers(stage)
        run.curves |= _curves(stage)
        run.pictures += _previews(stage)
        run.notes += stage.faults
    seconds = [run.numbers[key].value for stage in stages if (key := f"{stage.name}/seconds") in run.numbers]
    run.seconds = sum(seconds) if seconds else None
    run.facts = _facts(stages)
    return run


def training_config(folder: Path) -> dict[str, Any]:
    """The config of the training run in a folder; empty if there is none, or it is unknown."""
    try:
        return _configured(folder, [Stage(name, path) for name, path in _folders(folder).items()])[0]
    except RunError:
        return {}


def _folders(run: Path) -> dict[str, Path]:
    folders = read_object(run / "stages.json")
    if not folders or not all(isinstance(path, str) for path in folders.values()):
        raise RunError("stages.json is empty or names no folders, expected stage -> folder")
    return {stage: run / path for stage, path in folders.items()}


def _configured(folder: Path, stages: list[Stage]) -> tuple[dict[str, Any], str | None]:
    """Config and command, the config at worst as a stage recorded it."""
    config, command = read_hydra(_composed(folder, stages))
    return config or _config_of(stages), command


def _composed(folder: Path, stages: list[Stage]) -> Path:
    """Where Hydra left the run's config: in its folder; of a run of a grid, under `multirun`, newest last."""
    if (folder / ".hydra").is_dir():
        return folder
    outputs = stages[0].folder.resolve().parents[1]
    try:
        jobs = outputs / "multirun" / folder.resolve().relative_to(outputs)
    except ValueError:
        return folder
    made = sorted(jobs.glob("*/.hydra"), key=lambda path: path.stat().st_mtime)
    return made[-1].parent if made else folder


def _read(stage: Stage) -> None:
    """Fill in the log, and what is wrong with it; the latents have none."""
    if not stage.folder.is_dir():
        stage.faults.append(f"stage {stage.name}: its folder {stage.folder.name} is missing")
        return
    try:
        stage.log = list(_entries(stage.folder / "log.jsonl", stage.faults))
    except FileNotFoundError:
        return
    except OSError as error:
        stage.faults.append(f"stage {stage.name}: log.jsonl cannot be read ({error.strerror})")


def _entries(path: Path, faults: list[str]) -> Iterator[dict[str, Any]]:
    """Lines of a log; damaged ones are told and left out (`training.log.read_log` refuses them: it continues runs)."""
    bad = 0
    with path.open("rb") as file:
        for line in file:
            try:
                entry = json.loads(line)
                if isinstance(entry, dict) and number(entry.get("step")) is not None:
                    yield entry
                    continue
            except (ValueError, RecursionError):
                if not line.endswith(b"\n"):
                    continue  # being written, or cut by a kill
            bad += 1
    if bad:
        faults.append(f"{path.parent.name}/log.jsonl: {bad} damaged lines left out")


def _state(folder: Path, stages: list[Stage], config: dict[str, Any], notes: list[str]) -> str:
    """`Run.status`; why it failed goes to the notes as a whole."""
    waiting = [stage for stage in stages if not stage.finished]
    at = _place(waiting[0], config) if waiting else "after its last stage"
    if (folder / FAILED).is_file():
        failure = read_json(folder / FAILED)
        failure = failure if isinstance(failure, dict) else {}
        reason = failure.get("reason")
        reason = reason if isinstance(reason, str) else "the reason was not recorded"
        notes.append(f"failed at {failure.get('date', 'an unknown time')}, {at}: {reason.strip()}")
        return f"failed: {textwrap.shorten(reason, LONGEST_REASON, placeholder=' …')}"
    if not waiting:
        return "finished"
    # A run that was killed left no word of it: how long it has been silent tells it from one that still goes.
    newest = _newest(stages)
    silent = f", last written {duration(max(0.0, time.time() - newest))} ago" if newest else ""
    return f"unfinished: {at}{silent}"


def _place(stage: Stage, config: dict[str, Any]) -> str:
    """How far a stage that has not finished has come."""
    if not stage.log:
        return f"{stage.name} not begun"
    steps = flatten(config).get(f"stage.{stage.name}.steps")
    return f"{stage.name} at step {stage.log[-1]['step']}" + (f" of {steps}" if steps else "")


def _numbers(stage: Stage) -> dict[str, Number]:
    """The stage's result; before there is one, its newest evaluation."""
    if stage.finished:
        try:
            values: dict[str, Any] = read_object(stage.folder / "result.json")
        except RunError as error:
            stage.faults.append(f"stage {stage.name}: {error}")
            values = {}
    else:
        evaluations = [entry for entry in stage.log if any(key.startswith(HELD_OUT) for key in entry)]
        newest = evaluations[-1] if evaluations else {}
        values = {key.removeprefix(HELD_OUT): value for key, value in newest.items() if key.startswith(HELD_OUT)}
    finite = {key: number(value) for key, value in values.items()}
    return {
        f"{stage.name}/{key}": Number(value, stage.source, stage.finished)
        for key, value in finite.items()
        if value is not None
    }


def _curves(stage: Stage) -> dict[str, Curve]:
    points: dict[str, dict[int, float]] = {}
    for entry in stage.log:
        for key, value in entry.items():
            if key != "step" and (finite := number(value)) is not None:
                points.setdefault(key, {})[int(entry["step"])] = finite
    return {
        f"{stage.name}/{key}": Curve(*zip(*sorted(values.items()), strict=True), stage.source)
        for key, values in points.items()
    }


def _previews(stage: Stage) -> list[Picture]:
    """The newest preview of each name."""
    newest: dict[str, tuple[int, Path]] = {}
    for path in stage.folder.glob("previews/*.png"):
        match = re.fullmatch(r"(.+)-(\d+)", path.stem)
        name, step = (match[1], int(match[2])) if match else (path.stem, 0)
        newest[name] = max(newest.get(name, (-1, path)), (step, path))
    return [Picture(f"{stage.name}/{name}", f"step {step}", path) for name, (step, path) in sorted(newest.items())]


def _config_of(stages: list[Stage]) -> dict[str, Any]:
    """As a stage recorded it; the last stage's, for earlier ones may have been trained by another run."""
    for stage in reversed(stages):
        config = read_json(stage.folder / "config.json")
        if isinstance(config, dict):
            return config
    return {}


def _facts(stages: list[Stage]) -> dict[str, str]:
    facts = {f"{stage.name}'s hash": stage.folder.name.rpartition("-")[2] for stage in stages}
    for stage in reversed(stages):
        for path in sorted(stage.folder.glob("step-*/state.json"), reverse=True):
            state = read_json(path)
            if isinstance(state, dict) and (known := provenance_facts(state.get("provenance"))):
                return _date(stages) | known | facts
    return _date(stages) | facts


def _date(stages: list[Stage]) -> dict[str, str]:
    """When the last stage ended: the time of its result, or of its log while it runs."""
    newest = _newest(stages)
    return {"date": f"{datetime.fromtimestamp(newest, timezone.utc):%Y-%m-%d %H:%M} UTC"} if newest else {}


def _newest(stages: list[Stage]) -> float | None:
    """When a stage last wrote, in seconds since 1970."""
    times = [
        path.stat().st_mtime
        for stage in stages
        for path in (stage.folder / "result.json", stage.folder / "log.jsonl")
        if path.is_file()
    ]
    return max(times, default=None)
