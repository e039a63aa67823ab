"""Ways to fit people, from the mean face to guided diffusion, as functions of a problem: z and scene come out.

Everything that is fitted starts from the same first scene.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from omegaconf import OmegaConf
from sklearn.linear_model import Ridge
from torch import Tensor

from fitdiff.data.shards import Samples
from fitdiff.data.sources import build_data
from fitdiff.diffusion.sampler import conditioned, sample
from fitdiff.evaluation.landmark_fit import fit_identity, fit_landmarks
from fitdiff.fitting import FitProblem, first_noise
from fitdiff.registry import build
from fitdiff.training.latents import encode_maps
from fitdiff.types import GuidanceTerm, Prediction, Scene

P = TypeVar("P", bound=FitProblem)
Solver = Callable[[FitProblem], tuple[Tensor, Scene]]
"""Problem of B photos -> z (B, N) and scene."""


@dataclass(frozen=True)
class Fit:
    """z (B, N) and scene of some photos, and the seconds that each took."""

    z: Tensor
    scene: Scene
    seconds: float

    @classmethod
    def of(cls, solve: Solver, problem: FitProblem) -> Fit:
        """Fit now."""
        began = time.perf_counter()
        z, scene = solve(problem)
        if z.is_cuda:
            torch.cuda.synchronize()
        return cls(z, scene, (time.perf_counter() - began) / len(scene.expression))


class RidgeRegression:
    """z from the identity embedding, linearly: the baseline that a real conditional model must beat."""

    def __init__(self, model: Any, train: Samples, latents: Tensor, alpha: float = 100.0) -> None:
        embedding = train.load("embedding")
        z = model.latent.pack(train.load("identity"), latents)
        self.mean, self.std = embedding.mean((0, 1)), embedding.std((0, 1))
        views = embedding.shape[1]
        inputs = ((embedding - self.mean) / self.std).flatten(0, 1).numpy()
        self.ridge = Ridge(alpha=alpha).fit(inputs, z.repeat_interleave(views, 0).numpy())

    @classmethod
    def of_model(cls, model: Any) -> RidgeRegression:
        """Learnt from the model's own training people, which are made if they are not there."""
        config = OmegaConf.create(dict(model.config))
        people, _ = build_data(config, model.shape_model, model.identity, model.renderer, model.versions)
        people.prepare()
        return cls(model, people.train, encode_maps(model, people.train))

    def __call__(self, embedding_BD: Tensor) -> Tensor:
        """(B, D) -> (B, N)."""
        inputs = ((embedding_BD.cpu() - self.mean) / self.std).numpy()
        return torch.from_numpy(self.ridge.predict(inputs)).float().to(embedding_BD.device)


def mean_face(problem: FitProblem) -> tuple[Tensor, Scene]:
    """z = 0, in the first scene."""
    embedding = problem.embedding
    return embedding.new_zeros(len(embedding), problem.model.latent.length), problem.scene


def regressed(ridge: Callable[[], RidgeRegression]) -> Solver:
    """Ridge regression from the embedding, in the first scene."""
    return lambda problem: (ridge()(problem.embedding), problem.scene)


def from_landmarks(problem: FitProblem) -> tuple[Tensor, Scene]:
    """The classical 3DMM: shape, pose and expression by the landmarks and a Gaussian prior; the mean face's maps."""
    model, scene, landmarks = problem.model, problem.scene, problem.observation.landmarks
    if problem.fit_scene:
        camera = scene.camera
        identity, camera, expression = fit_landmarks(model.shape_model, landmarks, camera.focal, camera.principal_point)
        scene = replace(scene, camera=camera, expression=expression)
    else:
        identity = fit_identity(model.shape_model, landmarks, scene.camera, scene.expression)
    z, _ = mean_face(problem)
    shape, _ = model.latent.parts
    z[:, shape] = identity
    return z, scene


def unguided(sampler: Any, steps: int, samples: int = 1, seed: int = 0) -> Solver:
    """The mean of a few samples for the embedding, in the first scene."""

    @torch.no_grad()
    def solve(problem: FitProblem) -> tuple[Tensor, Scene]:
        model, embedding = problem.model, problem.embedding
        noise = first_noise(model, len(embedding), samples, seed)
        predict_eps = conditioned(model.denoiser, embedding.repeat_interleave(samples, 0))
        generator = torch.Generator(model.device).manual_seed(seed)
        z = sample(predict_eps, sampler, model.schedule, noise, steps, generator)
        return z.unflatten(0, (-1, samples)).mean(1), problem.scene

    return solve


def fitted(
    fitting: Mapping[str, Any], sampler: Mapping[str, Any], terms: Mapping[str, GuidanceTerm], seed: int = 0
) -> Solver:
    """By a registered fitting under the given terms.

    Args:
        fitting, sampler: config nodes.
    """

    def solve(problem: FitProblem) -> tuple[Tensor, Scene]:
        model = problem.model
        noise = first_noise(model, len(problem.embedding), 1, seed)
        generator = torch.Generator(model.device).manual_seed(seed)
        method, steps = build(fitting, "fitting"), build(sampler, "sampler")
        result = method(replace(problem, terms=dict(terms)), steps, noise, generator)
        return result.z, result.scene

    return solve


def around(solver: Solver, centre: Callable[[FitProblem], Tensor]) -> Solver:
    """A solver whose prior has another mean than 0: it sees z - centre.

    Args:
        centre: problem -> (B, N).
    """

    def solve(problem: FitProblem) -> tuple[Tensor, Scene]:
        mean = centre(problem)
        z, scene = solver(recast(problem, ShiftedProblem, centre=mean))
        return z + mean, scene

    return solve


@dataclass(frozen=True)
class ShiftedProblem(FitProblem):
    """A problem in terms of z - centre (P, N)."""

    centre: Tensor | float = 0.0

    def predict(self, z0: Tensor, scene: Scene, *rest: Any) -> Prediction:
        """See `FitProblem.predict`."""
        return super().predict(z0 + self.centre, scene, *rest)


def recast(problem: FitProblem, kind: type[P], **extra: Any) -> P:
    """The same problem as one of another kind, with that kind's own fields, or others changed."""
    return kind(**{field.name: getattr(problem, field.name) for field in fields(FitProblem)} | extra)
