"""Runs of the entry points as trackers see them: what was asked for by name, and what an evaluation found."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from PIL import Image

from fitdiff.tracker.base import Artifact, TrackedRun, Tracker

NAMED = ("experiment", "benchmark", "model", "scale")
"""Choices of the command line that tag a run; the first is its group."""

PICTURES = (".png", ".jpg")
MODEL_SEAL = "config.json"


def describe_run(
    folder: Path, name: str, config: Mapping[str, Any], origin: Mapping[str, Any], job_type: str, outputs: Path
) -> TrackedRun:
    """A run that Hydra started: tagged by what was chosen, grouped by its experiment. Arguments as of `TrackedRun`."""
    choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    tags = tuple(str(choices[key]) for key in NAMED if choices.get(key))
    return TrackedRun(folder, name, config, outputs, job_type, choices.get("experiment"), tags, origin)


def model_artifact(folder: Path) -> Artifact:
    """A model folder that `train.py` wrote, known by its weights: a copy elsewhere is the same artifact."""
    config = json.loads((folder / MODEL_SEAL).read_text())
    return Artifact(f"model-{config['weights']['sha256'][:12]}", "model", folder, {"versions": config["versions"]})


def log_evaluation(tracker: Tracker, folder: Path) -> None:
    """Show what `evaluate.py` wrote: summary, a table of all rows, pictures, meshes, and whose results they are.

    Args:
        tracker: started. folder: with `results.json`, as `evaluation.benchmark` describes it.
    """
    results = json.loads((folder / "results.json").read_text())
    stage = results["benchmark"]
    summary = {key: value for key, value in results["summary"].items() if isinstance(value, int | float)}
    tracker.log({f"{stage}/{key}": value for key, value in summary.items() if math.isfinite(value)}, 0)
    if results["rows"]:
        tracker.log_table(f"{stage}/rows", results["rows"])
    paths = [path for path in sorted(folder.iterdir()) if path.suffix in PICTURES]
    tracker.log_images({f"{stage}/{path.stem}": read_picture(path) for path in paths}, 0)
    for path in sorted(folder.glob("*.glb")):
        tracker.log_mesh(f"{stage}/{path.stem}", path, 0)
    checkpoint = results.get("checkpoint")
    known = checkpoint and (Path(checkpoint) / MODEL_SEAL).exists()
    about = {key: results.get(key) for key in ("benchmark", "date", "config_hash", "summary")}
    made = Artifact(f"evaluation-{folder.name}-{results.get('config_hash')}", "evaluation", folder, about)
    tracker.log_artifact(made, [model_artifact(Path(checkpoint))] if known else [])


def read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8."""
    with Image.open(path, formats=("PNG", "JPEG")) as image:
        return np.asarray(image.convert("RGB"))
