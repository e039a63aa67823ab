"""Fits of held-out people and their scores, kept on disk: what `benchmark=people` is made of."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fitdiff.config import config_hash
from fitdiff.data.people import VERSION
from fitdiff.evaluation import methods
from fitdiff.evaluation.benchmark import Context
from fitdiff.evaluation.judge import build_judge
from fitdiff.evaluation.methods import Fit, RidgeRegression, Solver
from fitdiff.evaluation.people import PHOTO, Scorer, Truth, find_faces, known_problem, photo_problem
from fitdiff.evaluation.portraits import HeldOutPeople
from fitdiff.fitting import FitProblem
from fitdiff.registry import build, config_of
from fitdiff.storage import read_tensors, write_tensors
from fitdiff.types import Scene

SCORES = 1
"""Raise when the same settings give other fits or scores: what is kept is known by it."""

SCORE = "score/"
DRAWS = 8
"""Samples of which `unguided_mean` is the mean."""


@dataclass(frozen=True)
class Method:
    """One that competes: what it does, and the config that decides it. `prepare` is called before the clock runs."""

    name: str
    solve: Solver
    config: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[], Any] = bool


@dataclass(frozen=True)
class Part:
    """A method's results of a batch of `people`: `rows` of those F whose faces were found, fits, metric -> (F,)."""

    people: range
    rows: list[int]
    fit: Fit | None
    scores: dict[str, np.ndarray]


class PeopleScores:
    """Scores the methods of a `People` benchmark.

    Attributes:
        methods: that compete. people: portraits and truth.
    """

    def __init__(self, asked: Any, context: Context) -> None:
        self.asked, self.context, self.model = asked, context, context.model
        self.people = HeldOutPeople(self.model, asked.portraits)
        self.size = build(context.node("fitting"), "fitting").size
        everyone = methods_of(context, self.size)
        self.methods = [everyone[name]() for name in asked.methods]
        self.folder = context.out / "parts"
        self._scorers = self._build_scorers()  # now: a judge that cannot be built is told before the first fit

    @functools.cached_property
    def key(self) -> str:
        """Of all that decides every part."""
        asked, nodes = self.asked, [self.context.node(kind) for kind in ("detector", "landmarks")]
        return config_hash(
            SCORES, VERSION, self.model.fingerprint(), self.model.config["renderer"], self.size, self.context.seed,
            nodes, asked.portraits, asked.known, asked.surface, asked.judge,
        )  # fmt: skip

    def part(self, method: Method, batch: range) -> Part:
        """The stored result, or one that is made and stored now."""
        digits = config_hash(self.key, method.name, method.config)
        path = self.folder / f"{batch.start:05d}-{batch.stop - 1:05d}-{method.name}-{digits}.safetensors"
        if not path.exists():
            write_tensors(path, self.make(method, batch))
        tensors = read_tensors(path)
        scores = {k.removeprefix(SCORE): v.numpy() for k, v in tensors.items() if k.startswith(SCORE)}
        rows = tensors["rows"].tolist()
        if not rows:
            return Part(batch, [], None, {})
        tensors = {key: value.to(self.model.device) for key, value in tensors.items()}
        seconds = float(scores["seconds"][0])
        return Part(batch, rows, Fit(tensors["z"], Scene.from_tensors(tensors), seconds), scores)

    def make(self, method: Method, batch: range) -> dict[str, Tensor]:
        """Fit a batch and score it, as tensors."""
        rows, problem, truth = self.problem(batch)
        if problem is None or truth is None:
            return {"rows": torch.zeros(0, dtype=torch.int64)}
        method.prepare()
        fit = Fit.of(method.solve, problem)
        scores = self.score(fit, problem, truth, rows)
        stored = {f"{SCORE}{name}": value.float().cpu() for name, value in scores.items()}
        return {"rows": torch.tensor(rows), "z": fit.z, **fit.scene.to_tensors(), **stored}

    def problem(self, batch: range) -> tuple[list[int], FitProblem | None, Truth | None]:
        """Those of a batch whose faces are found, and nothing where there are none. Kept for the next method."""
        if getattr(self, "_latest", (None,))[0] != batch:
            self._latest = (batch, self._problem(batch))
        return self._latest[1]

    def _problem(self, batch: range) -> tuple[list[int], FitProblem | None, Truth | None]:
        people = self.people.gather(batch)
        if self.asked.known:
            some = {key: value.to(self.model.device) for key, value in people.items()}
            return list(batch), known_problem(self.model, some, {}), Truth.of(some)
        found = find_faces(people["image"][:, PHOTO], *self._detectors)
        kept = [i for i, face in enumerate(found) if face is not None]
        if not kept:
            return [], None, None
        some = {key: value[kept].to(self.model.device) for key, value in people.items()}
        problem, square = photo_problem(self.model, [found[i] for i in kept], {}, self.size)
        return [batch[i] for i in kept], problem, Truth.of(some, square)

    @functools.cached_property
    def _detectors(self) -> list[Any]:
        return [build(self.context.node(kind), kind) for kind in ("detector", "landmarks")]

    def _build_scorers(self) -> dict[str, Scorer]:
        """By what their metrics begin with: the model's own network, and the second judge."""
        scorers = {"": Scorer(self.model)}
        if self.asked.judge:
            scorers[f"{self.asked.judge}_"] = Scorer(self.model, build_judge(self.model, self.asked.judge))
        return scorers

    def score(self, fit: Fit, problem: FitProblem, truth: Truth, rows: list[int]) -> dict[str, Tensor]:
        """Every metric, (F,) each."""
        scores: dict[str, Tensor] = {}
        for prefix, scorer in self._scorers.items():
            found = {**scorer.of_photo(problem, fit.z, fit.scene), **scorer.of_truth(fit.z, fit.scene, truth)}
            scores |= {f"{prefix}{k}": v for k, v in found.items() if not prefix or k.endswith("_id")}
        if self.asked.surface:
            scores |= self._surface(fit, truth, rows)
        return {**scores, "seconds": torch.full((len(rows),), fit.seconds)}

    def _surface(self, fit: Fit, truth: Truth, rows: list[int]) -> dict[str, Tensor]:
        from fitdiff.evaluation.people_surface import scan_errors

        return scan_errors(self.model, self.model.vertices(fit.z), self.model.shape_model(truth.identity), rows)


