"""Bring finished runs into a dashboard: `python -m fitdiff.tracker.relog runs=outputs/* tracker=trackio`.

Runs of train.py (their stages with curves, previews and artifacts) and of evaluate.py, as if they had been tracked when
they ran. What a store has already is not sent again, so the command may be repeated while runs grow.
"""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig
from rich.console import Console

from fitdiff.cli import guarded, prepare
from fitdiff.storage import CheckpointError
from fitdiff.tracker.base import Artifact, TrackedRun, Tracker
from fitdiff.tracker.runs import log_evaluation, model_artifact, read_picture
from fitdiff.tracker.several import build_trackers
from fitdiff.training.log import tell_history

STAGES, RESULTS = "stages.json", "results.json"
"""What the folder of a training and of an evaluation holds."""

CONF = Path(__file__).parents[2] / "conf"


@dataclass
class RelogConfig:
    """`python -m fitdiff.tracker.relog`."""

    runs: Any = MISSING  # folders, or patterns such as outputs/*: one, or a list
    stages: list[str] = field(default_factory=lambda: ["autoencoder", "diffusion"])  # whose curves are shown
    tracker: dict[str, Any] = MISSING


def find_runs(patterns: str | list[str]) -> list[Path]:
    """Folders of runs that the patterns name, or that lie below what they name.

    Raises:
        FileNotFoundError: there is none.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    named = [Path(path) for pattern in patterns for path in sorted(glob.glob(pattern))]
    found = [file.parent for folder in named for name in (STAGES, RESULTS) for file in sorted(folder.rglob(name))]
    if not found:
        raise FileNotFoundError(
            f"runs={','.join(patterns)}: no folder with {STAGES} (of train.py) or {RESULTS} (of evaluate.py) there; "
            "give folders of runs, as in runs=outputs/*"
        )
    return list(dict.fromkeys(found))


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
    name, origin = f"evaluations/{results['name']}", results.get("provenance") or {}
    tags = (results["benchmark"],)
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


def main() -> None:
    """Show every run that is asked for; a broken one is told of, and the others are shown."""
    ConfigStore.instance().store(name="relog_schema", node=RelogConfig)
    prepare()
    console = Console(stderr=True, highlight=False)

    @hydra.main(config_path=str(CONF), config_name="relog", version_base="1.3")
    @guarded
    def command(config: DictConfig) -> None:
        broken = []
        for folder in find_runs(config.runs):
            try:
                run = relog(folder, build_trackers(config.tracker), list(config.stages))
                console.print(f"[green]{run.name}[/] ({folder})", soft_wrap=True)
            except CheckpointError as error:
                broken.append(str(error))
                console.print(str(error), style="yellow", soft_wrap=True, markup=False)
        if broken:
            raise CheckpointError(f"{len(broken)} runs are not shown; the first: {broken[0]}")

    command()


if __name__ == "__main__":
    main()
