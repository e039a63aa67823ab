"""The gradient of G with respect to z and scene, which every method of fitting follows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fitdiff.fitting.jitter import CropJitter
from fitdiff.fitting.problem import FitProblem, FitResult, OnStep
from fitdiff.fitting.scene import SceneOptimiser, ScenePrior


class Fitting:
    """What the methods share: the gradient of G, the record of it, and the scene's updates.

    Args:
        size: side of the fitted photo crop in pixels.
        crop_jitter: strength of the motions of the crops that the identity network sees (`CropJitter`); 0: none.
        light: see `SceneOptimiser`. white_balance, light_strength, harmonics_prior, expression_prior: see `ScenePrior`.
    """

    def __init__(
        self,
        size: int,
        crop_jitter: float,
        light: str,
        white_balance: float,
        light_strength: float,
        harmonics_prior: float,
        expression_prior: float,
    ) -> None:
        self.size, self.crop_jitter, self.light = size, crop_jitter, light
        self.scene_prior = ScenePrior(white_balance, light_strength, harmonics_prior, expression_prior)

    def _scenes(self, problem: FitProblem, steps: int) -> SceneOptimiser:
        return SceneOptimiser(problem.scene, steps, self.scene_prior, self.light)

    def _gradient(self, problem: FitProblem, scenes: SceneOptimiser, z0: Tensor, wrt: Tensor, extra: Tensor | float = 0.0) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip # noqa: E501
        """dG/d`wrt` (P, N), with the scene's gradients left in its leaves; and the weighted terms.

        People are independent, so one backward pass of the sum gives every person's own gradient.
        """
        jitter = CropJitter(self.crop_jitter, scenes.done) if self.crop_jitter else None
        terms = problem.losses(z0, scenes.scene if problem.fit_scene else problem.scene, jitter)
        total = torch.stack(list(terms.values())).sum(0)
        leaves = [scenes.leaves[key] for key in scenes.rates] if problem.fit_scene else []
        prior = problem.per_person(scenes.prior()) if problem.fit_scene else 0.0
        objective = total + extra + prior
        grad, *scene_grads = torch.autograd.grad(objective.sum(), [wrt, *leaves], allow_unused=True)
        for leaf, leaf_grad in zip(leaves, scene_grads, strict=True):
            leaf.grad = leaf_grad
        record = {name: value.detach() for name, value in terms.items()}
        return grad, {**record, "G": total.detach()}

    def _finish(self, problem: FitProblem, scenes: SceneOptimiser, z: Tensor, history: Any) -> FitResult:
        z = z.detach()
        leaf = z.clone().requires_grad_(True)
        scene = scenes.scene.detach() if problem.fit_scene else problem.scene
        terms = problem.losses(leaf, scene)
        norms = {
            name: torch.autograd.grad(value.sum(), leaf, retain_graph=True)[0].norm(dim=1)
            for name, value in terms.items()
        }
        return FitResult(z, scene, history, norms)

    def _report(self, on_step: OnStep | None, done: int, steps: int, record: dict[str, Tensor]) -> None:
        if on_step is not None:
            names = [name for name in record if name != "t"]
            means = torch.stack([record[name].mean() for name in names]).tolist()  # one wait for the device
            on_step(done, steps, dict(zip(names, means, strict=True)))