def methods_of(context: Context, size: int) -> dict[str, Callable[[], Method]]:
    """How to build each method, by name: mean face, ridge regression from the embedding, the classical fit of the
    shape model to landmarks, Adam on G alone without a diffusion prior, one unguided sample of the diffusion model, the
    mean of eight, and the chosen fitting."""
    model, seed = context.model, context.seed
    nodes = {kind: context.node(kind) for kind in ("sampler", "fitting", "guidance")}
    terms = functools.cache(lambda: {name: build(node, "guidance") for name, node in nodes["guidance"].items()})
    steps = build(nodes["fitting"], "fitting").steps
    drawing = {"sampler": nodes["sampler"], "steps": steps}

    def draw(name: str, samples: int) -> Method:
        sampler = build(nodes["sampler"], "sampler")
        return Method(name, methods.unguided(sampler, steps, samples, seed), {**drawing, "samples": samples})

    def descend() -> Method:
        node = config_of("fitting", "adam", size=size)
        config = {"fitting": node, "guidance": nodes["guidance"]}
        return Method("adam", methods.fitted(node, nodes["sampler"], terms(), seed), config)

    def ridge() -> Method:
        regression = functools.cache(lambda: RidgeRegression.of_model(model))
        return Method("ridge", methods.regressed(regression), {"data": model.config["data"]}, regression)

    return {
        "mean_face": lambda: Method("mean_face", methods.mean_face),
        "ridge": ridge,
        "landmarks": lambda: Method("landmarks", methods.from_landmarks),
        "adam": descend,
        "unguided": lambda: draw("unguided", 1),
        "unguided_mean": lambda: draw("unguided_mean", DRAWS),
        "fit": lambda: Method("fit", methods.fitted(nodes["fitting"], nodes["sampler"], terms(), seed), nodes),
    }
