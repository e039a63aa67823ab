"""The scene of a fit: camera, light and expression, updated beside z."""

from __future__ import annotations

import torch
from torch import Tensor

from fitdiff.types import Scene

LIGHT_STRENGTH = 1.2
"""Prior of the radiance of all lights together: the mean of the synthetic portraits (`data.people.scenes`)."""


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
