"""The rival of guided diffusion: plain Adam on z, which minimises the same G over the same renderings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fitdiff.diffusion.sampler import Generators
from fitdiff.fitting.objective import Fitting
from fitdiff.fitting.problem import FitProblem, FitResult, OnStep
from fitdiff.registry import register


@register("fitting", "adam")
class AdamFitting(Fitting):
    """The rival: gradient descent on z under the Gaussian prior `prior * mean(z^2)`, from z = 0 (the mean face).

    Args:
        steps: of Adam. learning_rate: in deviations of z. prior: weight of the prior, per photo.
        size, crop_jitter, light, white_balance, light_strength, harmonics_prior, expression_prior: see `Fitting`.
    """

    def __init__(
        self,
        *,
        steps: int = 50,
        learning_rate: float = 0.1,
        prior: float = 0.1,
        size: int = 224,
        crop_jitter: float = 0.0,
        light: str = "fitted",
        white_balance: float = 4.0,
        light_strength: float = 4.0,
        harmonics_prior: float = 0.3,
        expression_prior: float = 0.02,
    ) -> None:
        super().__init__(size, crop_jitter, light, white_balance, light_strength, harmonics_prior, expression_prior)
        self.steps, self.learning_rate, self.prior = steps, learning_rate, prior

    def __call__(
        self,
        problem: FitProblem,
        sampler: Any,
        z_T: Tensor,
        generator: Generators | None = None,
        on_step: OnStep | None = None,
    ) -> FitResult:
        """Fit the people of a batch of photos from z = 0; of the arguments of `GuidedFitting` only the shape of z_T."""
        z = torch.zeros_like(z_T, requires_grad=True)
        adam = torch.optim.Adam([z], lr=self.learning_rate)
        scenes = self._scenes(problem, self.steps)
        history: list[dict[str, Tensor]] = []
        for _ in range(self.steps):
            z.grad, record = self._gradient(problem, scenes, z, z, extra=self.prior * z.square().mean(1))
            adam.step()
            scenes.step()
            history.append(record)
            self._report(on_step, len(history), self.steps, record)
        return self._finish(problem, scenes, z, history)
