"""Guided reverse diffusion: Algorithm 1 of the supplement, on a page; and plain Adam on z as its rival.

Both minimise the same G over the same renderings; they differ in where the prior comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fitdiff.alignment.crop import crop
from fitdiff.diffusion.sampler import conditioned
from fitdiff.registry import register
from fitdiff.types import GuidanceTerm, IdentityFeatures, Observation, Prediction, Scene, composite

LIGHT_STRENGTH = 1.2
"""Prior of the radiance of all lights together: the mean of the synthetic portraits (`data.people.scenes`)."""

OnStep = Callable[[int, int, dict[str, float]], None]
"""Called after each step with (steps done, all steps, mean value of each weighted term)."""


@dataclass(frozen=True)
class FitProblem:
    """What is to be fitted, for a batch of B photos.

    Attributes:
        model: a `FitDiff`. terms: guidance terms by name. observation: the photos. scene: the first estimate.
        fit_scene: False keeps the scene as given (known camera, light and expression).
    """

    model: Any
    terms: Mapping[str, GuidanceTerm]
    observation: Observation
    scene: Scene
    fit_scene: bool = True

    def predict(self, z0: Tensor, scene: Scene) -> Prediction:
        """Render z0 (B, N) in the scene, in the observation's frame. Differentiable in both."""
        model, observation = self.model, self.observation
        vertices = model.vertices(z0, scene.expression)
        size = observation.image.shape[-1]
        rendering = model.renderer(vertices, model.maps(z0), scene.camera, scene.lighting, size)
        # Outside of the face the network sees the photo: hair and background must not count against the avatar.
        image = composite(rendering, observation.image)
        features = model.identity(crop(image, observation.crop, model.identity.size))
        return Prediction(rendering, features)

    def losses(self, z0: Tensor, scene: Scene) -> dict[str, Tensor]:
        """Weighted terms of G (Eq. 4), each (B,)."""
        prediction = self.predict(z0, scene)
        return {name: term.weight * term(prediction, self.observation) for name, term in self.terms.items()}


@dataclass(frozen=True)
class FitResult:
    """Outcome of a fit.

    Attributes:
        z: (B, N). scene: fitted.
        history: one dict a step: each weighted term (B,), the sum `G`, and `t` where there is one.
        grad_norms: norm of each weighted term's gradient with respect to z at the result, (B,).
    """

    z: Tensor
    scene: Scene
    history: list[dict[str, Tensor]] = field(default_factory=list)
    grad_norms: dict[str, Tensor] = field(default_factory=dict)


class SceneOptimiser:
    """Adam on camera, light and expression, each with a step size in its own unit, decaying to a tenth.

    The light's directions are fixed: a sum of lights from fixed directions is a convex family, in which only colours
    have to be found. Weak priors hold what a photo does not determine: grey light of a usual strength (else skin tone
    and light trade places), and small expressions.

    Args:
        scene: start. steps: number of updates to come.
        rates: step size per leaf: rotation rad, translation mm, colours linear radiance, expression weights.
        light_prior, expression_prior: weights of the penalties.
    """

    RATES = {"rotation": 0.004, "translation": 1.0, "ambient": 0.015, "colours": 0.015, "expression": 0.015}  # noqa: RUF012

    def __init__(self, scene: Scene, steps: int, light_prior: float, expression_prior: float) -> None:
        self.leaves = {key: value.detach().clone() for key, value in scene.to_tensors().items()}
        for key in self.RATES:
            self.leaves[key].requires_grad_(True)
        self.steps, self.done = steps, 0
        self.light_prior, self.expression_prior = light_prior, expression_prior
        self.adam = torch.optim.Adam(
            [{"params": [self.leaves[k]], "lr": r} for k, r in self.RATES.items()], betas=(0.8, 0.95)
        )

    @property
    def scene(self) -> Scene:
        """The current estimate; leaves require gradients."""
        return Scene.from_tensors(self.leaves)

    def prior(self) -> Tensor:
        """(B,) penalties."""
        light = torch.cat([self.leaves["ambient"][:, None], self.leaves["colours"]], 1)
        grey = light.mean(2, keepdim=True)
        chroma = (light - grey).square().sum((1, 2))
        strength = (light.mean(2).sum(1) / LIGHT_STRENGTH).clamp_min(1e-3).log().square()
        return self.light_prior * (chroma + strength) + self.expression_prior * self.leaves["expression"].square().sum(
            1
        )

    def step(self) -> None:
        """Apply the gradients that are in the leaves, then project onto what is possible."""
        decay = 1 - 0.9 * self.done / max(1, self.steps - 1)
        for group, rate in zip(self.adam.param_groups, self.RATES.values(), strict=True):
            group["lr"] = rate * decay
        self.adam.step()
        self.adam.zero_grad()
        self.done += 1
        with torch.no_grad():
            for key in ("ambient", "colours"):
                self.leaves[key].clamp_(min=0)
            self.leaves["expression"].clamp_(0, 1)


