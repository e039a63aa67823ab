"""Complete a texture of which a part is known: guided by the known texels, joined without a seam. (FitDiff, Fig. 4.)

Three parts: the reverse diffusion is guided by the known texels at every step, as a fit is by a photo; the drawn map
is joined with the known texels in the gradient domain; specular albedo and normals are the drawn ones.

Legend of shape suffixes: P faces · N length of z · D length of an embedding · R map side.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as nnf
from PIL import Image
from torch import Tensor

from fitdiff.alignment.photo import LARGEST_SIDE
from fitdiff.avatar.relight import frontal_camera, studio_lighting
from fitdiff.colour import linear_to_srgb, srgb_to_linear
from fitdiff.diffusion.sampler import Known, row_generators
from fitdiff.faces import Faces, UseError
from fitdiff.fitting import GuidedFitting, first_noise
from fitdiff.registry import build
from fitdiff.types import FaceMaps, Observation, Prediction, Scene
from fitdiff.uses.blending import blend
from fitdiff.uses.sampling import Samples
from fitdiff.uses.visible_texture import PartialTexture, fitted_square, visible_texture

SCALE = 4000.0
"""Gradient scale s, for errors of values in [0, 1]."""

REFINEMENTS, RATE, PRIOR = 50, 0.1, 2.5e-4
"""Steps of Adam after the diffusion, their size in deviations of z, and the weight of staying where z was drawn. On
held-out people guidance alone met known texels to 30 dB, with these steps to 38, the autoencoder itself to 37."""

FORMATS = ("PNG", "TIFF", "WEBP", "JPEG")
"""That maps are read from: no other decoder sees a stranger's file."""

LEAST_KNOWN = 16
"""Texels; fewer say nothing."""


class KnownTexels:
    """Guidance term: mean squared sRGB difference over the known texels and channels, values in [0, 1]."""

    def __init__(self, texture: PartialTexture, weight: float = 1.0) -> None:
        self.weight = weight
        self.srgb, self.known = linear_to_srgb(texture.diffuse_albedo), texture.known
        self.count = texture.known.flatten(1).sum(1).clamp_min(1)

    def __call__(self, prediction: Prediction, target: Observation | None = None) -> Tensor:
        """-> (P,). Gradient flows to the maps' diffuse albedo."""
        squared = (linear_to_srgb(prediction.maps.diffuse_albedo) - self.srgb).square().mean(1, keepdim=True)
        return (squared * self.known).sum((1, 2, 3)) / self.count


@dataclass(frozen=True)
class TextureProblem:
    """What `fitting` is asked where there is no photo: z whose maps meet terms on maps alone. See `FitProblem`.

    Attributes:
        model: a `FitDiff`. terms: that look at `Prediction.maps` only. embedding: (P, D), or None: unconditional.
        scene: not looked at, and not fitted. known: parts of z that are given.
    """

    model: Any
    terms: Mapping[str, Any]
    embedding: Tensor | None
    scene: Scene
    known: Known | None = None
    fit_scene: bool = False

    def losses(self, z0: Tensor, scene: Scene, jitter: None = None) -> dict[str, Tensor]:
        """Weighted terms, each (P,)."""
        prediction = Prediction(None, None, self.model.maps(z0))  # type: ignore[arg-type]
        return {name: term.weight * term(prediction) for name, term in self.terms.items()}

    def per_person(self, values: Tensor) -> Tensor:
        """Each face has no more than itself."""
        return values


def complete_texture(
    model: Any,
    texture: PartialTexture,
    *,
    faces: Faces | None = None,
    keep_shape: bool = False,
    n: int = 1,
    steps: int = 50,
    cfg_scale: float = 1.0,
    seed: int = 0,
    scale: float = SCALE,
    sampler: Mapping[str, Any] | None = None,
) -> Samples:
    """`n` faces whose diffuse albedo goes on where the known texels end.

    Args:
        texture: of one face, or of `n`, at the model's resolution (see `at_size`).
        faces: whose it is, one or `n`, as far as that is known: the embedding conditions what is drawn.
        keep_shape: of `faces`' z.
        scale: of the gradient. Other arguments as of `sampling.draw`.

    Returns:
        Samples whose `maps` hold the known texels as they were given, joined to what was drawn.

    Raises:
        UseError: next to nothing is known.
    """
    count = int(texture.known.sum())
    if count < LEAST_KNOWN:
        raise UseError(f"{count} texels are known, expected {LEAST_KNOWN} or more: is the mask white where they are?")
    texture = texture.map(lambda x: x.expand(n, -1, -1, -1)).to(model.device)
    faces = faces or Faces()
    embedding = None if faces.embedding is None else faces.embedding.expand(n, -1)
    known = None
    if keep_shape:
        from fitdiff.uses.editing import part_mask

        known = Known(faces.require_z().expand(n, -1), part_mask(model, "shape"))
    noise = first_noise(model, 1, n, seed)
    problem = TextureProblem(model, {"texels": KnownTexels(texture)}, embedding, _no_scene(model, n), known)
    fitting = GuidedFitting(steps=steps, scale=scale, cfg_scale=cfg_scale)
    chosen = build(sampler or model.config["sampler"], "sampler")
    drawn = fitting(problem, chosen, noise, row_generators(seed, n)).z
    z = refine(problem, drawn)
    return Samples(model, z, embedding=embedding, maps=join(texture, model.maps(z)))


