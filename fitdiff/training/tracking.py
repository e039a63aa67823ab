"""What trackers get of a training besides its log: artifacts with their lineage, and a face that the model draws."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fitdiff.avatar import save_glb
from fitdiff.tracker import Artifact, Trackers
from fitdiff.tracker.runs import model_artifact
from fitdiff.uses.sampling import avatar_of

SAMPLE = "sample.glb"


def show_stage(trackers: Trackers, folder: Path, run: str, inputs: Sequence[Artifact]) -> None:
    """Record a stage that is done: as made by this run, or else as used by it, where another run trained it.

    Args:
        folder: of the stage. run: this run's name. inputs: what the stage was made from.
    """
    if not trackers:
        return
    stage = Artifact(folder.name, "checkpoint", folder, json.loads((folder / "result.json").read_text()))
    if json.loads((folder / "config.json").read_text())["name"] == run:
        trackers.log_artifact(stage, inputs)
    else:
        trackers.use_artifact(stage)


def show_model(trackers: Trackers, model: Any, run_dir: Path, last: Path) -> None:
    """Record the model, and show one face that it draws, as `<run>/sample.glb`.

    Args:
        model: that was saved in `<run>/model`. last: folder of the stage that it comes from.
    """
    if not trackers:
        return
    trackers.log_artifact(model_artifact(run_dir / "model"), [Artifact(last.name, "checkpoint", last)])
    avatar = replace(avatar_of(model, model.sample(1).z), expressions={})  # dashboards show it at rest
    sample = save_glb(avatar, run_dir / SAMPLE)
    trackers.log_mesh("model/sample", sample, 0)