class _Fitting:
    """What the two methods share: the gradient of G, the record of it, and the scene's updates."""

    steps: int
    light_prior: float
    expression_prior: float

    def _gradient(self, problem: FitProblem, scenes: SceneOptimiser, z0: Tensor, wrt: Tensor, extra: Tensor | float = 0.0) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip # noqa: E501
        """dG/d`wrt` (B, N), with the scene's gradients left in its leaves; and the weighted terms.

        Photos are independent, so one backward pass of the sum gives every photo's own gradient.
        """
        terms = problem.losses(z0, scenes.scene)
        total = torch.stack(list(terms.values())).sum(0)
        leaves = [scenes.leaves[key] for key in scenes.RATES] if problem.fit_scene else []
        objective = total + extra + (scenes.prior() if problem.fit_scene else 0.0)
        grad, *scene_grads = torch.autograd.grad(objective.sum(), [wrt, *leaves], allow_unused=True)
        for leaf, leaf_grad in zip(leaves, scene_grads, strict=True):
            leaf.grad = leaf_grad
        record = {name: value.detach() for name, value in terms.items()}
        return grad, {**record, "G": total.detach()}

    def _finish(self, problem: FitProblem, scenes: SceneOptimiser, z: Tensor, history: Any) -> FitResult:
        z = z.detach()
        leaf = z.clone().requires_grad_(True)
        scene = scenes.scene.detach()
        terms = problem.losses(leaf, scene)
        norms = {
            name: torch.autograd.grad(value.sum(), leaf, retain_graph=True)[0].norm(dim=1)
            for name, value in terms.items()
        }
        return FitResult(z, scene, history, norms)

    def _report(self, on_step: OnStep | None, done: int, record: dict[str, Tensor]) -> None:
        if on_step is not None:
            on_step(done, self.steps, {name: value.mean().item() for name, value in record.items() if name != "t"})


