"""What is to be fitted, and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fitdiff.alignment.crop import CropPlan, crop, plan_crop
from fitdiff.diffusion.sampler import Known
from fitdiff.fitting.jitter import CropJitter
from fitdiff.randomness import draw_normals
from fitdiff.types import GuidanceTerm, IdentityFeatures, Observation, Prediction, Scene, composite

NOISE_STREAM = 0

OnStep = Callable[[int, int, dict[str, float]], None]
"""Called after each step with (steps done, all steps, mean value of each weighted term)."""


@dataclass(frozen=True)
class FitProblem:
    """Photos to be fitted at once: B photos of P people.

    Attributes:
        model: a `FitDiff`. terms: guidance terms by name. observation: the B photos. scene: the first estimate, B.
        fit_scene: False keeps the scene as given (known camera, light and expression).
        person: (B,) int64 row of z that each photo shows; None: each photo shows a person of its own, P = B.
        known: parts of z that are given, P people; None: all of z is sought.
    """

    model: Any
    terms: Mapping[str, GuidanceTerm]
    observation: Observation
    scene: Scene
    fit_scene: bool = True
    person: Tensor | None = None
    known: Known | None = None

    def predict(self, z0: Tensor, scene: Scene, jitter: CropJitter | None = None) -> Prediction:
        """Render z0 (P, N) in the scene, in the frames of the B photos. Differentiable in both.

        Args:
            jitter: moves the crops that the identity network sees.
        """
        model, observation = self.model, self.observation
        identity, latent = model.latent.unpack(z0)
        vertices = model.shape_model(self.of_photos(identity), scene.expression)
        maps = model.decode(latent)
        maps = maps if self.person is None else maps[self.person]
        size = observation.image.shape[-1]
        rendering = model.renderer(vertices, maps, scene.camera, scene.lighting, size)
        # Outside of the face the network sees the photo: hair and background must not count against the avatar.
        image = composite(rendering, observation.image)
        return Prediction(rendering, self._features(image, jitter), maps)

    def losses(self, z0: Tensor, scene: Scene, jitter: CropJitter | None = None) -> dict[str, Tensor]:
        """Weighted terms of G (Eq. 4), each (P,): the mean over the photos of each person."""
        prediction, target = self.predict(z0, scene, jitter), self.observation
        if jitter is not None:
            with torch.no_grad():
                target = replace(target, features=self._features(target.image, jitter))
        return {name: self.per_person(term.weight * term(prediction, target)) for name, term in self.terms.items()}

    def _features(self, image: Tensor, jitter: CropJitter | None) -> IdentityFeatures:
        crops = self.aligned(image)
        return self.model.identity(crops if jitter is None else jitter(crops))

    @cached_property
    def aligned(self) -> CropPlan:
        """From images in the frames of the photos to the crops that the identity network sees."""
        observation = self.observation
        return plan_crop(observation.crop, observation.image.shape[-1], self.model.identity.size)

    @property
    def embedding(self) -> Tensor:
        """(P, D) condition of each person: the mean embedding of their photos."""
        return self.per_person(self.observation.features.embedding)

    def per_person(self, values_B: Tensor) -> Tensor:
        """Mean over the photos of each person: (B, ...) -> (P, ...). Differentiable."""
        if self.person is None:
            return values_B
        counts = self._photos_of_people.to(values_B)
        sums = values_B.new_zeros(len(counts), *values_B.shape[1:]).index_add(0, self.person, values_B)
        return sums / counts.view(-1, *[1] * (values_B.ndim - 1))

    @cached_property
    def _photos_of_people(self) -> Tensor:
        """(P,) number of photos of each person, found once: counting waits for the device."""
        return self.person.bincount()

    def of_photos(self, values_P: Tensor) -> Tensor:
        """Of each photo's person: (P, ...) -> (B, ...)."""
        return values_P if self.person is None else values_P[self.person]

    def repeat(self, samples: int) -> FitProblem:
        """The same photos `samples` times, as of so many people each; copies of an item lie side by side."""
        if samples == 1:
            return self
        photos = torch.arange(len(self.observation.image), device=self.observation.image.device)
        copies = photos.repeat_interleave(samples)
        person = self.person
        if person is not None:
            person = (person[:, None] * samples + torch.arange(samples, device=person.device)).flatten()
        known = None if self.known is None else self.known.repeat(samples)
        return replace(self, observation=self.observation[copies], scene=self.scene[copies], person=person, known=known)


@dataclass(frozen=True)
class FitResult:
    """Outcome of a fit of B photos of P people.

    Attributes:
        z: (P, N). scene: fitted, B.
        history: one dict a step: each weighted term (P,), the sum `G`, and `t` where there is one.
        grad_norms: norm of each weighted term's gradient with respect to z at the result, (P,).
    """

    z: Tensor
    scene: Scene
    history: list[dict[str, Tensor]] = field(default_factory=list)
    grad_norms: dict[str, Tensor] = field(default_factory=dict)

    def select(self, people: Tensor, photos: Tensor) -> FitResult:
        """Only the given rows of people and of photos."""
        history = [{name: value[people] for name, value in step.items()} for step in self.history]
        norms = {name: value[people] for name, value in self.grad_norms.items()}
        return FitResult(self.z[people], self.scene[photos], history, norms)


def first_noise(model: Any, people: int, samples: int = 1, seed: int = 0) -> Tensor:
    """(people * samples, N) noise to start from, a person's samples side by side.

    Sample k of each person starts from the same noise, a function of (seed, k) alone: so a fit does not depend on what
    it is batched with.
    """
    noise = draw_normals(seed, torch.arange(samples), NOISE_STREAM, (model.latent.length,))
    return noise.repeat(people, 1).to(model.device)


def observed_features(model: Any, image_B3SS: Tensor, transform_B23: Tensor) -> IdentityFeatures:
    """Identity features of the aligned crops of photos, without gradient."""
    with torch.no_grad():
        return model.identity(crop(image_B3SS, transform_B23, model.identity.size))
