"""The scene of a fit: camera, light and expression, updated beside z.

Light and skin tone trade places in a single photo: half the light on skin twice as light looks the same. What decides
is prior knowledge: of faces, which the diffusion model has, and of light, which `LightPrior` states.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fitdiff.types import Scene

LIGHT_STRENGTH = 1.2
"""Prior of the radiance of all lights together: the mean of the synthetic portraits (`data.people.scenes`)."""

LIGHT_RATES = {"ambient": 0.015, "colours": 0.015, "harmonics": 0.01}
RATES = {"rotation": 0.004, "translation": 1.0, **LIGHT_RATES, "expression": 0.015}
"""Adam's step per leaf of the scene: rad, mm, received light, expression weights."""

LIGHTS = ("fitted", "fixed")


@dataclass(frozen=True)
class ScenePrior:
    """What a fit believes of a scene before it looks, as weights of penalties that are added to G.

    Attributes:
        white_balance: of the squared difference of each light from grey. Raise it for photos whose white balance is
            trusted: colour then belongs to the skin.
        light_strength: of the squared logarithm of the light's strength over the usual.
        harmonics: of the squared coefficients of the surroundings' light beyond its mean.
        expression: of the squared expression weights.
    """

    white_balance: float = 4.0
    light_strength: float = 4.0
    harmonics: float = 0.3
    expression: float = 0.02

    def penalty(self, leaves: dict[str, Tensor]) -> Tensor:
        """(B,) of the scene's leaves, named as in `Scene.to_tensors`."""
        light = torch.cat([leaves["ambient"][:, None], leaves["colours"]], 1)
        harmonics = leaves["harmonics"]
        chroma = sum((x - x.mean(2, keepdim=True)).square().sum((1, 2)) for x in (light, harmonics))
        strength = (light.mean(2).sum(1) / LIGHT_STRENGTH).clamp_min(1e-3).log().square()
        return (
            self.white_balance * chroma
            + self.light_strength * strength
            + self.harmonics * harmonics.square().sum((1, 2))
            + self.expression * leaves["expression"].square().sum(1)
        )


class SceneOptimiser:
    """Adam on camera, light and expression, each with a step size in its own unit, decaying to a tenth.

    The light is a sum of lamps from fixed directions, which make highlights, and of harmonics, which do not: a convex
    family, in which only colours have to be found.

    Args:
        scene: start. steps: number of updates to come. prior: see there.
        light: "fitted", or "fixed": the light stays as it is in `scene`.
    """

    def __init__(self, scene: Scene, steps: int, prior: ScenePrior, light: str = "fitted") -> None:
        if light not in LIGHTS:
            raise ValueError(f"fitting.light is {light!r}; expected {' or '.join(LIGHTS)}")
        if scene.lighting.harmonics is None:
            flat = scene.expression.new_zeros(len(scene.expression), 8, 3)
            scene = replace(scene, lighting=replace(scene.lighting, harmonics=flat))
        self.leaves = {key: value.detach().clone() for key, value in scene.to_tensors().items()}
        self.rates = {key: rate for key, rate in RATES.items() if light == "fitted" or key not in LIGHT_RATES}
        for key in self.rates:
            self.leaves[key].requires_grad_(True)
        self.steps, self.done, self._prior = steps, 0, prior
        groups = [{"params": [self.leaves[key]], "lr": rate} for key, rate in self.rates.items()]
        self.adam = torch.optim.Adam(groups, betas=(0.8, 0.95))

    @property
    def scene(self) -> Scene:
        """The current estimate; leaves require gradients."""
        return Scene.from_tensors(self.leaves)

    def prior(self) -> Tensor:
        """(B,) penalties."""
        return self._prior.penalty(self.leaves)

    def step(self) -> None:
        """Apply the gradients that are in the leaves, if any, then project onto what is possible."""
        decay = 1 - 0.9 * self.done / max(1, self.steps - 1)
        for group, rate in zip(self.adam.param_groups, self.rates.values(), strict=True):
            group["lr"] = rate * decay
        self.adam.step()
        self.adam.zero_grad()
        self.done += 1
        with torch.no_grad():
            for key in ("ambient", "colours"):
                self.leaves[key].clamp_(min=0)
            self.leaves["expression"].clamp_(0, 1)