@register("fitting", "guided")
class GuidedFitting(_Fitting):
    """Algorithm 1: denoise from noise, and at every step push eps down the gradient of G.

    Args:
        steps: T of section 3.1. scale: gradient scale s of section 3.
        through_unet: differentiate through the denoiser; otherwise dG/dz0_hat stands for it (about half the time).
        z0_clamp: bound of z0_hat, in deviations.
        size: side of the fitted photo crop in pixels.
        cfg_scale: classifier-free guidance of the denoiser; 1 is off.
        light_prior, expression_prior: see `SceneOptimiser`.
    """

    def __init__(
        self,
        *,
        steps: int = 50,  # T
        scale: float = 75.0,  # s
        through_unet: bool = True,
        z0_clamp: float = 4.0,
        size: int = 224,
        cfg_scale: float = 1.0,
        light_prior: float = 1.0,
        expression_prior: float = 0.02,
    ) -> None:
        self.steps, self.scale, self.through_unet, self.z0_clamp = steps, scale, through_unet, z0_clamp
        self.size, self.cfg_scale = size, cfg_scale
        self.light_prior, self.expression_prior = light_prior, expression_prior

    def __call__(
        self, problem: FitProblem, sampler: Any, generator: torch.Generator, on_step: OnStep | None = None
    ) -> FitResult:
        """Fit a batch of photos from fresh noise."""
        model, schedule = problem.model, problem.model.schedule
        embedding = problem.observation.features.embedding
        z = torch.randn(len(embedding), model.latent.length, generator=generator).to(model.device)
        scenes = SceneOptimiser(problem.scene, self.steps, self.light_prior, self.expression_prior)
        predict_eps = conditioned(model.denoiser, embedding, self.cfg_scale)
        history: list[dict[str, Tensor]] = []
        steps = sampler.timesteps(schedule, self.steps)
        for t, t_previous in zip(steps, (*steps[1:], -1), strict=True):
            z_t = z.detach().requires_grad_(self.through_unet)
            with torch.set_grad_enabled(self.through_unet):
                eps = predict_eps(z_t, torch.full((len(z),), t, device=z.device))
            alpha_bar = float(schedule.alpha_bar[t])
            z0 = schedule.predict_z0(z_t, t, eps).clamp(-self.z0_clamp, self.z0_clamp)
            if not self.through_unet:
                z0 = z0.detach().requires_grad_(True)
            grad, record = self._gradient(problem, scenes, z0, z_t if self.through_unet else z0)
            with torch.no_grad():
                eps = eps + self.scale * (1 - alpha_bar) ** 0.5 * grad
                z = sampler.step(schedule, z_t.detach(), t, t_previous, eps, generator=generator)
            if problem.fit_scene:
                scenes.step()
            history.append({**record, "t": torch.full((len(z),), float(t))})
            self._report(on_step, len(history), record)
        return self._finish(problem, scenes, z, history)


@register("fitting", "adam")
class AdamFitting(_Fitting):
    """The rival: gradient descent on z under the Gaussian prior `prior * mean(z^2)`, from z = 0 (the mean face).

    Args:
        steps: of Adam. learning_rate: in deviations of z. prior: weight of the prior, per photo.
        size, light_prior, expression_prior: as in `GuidedFitting`.
    """

    def __init__(
        self,
        *,
        steps: int = 50,
        learning_rate: float = 0.1,
        prior: float = 0.1,
        size: int = 224,
        light_prior: float = 1.0,
        expression_prior: float = 0.02,
    ) -> None:
        self.steps, self.learning_rate, self.prior, self.size = steps, learning_rate, prior, size
        self.light_prior, self.expression_prior = light_prior, expression_prior

    def __call__(
        self, problem: FitProblem, sampler: Any, generator: torch.Generator, on_step: OnStep | None = None
    ) -> FitResult:
        """Fit a batch of photos; `sampler` and `generator` are not used."""
        n = len(problem.observation.image)
        z = torch.zeros(n, problem.model.latent.length, device=problem.model.device, requires_grad=True)
        adam = torch.optim.Adam([z], lr=self.learning_rate)
        scenes = SceneOptimiser(problem.scene, self.steps, self.light_prior, self.expression_prior)
        history: list[dict[str, Tensor]] = []
        for _ in range(self.steps):
            z.grad, record = self._gradient(problem, scenes, z, z, extra=self.prior * z.square().mean(1))
            adam.step()
            if problem.fit_scene:
                scenes.step()
            history.append(record)
            self._report(on_step, len(history), record)
        return self._finish(problem, scenes, z, history)


def observed_features(model: Any, image_B3SS: Tensor, transform_B23: Tensor) -> IdentityFeatures:
    """Identity features of the aligned crops of photos, without gradient."""
    with torch.no_grad():
        return model.identity(crop(image_B3SS, transform_B23, model.identity.size))
