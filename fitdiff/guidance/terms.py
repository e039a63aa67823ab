"""The terms of G (FitDiff section 3, Eq. 4): how far a rendering is from a photo, one number per photo.

The supplement names the terms and their weights (lambda = 50, 10, 200, 1 behind an unweighted identity cosine) but not
their formulas beyond Eqs. 1 and 2; every unit below is therefore part of what those weights mean.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor

from fitdiff.guidance.perceptual import best_perceptual
from fitdiff.registry import register
from fitdiff.types import Observation, Prediction

OUTER_EYE_CORNERS = (36, 45)
N_JAW = 17


@register("guidance", "id_cos")
class IdentityCosine:
    """G_id_cos, Eq. 1: `1 - cos(C(rendering), C(photo))`, dimensionless in [0, 2].

    The raw cosine of the embeddings as the network gives them, without centring.
    """

    def __init__(self, *, weight: float = 1.0) -> None:
        self.weight = weight

    def __call__(self, prediction: Prediction, target: Observation) -> Tensor:
        """-> (B,). Gradient flows to `prediction.features.embedding`."""
        return 1 - nnf.cosine_similarity(prediction.features.embedding, target.features.embedding)


@register("guidance", "id_per")
class IdentityPerceptual:
    """G_id_per, Eq. 2: `sum_j ||C^j(rendering) - C^j(photo)||_2 / (H_j W_j C_j)` in units of the activations.

    The norm is not squared and the count is outside of it, so layers with fewer elements weigh more.
    """

    def __init__(self, *, weight: float = 50.0) -> None:
        self.weight = weight

    def __call__(self, prediction: Prediction, target: Observation) -> Tensor:
        """-> (B,). Gradient flows to `prediction.features.activations`; it is zero where they equal the target's."""
        pairs = zip(prediction.features.activations, target.features.activations, strict=True)
        layers = [torch.linalg.vector_norm((p - t).flatten(1), dim=1) / p[0].numel() for p, t in pairs]
        return torch.stack(layers).sum(0)


@register("guidance", "mse")
class Photometric:
    """G_mse: mean squared sRGB difference over the pixels and channels that the face covers, in [0, 1]."""

    def __init__(self, *, weight: float = 10.0) -> None:
        self.weight = weight

    def __call__(self, prediction: Prediction, target: Observation) -> Tensor:
        """-> (B,). Gradient flows to the image, none to the mask. A photo in which nothing is rendered gives 0."""
        mask = prediction.rendering.mask.detach()
        squared = (prediction.rendering.image - target.image).square() * mask
        return squared.mean(1).sum((1, 2)) / mask.sum((1, 2, 3)).clamp_min(1)


@register("guidance", "landmarks")
class Landmarks:
    """G_lan: weighted mean squared landmark distance over the squared inter-ocular distance, dimensionless.

    The inter-ocular distance is that of the detected outer eye corners, the convention of 300-W.

    Args:
        weight: lambda_3.
        jaw_weight: weight of each of the 17 jaw points against 1 for every other. Detectors slide along the jaw's
            contour, which is moreover not the same line of skin in each view.
    """

    def __init__(self, *, weight: float = 200.0, jaw_weight: float = 0.3) -> None:
        if jaw_weight < 0:
            raise ValueError(f"guidance.landmarks.jaw_weight must be >= 0, got {jaw_weight}")
        self.weight = weight
        weights = torch.cat([torch.full((N_JAW,), jaw_weight), torch.ones(68 - N_JAW)])
        self.landmark_weights = weights / weights.sum()

    def __call__(self, prediction: Prediction, target: Observation) -> Tensor:
        """-> (B,). Gradient flows to `prediction.rendering.landmarks`."""
        left, right = target.landmarks[:, OUTER_EYE_CORNERS, :].unbind(1)
        interocular = (left - right).square().sum(-1)
        squared = (prediction.rendering.landmarks - target.landmarks).square().sum(-1)
        return squared @ self.landmark_weights.to(squared) / interocular


@register("guidance", "vgg")
class Perceptual:
    """G_vgg: perceptual distance (LPIPS scale) between the photo and the rendering laid over the photo.

    Outside of the rendered mask both images are the photo, so background and hair neither pull nor blur the features.

    Args:
        weight: lambda_4.
        backbone: a registered perceptual network, or "auto": LPIPS-VGG where its weights are at hand, else the packaged
            EfficientNet-Lite0. `name` says which one it is; outputs should carry it, the two scales differ.
        weights: of the backbone, "auto" or a path.
    """

    def __init__(self, *, weight: float = 1.0, backbone: str = "auto", weights: str = "auto") -> None:
        self.weight = weight
        self.name, self.network = best_perceptual(backbone, weights)
        self._photo: Tensor | None = None
        self._photo_features: tuple[Tensor, ...] = ()

    def __call__(self, prediction: Prediction, target: Observation) -> Tensor:
        """-> (B,). Gradient flows to the image inside of the mask, none to the mask."""
        mask, photo = prediction.rendering.mask.detach(), target.image
        composite = prediction.rendering.image * mask + photo * (1 - mask)
        self.network.to(composite)
        return self.network.distance(self.network.features(composite), self._features_of(photo))

    def _features_of(self, photo: Tensor) -> tuple[Tensor, ...]:
        """Features of a target photo; a fit passes the same tensor in every step, so the last ones are kept."""
        if photo is not self._photo:
            with torch.no_grad():
                self._photo, self._photo_features = photo, self.network.features(photo)
        return self._photo_features
