"""Bring finished runs into a dashboard: `python -m fitdiff.tracker.relog runs=outputs/* tracker=trackio`.

Runs of train.py (their stages with curves, previews and artifacts) and of evaluate.py, from their own files. Curves and
pictures that a store has already are not sent again, so the command may be repeated while runs grow; tables, meshes and
artifacts get another version.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from yaml import YAMLError

from fitdiff.command import run_command
from fitdiff.config import plain
from fitdiff.evaluation.results import RESULTS
from fitdiff.registry import config_of
from fitdiff.report.runs import FAILED, NotARunError, read_object
from fitdiff.report.search import run_folders
from fitdiff.report.training_run import training_config
from fitdiff.storage import CheckpointError, read_json
from fitdiff.tracker.base import Artifact, Status, TrackedRun, Tracker
from fitdiff.tracker.runs import (
    chosen,
    data_artifact,
    log_evaluation,
    model_artifact,
    read_pictures,
    show_stage,
)  # fmt: skip
from fitdiff.tracker.several import build_trackers
from fitdiff.training.log import tell_history

STAGES = "stages.json"
"""What the folder of a training holds; that of an evaluation has `RESULTS`."""

DAMAGE = (LookupError, TypeError, AttributeError, ValueError, OSError)
"""What reading a file that is missing, cut, or of another program ends in."""


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
        NotARunError: another program's folder. CheckpointError: a file of the run is damaged or missing.
    """
    try:
        if not (folder / STAGES).exists():
            return _relog_evaluation(folder, tracker)
        return _relog_training(folder, tracker, stages)
    except NotARunError:
        raise
    except DAMAGE as error:
        raise CheckpointError(f"{folder}: not a whole run ({type(error).__name__}: {error})") from error


def _relog_evaluation(folder: Path, tracker: Tracker) -> TrackedRun:
    results = read_object(folder / RESULTS)
    if not isinstance(results.get("benchmark"), str):
        raise NotARunError(f"{RESULTS} names no benchmark: it is not evaluate.py's")
    above = next((parent for parent in folder.resolve().parents if parent.name == "evaluations"), folder.resolve())
    tags, origin, date = (results["benchmark"],), results.get("provenance") or {}, str(results.get("date", ""))
    run = TrackedRun(
        folder, results["name"], results["config"], above.parent, "evaluate", tags=tags, origin=origin, decided_by=date
    )
    with _shown(run, tracker, "finished"):
        log_evaluation(tracker, folder)
    return run


def _relog_training(folder: Path, tracker: Tracker, stages: list[str]) -> TrackedRun:
    # The paths lead from the run's folder, whatever links lead to it; `stages` itself may be a link to a larger disk.
    places = read_object(folder / STAGES).items()
    folders = {stage: Path(os.path.normpath(folder.resolve() / place)) for stage, place in places}
    last = list(folders.values())[-1]
    outputs = last.parent.parent
    inside = folder.resolve().is_relative_to(outputs)
    name = folder.resolve().relative_to(outputs).as_posix() if inside else folder.name
    origin, config = _origin(last), _config(folder, name, folders)
    run = TrackedRun(
        folder, name, config, outputs if inside else folder.parent, origin=origin, decided_by=last.name,
        **chosen(_choices(folder)),
    )  # fmt: skip
    data = [data_artifact(origin["data"], config.get("data", {}))] if origin.get("data") else []
    with _shown(run, tracker, _status(folder, folders)):
        _show_stages(run, tracker, folders, stages, data)
    return run


@contextmanager
def _shown(run: TrackedRun, tracker: Tracker, status: Status) -> Iterator[None]:
    tracker.start(run)
    try:
        yield
    finally:
        tracker.finish(status)


def _show_stages(
    run: TrackedRun, tracker: Tracker, folders: Mapping[str, Path], shown: list[str], data: list[Artifact]
) -> None:
    before = None
    for name, stage in folders.items():
        if name in shown and (stage / "log.jsonl").exists():
            tell_history(stage / "log.jsonl", name, tracker)
            for step, pictures in _previews(stage / "previews", name):
                tracker.log_images(read_pictures(pictures), step)
        if (stage / "result.json").exists():
            show_stage(tracker, stage, run.name, data, before)
            before = stage
    if (run.folder / "sample.glb").exists():
        tracker.log_mesh("model/sample", run.folder / "sample.glb", 0)
    if (run.folder / "model" / "config.json").exists():
        last = [Artifact(before.name, "checkpoint", before)] if before else []
        tracker.log_artifact(model_artifact(run.folder / "model"), last)


def _previews(folder: Path, stage: str) -> Iterator[tuple[int, dict[str, Path]]]:
    """(step, name -> picture), in the order of the steps."""
    by_step: dict[int, dict[str, Path]] = {}
    for path in sorted(folder.glob("*.png")):
        if match := re.fullmatch(r"(.+)-(\d+)", path.stem):
            by_step.setdefault(int(match[2]), {})[f"{stage}/{match[1]}"] = path
    yield from sorted(by_step.items())


def _status(folder: Path, stages: Mapping[str, Path]) -> Status:
    if all((stage / "result.json").exists() for stage in stages.values()):
        return "finished"
    return "failed" if (folder / FAILED).exists() else "running"


def _config(folder: Path, name: str, stages: Mapping[str, Path]) -> dict[str, Any]:
    """As Hydra left it; as a stage recorded it only where this run trained the stage."""
    config = training_config(folder)
    recorded = config in [read_json(stage / "config.json") for stage in stages.values()]
    return {} if recorded and config.get("name") != name else config


def _choices(folder: Path) -> Mapping[str, Any]:
    """What was chosen on the command line, as Hydra left it; nothing in it is resolved, for it may be a stranger's."""
    try:
        hydra: Any = OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "hydra.yaml"), resolve=False)
        return hydra["hydra"]["runtime"]["choices"]
    except (*DAMAGE, YAMLError, OmegaConfBaseException):
        return {}


def _origin(stage: Path) -> Mapping[str, Any]:
    """Provenance in the stage's newest checkpoint."""
    states = sorted(stage.glob("step-*/*.json"))
    return read_object(states[-1]).get("provenance") or {} if states else {}


def show(options: Options, console: Console) -> None:
    """Show every run that the options name; a broken one is told of, and the others are shown.

    Raises:
        ValueError: there is no run, or none could be shown; a tracker is unknown or its package is missing.
    """
    folders, problems = run_folders(options.runs)
    if not folders:
        raise ValueError(f"runs={options.runs}: no folder with {STAGES} (train.py) or {RESULTS} (evaluate.py) there")
    names = [name.strip() for name in options.tracker.strip("[]").split(",")]
    nodes = {name: config_of("tracker", name, **(plain(options.options).get(name) or {})) for name in names}
    shown = 0
    for folder in folders:
        try:
            trackers = build_trackers(nodes)
            run = relog(folder, trackers, list(options.stages))
        except NotARunError:
            continue
        except CheckpointError as error:
            console.print(f"note: {error}", style="yellow")
            continue
        if trackers:
            console.print(f"{run.name} ({folder})")
            shown += 1
    for problem in problems:
        console.print(f"note: {problem.where}: {problem.reason}")
    if not shown:
        raise ValueError(f"runs={options.runs}: none of {len(folders)} runs could be shown")


def main() -> None:
    """Show the runs."""
    run_command(show, Options, __doc__)


if __name__ == "__main__":
    main()