def refine(problem: TextureProblem, drawn_PN: Tensor) -> Tensor:
    """(P, N) z near what was drawn that meets the known texels: Adam on `G + PRIOR mean (z - drawn)^2`."""
    z = drawn_PN.clone().requires_grad_(True)
    adam = torch.optim.Adam([z], lr=RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.1, REFINEMENTS)
    for _ in range(REFINEMENTS):
        stay = PRIOR * (z - drawn_PN).square().mean(1)
        total = torch.stack(list(problem.losses(z, problem.scene).values())).sum(0) + stay
        (z.grad,) = torch.autograd.grad(total.sum(), z)
        adam.step()
        schedule.step()
    return z.detach()


def join(texture: PartialTexture, drawn: FaceMaps) -> FaceMaps:
    """The drawn maps with the known texels in their place, blended as displayed (sRGB), where steps look equal."""
    known, generated = linear_to_srgb(texture.diffuse_albedo), linear_to_srgb(drawn.diffuse_albedo)
    rows = zip(known, generated, texture.known[:, 0], strict=True)
    blended = torch.stack([blend(*row) for row in rows])
    joined = torch.where(texture.known, texture.diffuse_albedo, srgb_to_linear(blended))
    return replace(drawn, diffuse_albedo=joined)


def complete_photo(model: Any, fit: Any, **options: Any) -> Samples:
    """The texture of a `PhotoFit`: what the photo shows, as it shows it, and the rest drawn to go with it.

    The fit's shape is kept. Options as of `complete_texture`.
    """
    resolution = int(model.config["resolution"])
    photo = fitted_square(fit, max(fit.observation.image.shape[-1], 2 * resolution))
    texture = visible_texture(model, photo, fit.result.z, fit.result.scene, resolution)
    faces = Faces(fit.result.z, fit.observation.features.embedding)
    samples = complete_texture(model, texture, faces=faces, keep_shape=True, **options)
    return samples.beside(fit.observation.image[0])


def read_texture(path: str | Path, mask: str | Path | None, size: int) -> PartialTexture:
    """A partial UV map of the diffuse albedo from an image file (sRGB), at `size` texels a side.

    Args:
        mask: image that is white where the map is known; None takes the map's own alpha channel.

    Raises:
        FileNotFoundError: a file is missing. UseError: not square images of one size, or nothing says what is known.
    """
    colour, alpha = _read(path)
    if mask is not None:
        shown, _ = _read(mask)
        alpha = shown.mean(0, keepdim=True)
    if alpha is None:
        raise UseError(f"{path}: has no alpha channel that says what is known; give mask=, white where it is")
    if not colour.shape[1] == colour.shape[2] == alpha.shape[1] == alpha.shape[2]:
        raise UseError(
            f"{path}: a map of {tuple(colour.shape[1:])} and a mask of {tuple(alpha.shape[1:])} texels; expected two "
            "squares of one size"
        )
    return at_size(PartialTexture(srgb_to_linear(colour)[None], (alpha > 0.5)[None]), size)


def at_size(texture: PartialTexture, size: int) -> PartialTexture:
    """Resampled to `size` texels a side, in linear light; a texel is known where all that it covers is."""
    if texture.known.shape[-1] == size:
        return texture
    weight = texture.known.float()

    def resized(values: Tensor) -> Tensor:
        return nnf.interpolate(values, (size, size), mode="bilinear", align_corners=False, antialias=True)

    share = resized(weight)
    return PartialTexture(resized(texture.diffuse_albedo * weight) / share.clamp_min(1e-6), share > 0.99)


def _read(path: str | Path) -> tuple[Tensor, Tensor | None]:
    """(3, H, W) as displayed and (1, H, W) alpha, if there is one; in [0, 1]. Greys of 16 bits keep them."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such image")
    try:
        with warnings.catch_warnings(), Image.open(path, formats=FORMATS) as file:
            warnings.simplefilter("ignore")  # of damaged metadata
            if max(file.size) > LARGEST_SIDE:
                raise ValueError(f"{file.width} x {file.height} texels, expected {LARGEST_SIDE} or less a side")
            if file.mode.startswith(("I", "F")):  # converted, these would be clipped at 255
                grey = np.asarray(file).astype(np.float32) / (1 if file.mode.startswith("F") else 65535)
                return torch.from_numpy(np.nan_to_num(grey)).clamp(0, 1).expand(3, -1, -1), None
            values = torch.from_numpy(np.array(file.convert("RGBA"))).movedim(-1, 0).float() / 255
            return values[:3], values[3:] if file.has_transparency_data else None
    except Exception as error:  # damaged files raise whatever the decoder stumbles over
        raise UseError(f"{path}: cannot be read as a map ({error}); save it as PNG") from error


def _no_scene(model: Any, n: int) -> Scene:
    """A scene as good as any, for a fit that looks at maps alone."""
    camera = frontal_camera(model.vertices(torch.zeros(n, model.latent.length, device=model.device)))
    expression = torch.zeros(n, model.shape_model.n_expression, device=model.device)
    return Scene(camera, studio_lighting(n, model.device), expression)
