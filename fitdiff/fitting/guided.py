"""Guided reverse diffusion: Algorithm 1 of the supplement, on a page."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fitdiff.diffusion.sampler import conditioned
from fitdiff.fitting.objective import Fitting
from fitdiff.fitting.problem import FitProblem, FitResult, OnStep
from fitdiff.fitting.scene import SceneOptimiser
from fitdiff.registry import register


@register("fitting", "guided")
class GuidedFitting(Fitting):
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
        self,
        problem: FitProblem,
        sampler: Any,
        z_T: Tensor,
        generator: torch.Generator | None = None,
        on_step: OnStep | None = None,
    ) -> FitResult:
        """Fit the people of a batch of photos.

        Args:
            problem: of P people. sampler: takes the steps. z_T: (P, N) noise to start from, as from `first_noise`.
            generator: of the noise that stochastic samplers add. on_step: progress.
        """
        model, schedule, known = problem.model, problem.model.schedule, problem.known
        z = z_T
        scenes = SceneOptimiser(problem.scene, self.steps, self.light_prior, self.expression_prior)
        predict_eps = conditioned(model.denoiser, problem.embedding, self.cfg_scale)
        history: list[dict[str, Tensor]] = []
        steps = sampler.timesteps(schedule, self.steps)
        for t, t_previous in zip(steps, (*steps[1:], -1), strict=True):
            z = z if known is None else known.at(schedule, z, t, z_T)
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
        z = z if known is None else known.at(schedule, z, -1, z_T)
        return self._finish(problem, scenes, z, history)
