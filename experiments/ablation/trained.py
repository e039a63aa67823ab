"""Runs of a grid of `train.py`: where they are, and that each was trained as the grid asks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.ablation.grid import Job
from fitdiff.config import plain
from fitdiff.data.sources import PLACES
from fitdiff.training.pipeline import MEMORY_KEYS, TRAINING_KEYS
from fitdiff.training.provenance import differences

DECISIVE = (
    "seed", "autoencoder_seed", "resolution", "prediction", "model", "data", "shape_model", "identity", "perceptual",
    "autoencoder", "denoiser", "schedule", "stage",
)  # fmt: skip
"""What of a run's config decides its weights, beside `TRAINING_KEYS` of its trainer."""


def checkpoint_of(job: Job) -> Path:
    """Where train.py puts a run's model."""
    return Path(job.config.outputs) / job.config.name / "model"


def refuse_other_settings(jobs: Sequence[Job]) -> None:
    """Check that every run was trained with the settings of its job: names of runs do not hold the steps, for one.

    Raises:
        FileNotFoundError: a run does not say how it was trained.
        ValueError: a run was trained otherwise; names it, the settings, and how to ask for them.
    """
    for job in jobs:
        if other := differences(_decisive(trained_config(job)), _decisive(plain(job.config))):
            raise ValueError(
                f"{job.config.name} in {job.config.outputs} was trained otherwise: {'; '.join(other[:3])}. Runs of one "
                "table differ in the variant and the seed alone: name what all of them share with "
                "overrides=[key=value], or train anew in another outputs="
            )


def trained_config(job: Job) -> dict[str, Any]:
    """The config that a run's diffusion stage was trained with.

    Raises:
        FileNotFoundError: the run's stages.json or the stage's config.json is not there.
    """
    run = Path(job.config.outputs) / job.config.name
    try:
        stages = json.loads((run / "stages.json").read_text())
        return json.loads((run / stages["diffusion"] / "config.json").read_text())
    except (FileNotFoundError, KeyError) as error:
        raise FileNotFoundError(
            f"{run}: expected stages.json, and the config.json of the diffusion stage that it names ({error}); they "
            "say how the run was trained: move runs together with their stages folder"
        ) from error


def _decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the weights."""
    chosen = {key: config.get(key) for key in DECISIVE}
    chosen["trainer"] = {key: config["trainer"].get(key) for key in TRAINING_KEYS}
    chosen["data"] = {key: value for key, value in chosen["data"].items() if key not in PLACES}
    chosen["autoencoder"] = {key: value for key, value in chosen["autoencoder"].items() if key not in MEMORY_KEYS}
    return chosen
