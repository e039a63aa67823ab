"""Bring finished runs into a dashboard: `python -m fitdiff.tracker.relog runs=outputs/* tracker=trackio`.

Runs of train.py (their stages with curves, previews and artifacts) and of evaluate.py, as if they had been tracked when
they ran. What a store has already is not sent again, so the command may be repeated while runs grow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from fitdiff.command import run_command
from fitdiff.config import plain
from fitdiff.registry import config_of
from fitdiff.report.search import run_folders
from fitdiff.storage import CheckpointError
from fitdiff.tracker.base import Artifact, TrackedRun, Tracker
from fitdiff.tracker.runs import log_evaluation, model_artifact, read_picture
from fitdiff.tracker.several import build_trackers
from fitdiff.training.log import tell_history

STAGES, RESULTS = "stages.json", "results.json"
"""What the folder of a training and of an evaluation holds."""


@dataclass
class Options:
    """What the command line sets."""

    runs: str = "outputs/*"  # folders of runs, or folders that hold some; globs; several as [a,b]
    tracker: str = "trackio"  # wandb | trackio | tensorboard | mlflow; several as [a,b]
    stages: list[str] = field(default_factory=lambda: ["autoencoder", "diffusion"])  # whose curves are shown
    options: dict[str, Any] = field(default_factory=dict)  # of trackers: options.trackio.folder=DIR


def relog(folder: Path, tracker: Tracker, stages: list[str]) -> TrackedRun:
    """Show one run, from its own files.

    Args:
        folder: of a training or an evaluation. tracker: not started yet. stages: whose curves and previews are shown.

    Raises:
        CheckpointError: a file of the run is damaged or missing.
    """
    try:
        training = (folder / STAGES).exists()
        run = _trained(folder) if training else _evaluated(folder)
        tracker.start(run)
        if training:
            _show_stages(folder, tracker, stages)
        else:
            log_evaluation(tracker, folder)
    except (KeyError, json.JSONDecodeError, FileNotFoundError) as error:
        raise CheckpointError(
            f"{folder}: not a whole run ({type(error).__name__}: {error}); finish it first"
        ) from error
    finally:
        tracker.finish()
    return run


def _trained(folder: Path) -> TrackedRun:
    last = list(_stage_folders(folder).values())[-1]
    outputs = last.parent.parent
    inside = folder.resolve().is_relative_to(outputs)
    name = folder.resolve().relative_to(outputs).as_posix() if inside else folder.name
    done = [path for path in _stage_folders(folder).values() if (path / "config.json").exists()]
    config = _read(done[-1] / "config.json") if done else {}
    return TrackedRun(folder, name, config, outputs if inside else folder.parent, origin=_origin(last))


def _evaluated(folder: Path) -> TrackedRun:
    results = _read(folder / RESULTS)
    outputs = folder.parent.parent if folder.parent.name == "evaluations" else folder.parent
    name, tags, origin = results["name"], (results["benchmark"],), results.get("provenance") or {}
    return TrackedRun(folder, name, results["config"], outputs, "evaluate", tags=tags, origin=origin)


def _show_stages(folder: Path, tracker: Tracker, stages: list[str]) -> None:
    artifacts: list[Artifact] = []
    for name, stage in _stage_folders(folder).items():
        if name in stages and (stage / "log.jsonl").exists():
            tell_history(stage / "log.jsonl", name, tracker)
            for step, pictures in _previews(stage / "previews", name):
                tracker.log_images({key: read_picture(path) for key, path in pictures.items()}, step)
        if (stage / "result.json").exists():
            artifacts.append(Artifact(stage.name, "checkpoint", stage, _read(stage / "result.json")))
            tracker.log_artifact(artifacts[-1], artifacts[-2:-1])
    if (folder / "sample.glb").exists():
        tracker.log_mesh("model/sample", folder / "sample.glb", 0)
    if (folder / "model" / "config.json").exists():
        tracker.log_artifact(model_artifact(folder / "model"), artifacts[-1:])


def _previews(folder: Path, stage: str) -> Iterator[tuple[int, dict[str, Path]]]:
    """(step, name -> picture), in the order of the steps."""
    by_step: dict[int, dict[str, Path]] = {}
    for path in sorted(folder.glob("*.png")):
        if match := re.fullmatch(r"(.+)-(\d+)", path.stem):
            by_step.setdefault(int(match[2]), {})[f"{stage}/{match[1]}"] = path
    yield from sorted(by_step.items())


def _stage_folders(folder: Path) -> dict[str, Path]:
    return {stage: (folder / place).resolve() for stage, place in _read(folder / STAGES).items()}


def _origin(stage: Path) -> Mapping[str, Any]:
    """Provenance in the stage's newest checkpoint."""
    states = sorted(stage.glob("step-*/*.json"))
    return _read(states[-1]).get("provenance", {}) if states else {}


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def show(options: Options, console: Console) -> None:
    """Show every run that the options name; a broken one is told of, and the others are shown.

    Raises:
        ValueError: there is no run, or none that is whole; a tracker is unknown or its package is missing.
    """
    folders, problems = run_folders(options.runs)
    if not folders:
        raise ValueError(f"runs={options.runs}: no folder with {STAGES} (train.py) or {RESULTS} (evaluate.py) there")
    names = [name.strip() for name in options.tracker.strip("[]").split(",")]
    nodes = {name: config_of("tracker", name, **(plain(options.options).get(name) or {})) for name in names}
    shown = 0
    for folder in folders:
        try:
            run = relog(folder, build_trackers(nodes), list(options.stages))
            console.print(f"{run.name} ({folder})")
            shown += 1
        except CheckpointError as error:
            console.print(f"note: {error}", style="yellow")
    for problem in problems:
        console.print(f"note: {problem.where}: {problem.reason}")
    if not shown:
        raise ValueError(f"runs={options.runs}: none of {len(folders)} runs is whole")


def main() -> None:
    """Show the runs."""
    run_command(show, Options, __doc__)


if __name__ == "__main__":
    main()
