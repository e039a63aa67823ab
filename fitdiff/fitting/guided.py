"""Guided reverse diffusion: Algorithm 1 of the supplement, on a page, and the refinement that may follow it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fitdiff.diffusion.sampler import EpsFunction, Generators, conditioned
from fitdiff.fitting.objective import Fitting
from fitdiff.fitting.problem import FitProblem, FitResult, OnStep
from fitdiff.fitting.refine import LearnedPrior
from fitdiff.fitting.scene import SceneOptimiser
from fitdiff.registry import register

BETAS = (0.9, 0.99)
"""Of Adam, for 25 to 50 steps: its second moment must be there early."""


@register("fitting", "guided")
class GuidedFitting(Fitting):
    """Algorithm 1: denoise from noise, and at every step push eps down the gradient of G.

    The defaults are the paper's. `fitting=refined` is a preset of other values, with the evidence in
    experiments/fitting.

    Args:
        steps: T of section 3.1. scale: gradient scale s of section 3.
        adaptive: 0 is Algorithm 1. Else the size, in deviations of z, of Adam's step that z0_hat takes instead of one
            of s times the gradient: each position of z then moves at its own pace, whatever the units of G.
        temperature: deviation of the noise that the reverse process starts from. 1 draws a sample of the posterior; 0
            follows the mean and gives a single, more likely face.
        through_unet: differentiate through the denoiser; otherwise dG/dz0_hat stands for it.
        z0_clamp: bound of z0_hat, in deviations.
        cfg_scale: classifier-free guidance of the denoiser; 1 is off.
        refine_steps: steps of Adam on z after the reverse process, under G and the learned prior (`LearnedPrior`).
        refine_rate: their size in deviations of z, decaying to a tenth. refine_prior: weight of the prior.
        size, crop_jitter, light, white_balance, light_strength, harmonics_prior, expression_prior: see `Fitting`.
    """

    def __init__(
        self,
        *,
        steps: int = 50,  # T
        scale: float = 75.0,  # s
        adaptive: float = 0.0,
        temperature: float = 1.0,
        through_unet: bool = True,
        z0_clamp: float = 4.0,
        cfg_scale: float = 1.0,
        refine_steps: int = 0,
        refine_rate: float = 0.05,
        refine_prior: float = 1.0,
        size: int = 224,
        crop_jitter: float = 0.0,
        light: str = "fitted",
        white_balance: float = 4.0,
        light_strength: float = 4.0,
        harmonics_prior: float = 0.3,
        expression_prior: float = 0.02,
    ) -> None:
        super().__init__(size, crop_jitter, light, white_balance, light_strength, harmonics_prior, expression_prior)
        if adaptive and through_unet:
            raise ValueError("fitting.adaptive moves z0_hat: give fitting.through_unet=false with it")
        self.steps, self.scale, self.adaptive, self.temperature = steps, scale, adaptive, temperature
        self.through_unet, self.z0_clamp, self.cfg_scale = through_unet, z0_clamp, cfg_scale
        self.refine_steps, self.refine_rate, self.refine_prior = refine_steps, refine_rate, refine_prior

    def __call__(
        self,
        problem: FitProblem,
        sampler: Any,
        z_T: Tensor,
        generator: Generators | None = None,
        on_step: OnStep | None = None,
    ) -> FitResult:
        """Fit the people of a batch of photos.

        Args:
            problem: of P people. sampler: takes the steps. z_T: (P, N) noise to start from, as from `first_noise`.
            generator: of the noise that stochastic samplers add. on_step: progress.
        """
        model, schedule, known = problem.model, problem.model.schedule, problem.known
        total = self.steps + self.refine_steps
        z = z_T = self.temperature * z_T
        scenes = self._scenes(problem, total)
        predict_eps = conditioned(model.denoiser, problem.embedding, self.cfg_scale)
        adaptive_step = _AdaptiveStep(z, self.adaptive)
        history: list[dict[str, Tensor]] = []
        steps = sampler.timesteps(schedule, self.steps)
        alpha_bars = schedule.alpha_bar[list(steps)].tolist()
        for t, t_previous, alpha_bar in zip(steps, (*steps[1:], -1), alpha_bars, strict=True):
            z = z if known is None else known.at(schedule, z, t, z_T)
            z_t = z.detach().requires_grad_(self.through_unet)
            with torch.set_grad_enabled(self.through_unet):
                eps = predict_eps(z_t, torch.full((len(z),), t, device=z.device))
            z0 = schedule.predict_z0(z_t, t, eps).clamp(-self.z0_clamp, self.z0_clamp)
            z0 = z0 if known is None else known.at(schedule, z0, -1, z_T)
            if not self.through_unet:
                z0 = z0.detach().requires_grad_(True)
            grad, record = self._gradient(problem, scenes, z0, z_t if self.through_unet else z0)
            with torch.no_grad():
                if self.adaptive:
                    eps = schedule.predict_eps(z_t, t, z0 + adaptive_step(grad))
                else:
                    eps = eps + self.scale * (1 - alpha_bar) ** 0.5 * grad
                z = sampler.step(schedule, z_t.detach(), t, t_previous, eps, generator=generator)
            scenes.step()
            history.append({**record, "t": z.new_full((len(z),), float(t))})
            self._report(on_step, len(history), total, record)
        z = z if known is None else known.at(schedule, z, -1, z_T)
        if self.refine_steps:
            z = self._refine(problem, scenes, predict_eps, z, history, on_step)
        return self._finish(problem, scenes, z, history)

    def _refine(
        self,
        problem: FitProblem,
        scenes: SceneOptimiser,
        predict_eps: EpsFunction,
        z: Tensor,
        history: list[dict[str, Tensor]],
        on_step: OnStep | None,
    ) -> Tensor:
        """Adam on z (P, N) under G and the learned prior; known parts stay."""
        prior = LearnedPrior(problem.model.schedule, predict_eps, problem.model.latent.used)
        free = torch.ones((), device=z.device) if problem.known is None else ~problem.known.mask
        z = z.clone().requires_grad_(True)
        adam = torch.optim.Adam([z], betas=BETAS)
        for i in range(self.refine_steps):
            adam.param_groups[0]["lr"] = self.refine_rate * (1 - 0.9 * i / max(1, self.refine_steps - 1))
            grad, record = self._gradient(problem, scenes, z, z)
            z.grad = free * (grad + self.refine_prior * prior.gradient(z.detach(), i))
            adam.step()
            scenes.step()
            history.append({**record, "t": z.new_zeros(len(z))})
            self._report(on_step, len(history), self.steps + self.refine_steps, record)
        return z.detach()


class _AdaptiveStep:
    """Adam's step for a quantity that something else moves as well: the moments of its gradients, nothing more."""

    def __init__(self, like: Tensor, size: float) -> None:
        self.move = torch.zeros_like(like, requires_grad=True)
        self.adam = torch.optim.Adam([self.move], lr=size, betas=BETAS)

    def __call__(self, grad: Tensor) -> Tensor:
        """The step for the next gradient, of the gradient's shape."""
        self.move.zero_()
        self.move.grad = grad
        self.adam.step()
        return self.move.detach()
