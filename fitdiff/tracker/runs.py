"""Runs of the entry points as trackers see them: what was asked for by name, and what an evaluation found."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from PIL import Image
from rich.console import Console

from fitdiff.evaluation.results import RESULTS
from fitdiff.storage import read_json
from fitdiff.tracker.base import Artifact, TrackedRun, Tracker

NAMED = ("experiment", "benchmark", "model", "scale")
"""Choices of the command line that tag a run; the first is its group."""

PICTURES = (".png", ".jpg")
MODEL_SEAL = "config.json"


def describe_run(folder: Path, name: str, config: Mapping[str, Any], **about: Any) -> TrackedRun:
    """A run that Hydra started: tagged by what was chosen, grouped by its experiment. Arguments as of `TrackedRun`."""
    choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    return TrackedRun(folder, name, config, **about, **chosen(choices))


def chosen(choices: Mapping[str, Any]) -> dict[str, Any]:
    """`group` and `tags` of a run by what its command line chose: config group -> name."""
    return {
        "group": choices.get("experiment"),
        "tags": tuple(str(choices[key]) for key in NAMED if choices.get(key)),
    }


def data_artifact(digest: str, about: Mapping[str, Any]) -> Artifact:
    """A data set, known by its hash, described by its config: its files stay where they are."""
    return Artifact(f"data-{digest}", "data", about=about)


def show_stage(tracker: Tracker, folder: Path, run: str, data: Sequence[Artifact], before: Path | None) -> None:
    """Record a stage that is done: as made by this run, or else as used by it, where another run trained it.

    Args:
        folder: of the stage. run: this run's name. data: that it was trained on, if that is known.
        before: folder of the stage before it, from which it was made, too.
    """
    stage = Artifact(folder.name, "checkpoint", folder, json.loads((folder / "result.json").read_text()))
    if trained_by(folder) == run:
        tracker.log_artifact(stage, [*data, *([Artifact(before.name, "checkpoint", before)] if before else [])])
    else:
        tracker.use_artifact(stage)


def trained_by(stage: Path) -> str | None:
    """Name of the run that trained a stage; None if that is unknown."""
    config = read_json(stage / "config.json")
    return config.get("name") if isinstance(config, dict) else None


def model_artifact(folder: Path) -> Artifact:
    """A model folder that `train.py` wrote, known by its weights: a copy elsewhere is the same artifact."""
    config = json.loads((folder / MODEL_SEAL).read_text())
    return Artifact(f"model-{config['weights']['sha256'][:12]}", "model", folder, {"versions": config["versions"]})


def log_evaluation(tracker: Tracker, folder: Path) -> None:
    """Show what `evaluate.py` wrote: summary, a table of all rows, pictures, meshes, and whose results they are.

    Args:
        tracker: started. folder: with `results.json`, as `evaluation.benchmark` describes it.
    """
    results = json.loads((folder / RESULTS).read_text())
    stage = results["benchmark"]
    summary = {key: value for key, value in results["summary"].items() if isinstance(value, int | float)}
    tracker.log({f"{stage}/{key}": value for key, value in summary.items() if math.isfinite(value)}, 0)
    if results["rows"]:
        tracker.log_table(f"{stage}/rows", results["rows"])
    paths = [path for path in sorted(folder.iterdir()) if path.suffix in PICTURES]
    tracker.log_images(read_pictures({f"{stage}/{path.stem}": path for path in paths}), 0)
    for path in sorted(folder.glob("*.glb")):
        tracker.log_mesh(f"{stage}/{path.stem}", path, 0)
    checkpoint = results.get("checkpoint")
    known = checkpoint and (Path(checkpoint) / MODEL_SEAL).exists()
    about = {key: results.get(key) for key in ("benchmark", "date", "config_hash", "summary")}
    made = Artifact(f"evaluation-{folder.name}-{results.get('config_hash')}", "evaluation", folder, about)
    tracker.log_artifact(made, [model_artifact(Path(checkpoint))] if known else [])


def read_pictures(paths: Mapping[str, Path]) -> dict[str, np.ndarray]:
    """(H, W, 3) uint8 by name; a damaged file is told of and left out."""
    pictures = {}
    for name, path in paths.items():
        try:
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                pictures[name] = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError) as error:  # Pillow's names for a file that is cut, and for one with bad chunks
            Console(stderr=True).print(
                f"note: {path} is left out ({error})", soft_wrap=True, highlight=False, markup=False
            )
    return pictures
