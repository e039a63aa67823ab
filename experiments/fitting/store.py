"""Fits on disk by method and photos: a bench that was stopped goes on, and no fit is ever taken for another."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from experiments.fitting.rivals import Rival
from fitdiff.config import config_hash
from fitdiff.evaluation.methods import Fit
from fitdiff.fitting import FitProblem
from fitdiff.storage import read_tensors, write_tensors
from fitdiff.types import Scene

PACKAGE = Path(__file__).parents[2] / "fitdiff"
DECISIVE = (
    "alignment", "diffusion", "fitting", "guidance", "identity", "renderer", "observe.py",
    "evaluation/methods.py", "evaluation/landmark_fit.py", "evaluation/people.py",
)  # fmt: skip
"""What of the package decides a fit."""


class Store:
    """Fits in a folder.

    Args:
        folder: of all of them. model: its weights are part of every key. setting: what else is the same for all.
    """

    def __init__(self, folder: Path, model: Any, weights: Any, setting: dict[str, Any]) -> None:
        self.folder, self.device = folder, model.device
        self.shared = (weights, setting, _code())

    def path(self, rival: Rival, photos: list[str]) -> Path:
        """File of a method's fits of the named photos."""
        return self.folder / f"{config_hash(*self.shared, rival.config, photos)}.safetensors"

    def get(self, rival: Rival, photos: list[str], problem: FitProblem) -> Fit:
        """The stored fit, or one that is made and stored now."""
        path = self.path(rival, photos)
        if not path.exists():
            rival.prepare()
            fit = Fit.of(rival.solve, problem)
            seconds = torch.tensor(fit.seconds, dtype=torch.float64)
            write_tensors(path, {"z": fit.z, "seconds": seconds, **fit.scene.to_tensors()})
        tensors = {key: value.to(self.device) for key, value in read_tensors(path).items()}
        return Fit(tensors["z"], Scene.from_tensors(tensors), float(tensors["seconds"]))


def _code() -> str:
    """Hash of the sources that decide a fit."""
    digest = hashlib.sha256()
    for name in DECISIVE:
        place = PACKAGE / name
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
