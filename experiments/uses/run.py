"""What the experiments of this folder share: a run's model, its held-out people, and numbers with intervals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor

from fitdiff.data.people import People
from fitdiff.data.shards import dequantise
from fitdiff.data.sources import build_data
from fitdiff.evaluation.separation import bootstrap
from fitdiff.model import FitDiff


def open_run(run: str) -> tuple[FitDiff, People]:
    """Model and data of a training run's folder."""
    model = FitDiff.load(Path(run) / "model")
    config = OmegaConf.create(json.loads((Path(run) / "model" / "config.json").read_text()))
    people, _ = build_data(config, model.shape_model, model.identity, model.renderer, model.versions)
    people.prepare()
    return model, people


def true_z(model: FitDiff, people: dict[str, Tensor]) -> Tensor:
    """(n, N) what z of people (tensors of `PeopleMaker.make`) is: their shape code and the autoencoder's latent."""
    with torch.no_grad():
        latent = model.autoencoder.encode(dequantise(people["maps"]).to(model.device))
        return model.latent.pack(people["identity"].to(model.device), latent)


def with_interval(values: np.ndarray, spec: str = ".2f") -> str:
    """Mean over people and its 95% bootstrap interval, as text."""
    finite = np.asarray(values, float)
    value, low, high = bootstrap(
        lambda copies: {"mean": float(np.average(finite, weights=copies))}, len(finite), 1000, 0
    )["mean"]
    return f"{value:{spec}} ({low:{spec}} to {high:{spec}})"
