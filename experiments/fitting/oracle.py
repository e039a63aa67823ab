"""What limits a fit? Guided fits in which one unknown is given as it was made: camera, light, expression, ...

`python -m experiments.fitting.oracle [run=...] [n=16]`
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from experiments.fitting.presets import Preset, compose_preset
from experiments.report import markdown_table, replace_generated
from fitdiff.alignment.face import DetectedFace
from fitdiff.command import run_command
from fitdiff.diffusion.sampler import Known
from fitdiff.evaluation.methods import fitted, recast
from fitdiff.evaluation.people import PHOTO, Scorer, Truth, find_faces, photo_problem
from fitdiff.evaluation.portraits import hard_people
from fitdiff.evaluation.statistics import difference, interval
from fitdiff.fitting import FitProblem
from fitdiff.geometry import ndc_to_pixels
from fitdiff.model import FitDiff
from fitdiff.registry import build
from fitdiff.storage import write_atomically, write_json
from fitdiff.types import Prediction, Scene

HERE = Path(__file__).parent
COLUMNS = {
    "shape_mm": ("shape mm", ".2f"),
    "diffuse_db": ("diffuse dB", ".1f"),
    "visible_diffuse_db": ("visible diffuse dB", ".1f"),
    "ita_degrees": ("ITA° error", ".1f"),
    "novel_id_centred": ("novel ID, centred", ".2f"),
    "light_stops": ("light, stops", ".2f"),
    "light_degrees": ("light, degrees", ".1f"),
    "true_landmarks": ("landmarks", ".3f"),
}
GIVEN: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "landmarks": ("landmarks",),
    "camera": ("camera",),
    "light": ("lighting",),
    "expression": ("expression",),
    "camera and expression": ("camera", "expression"),
    "whole scene": ("camera", "lighting", "expression"),
    "whole scene and landmarks": ("camera", "lighting", "expression", "landmarks"),
    "shape": ("shape",),
    "maps": ("maps",),
}
"""What is given, by name; the last two are parts of z."""


@dataclass
class Options:
    """What the command line sets."""

    run: str = "outputs/fitdiff-laptop"  # folder of the training run
    n: int = 16  # held-out people
    batch: int = 8  # photos at once
    preset: str = ""  # overrides of fit.py; empty is its default
    given: list[str] = field(default_factory=lambda: list(GIVEN))  # which unknowns
    out: str = "outputs/experiments/fitting"
    publish: bool = False  # also update the README


@dataclass(frozen=True)
class GivenProblem(FitProblem):
    """A problem in which parts of the scene are the truth, whatever the scene that is tried.

    Attributes:
        truth: of the B photos. given: fields of `Scene` that are taken from it.
    """

    truth: Scene | None = None
    given: tuple[str, ...] = ()

    def predict(self, z0: Tensor, scene: Scene, *rest: Any) -> Prediction:
        """See `FitProblem.predict`."""
        return super().predict(z0, self.correct(scene), *rest)

    def correct(self, scene: Scene) -> Scene:
        """The scene with what is given."""
        return replace(scene, **{name: getattr(self.truth, name) for name in self.given})


def main() -> None:
    """Read options, fit, print and write."""
    run_command(_oracle, Options, __doc__)


def _oracle(options: DictConfig, console: Console) -> None:
    if unknown := set(options.given) - GIVEN.keys():
        raise ValueError(f"given={sorted(unknown)} is unknown; choose from {list(GIVEN)}")
    model = FitDiff.load(Path(options.run) / "model")
    preset = compose_preset(options.preset)
    people = hard_people(model, options.n)
    detectors = [build(model.config[kind], kind) for kind in ("detector", "landmarks")]
    faces = find_faces(people["image"][:, PHOTO], *detectors)
    results: dict[str, dict[str, np.ndarray]] = {}
    with Progress(console=console) as progress:
        for name in progress.track(options.given, description="fitting with one thing given"):
            results[name] = fit_given(model, preset, people, faces, GIVEN[name], options.batch)
            _write(options, results)
    print(table(results))


def _write(options: DictConfig, results: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """What is there so far."""
    out = Path(options.out)
    write_json(out / "oracle.json", {name: {k: v.tolist() for k, v in row.items()} for name, row in results.items()})
    found = len(next(iter(next(iter(results.values())).values())))
    chosen = f"n={options.n}" + (f" preset='{options.preset}'" if options.preset else "")
    command = f"python -m experiments.fitting.oracle {chosen}"
    text = f"Command: `{command}`. Date: {date.today()}. Faces found: {found} of {options.n}.\n\n{table(results)}\n"
    write_atomically(out / "oracle.md", text.encode())
    if options.publish:
        replace_generated(HERE / "README.md", text, "oracle")


def fit_given(
    model: Any,
    preset: Preset,
    people: Mapping[str, Tensor],
    faces: list[DetectedFace | None],
    given: tuple[str, ...],
    batch: int,
) -> dict[str, np.ndarray]:
    """Scores of all found people, (n,) each."""
    scorer, solver = Scorer(model), fitted(preset.fitting, preset.sampler, preset.terms)
    found = [row for row, face in enumerate(faces) if face is not None]
    parts = []
    for start in range(0, len(found), batch):
        rows = found[start : start + batch]
        some = {key: value[rows].to(model.device) for key, value in people.items()}
        shown = [faces[row] for row in rows]
        if "landmarks" in given:
            shown = [
                with_true_landmarks(face, points)
                for face, points in zip(shown, some["landmarks"][:, PHOTO], strict=True)
            ]
        problem, square = photo_problem(model, shown, preset.terms, preset.size)
        truth = Truth.of(some, square)
        problem = give(problem, truth, given)
        z, scene = solver(problem)
        parts.append(scorer.of_truth(z, problem.correct(scene), truth))
    return {key: torch.cat([part[key] for part in parts]).cpu().numpy() for key in parts[0]}


def with_true_landmarks(face: DetectedFace, landmarks_682: Tensor) -> DetectedFace:
    """The face with its landmarks as they were made, NDC of the portrait."""
    pixels = ndc_to_pixels(landmarks_682, face.photo.image.shape[0])
    return replace(face, landmarks=pixels.float().cpu().numpy())


def give(problem: FitProblem, truth: Truth, given: tuple[str, ...]) -> GivenProblem:
    """The problem with parts of scene or z given."""
    model = problem.model
    known = None
    for part, where in zip(("shape", "maps"), model.latent.parts, strict=True):
        if part in given:
            z = model.latent.pack(truth.identity, model.autoencoder.encode(truth.maps.to_tensor()))
            mask = torch.zeros(z.shape[1], dtype=torch.bool, device=z.device)
            mask[where] = True
            known = Known(z, mask)
    of_scene = tuple(name for name in given if name in ("camera", "lighting", "expression"))
    return recast(problem, GivenProblem, known=known, truth=truth.scene, given=of_scene)


def table(results: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """Means with 95% intervals, and by how much each differs from giving nothing, paired."""
    rows = []
    for name, row in results.items():
        cells = [interval(row[key], spec) for key, (_, spec) in COLUMNS.items()]
        rows.append([name, *cells])
        if name != "nothing" and "nothing" in results:
            rows.append(
                ["… difference", *(difference(row[k], results["nothing"][k], s) for k, (_, s) in COLUMNS.items())]
            )
    return markdown_table(["given", *(label for label, _ in COLUMNS.values())], rows)


if __name__ == "__main__":
    main()
