"""Environment maps -> `Lighting`: the light of a photographed or painted surrounding, as the renderer takes it.

Maps are longitude-latitude images of linear radiance; `lights` states which direction is which column. A radiance of 1
from all sides is received as 1. Everything is an integral over the sphere, a sum over texels weighted by solid angle:

    * ambient and harmonics: the map projected on orders 0 to 2 and convolved with the clamped cosine (Ramamoorthi and
      Hanrahan 2001); for a map that is bright in one place the sum may ring below zero, where the renderer clamps it;
    * reflections: the map filtered by the specular lobe seen along the normal (Karis 2013). With an angle t between the
      light and the mirror direction the half vector is t/2 off the normal, so the kernel is cos(t/2)^k max(0, cos t).

A rotation turns the directions of the texels, not the image, so nothing is resampled.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.nn.functional as nnf
from torch import Tensor

from fitdiff import geometry
from fitdiff.colour import srgb_to_linear
from fitdiff.images import read_image
from fitdiff.renderer import lights
from fitdiff.types import Lighting

REFLECTION_HEIGHT = 32
"""Rows of the filtered map: 5.6 degrees each, where the lobe of the default shininess is 35 degrees wide."""


def environment_lighting(
    radiance_B3HW: Tensor,
    *,
    shininess: float = 30.0,
    rotation_B3: Tensor | None = None,
    reflection_height: int = REFLECTION_HEIGHT,
) -> Lighting:
    """Light a face by its surroundings alone (append lamps with `dataclasses.replace`).

    Args:
        radiance_B3HW: (B, 3, H, 2H) linear radiance of a longitude-latitude map, not negative.
        shininess: of the renderer that will use it.
        rotation_B3: (B, 3) axis-angle in radians by which the surroundings are turned in camera space: (0, a, 0) moves
            the light from ahead towards the subject's left, the right of an image. None does not turn.
        reflection_height: rows of `Lighting.reflections`.

    Returns:
        Lighting of batch B with ambient, harmonics and reflections, and no lamp. Differentiable in radiance and
        rotation.

    Raises:
        ValueError: the map is not twice as wide as high.
    """
    batch, _, height, width = radiance_B3HW.shape
    if width != 2 * height:
        raise ValueError(f"environment: got a map of {height} x {width}; give a longitude-latitude map, H x 2H")
    rotation = radiance_B3HW.new_zeros(batch, 3) if rotation_B3 is None else rotation_B3
    turn = geometry.rotation_matrix(rotation)
    ambient, harmonics = project_on_harmonics(radiance_B3HW, turn)
    # Four texels to one of the result change the sums by less than 1e-3; more only cost time.
    coarse = shrink(radiance_B3HW, 2 * reflection_height)
    reflections = filter_by_lobe(coarse, turn, shininess, reflection_height)
    no_lamp = radiance_B3HW.new_zeros(batch, 0, 3)
    return Lighting(ambient, no_lamp, no_lamp, harmonics=harmonics, reflections=reflections)


def project_on_harmonics(radiance_B3HW: Tensor, turn_B33: Tensor) -> tuple[Tensor, Tensor]:
    """Received light as `Lighting` holds it: ambient (B, 3) and harmonics (B, 8, 3). Differentiable."""
    directions, weights = _texels(radiance_B3HW)
    share = radiance_B3HW.flatten(2) * (weights / (4 * torch.pi))
    basis = torch.stack([lights.harmonic_basis(turn @ directions) for turn in turn_B33])
    gains = share.new_tensor(lights.COSINE_GAINS)[:, None]
    return share.sum(2), gains * (basis @ share.transpose(1, 2))


def filter_by_lobe(radiance_B3HW: Tensor, turn_B33: Tensor, shininess: float, height: int) -> Tensor:
    """(B, 3, height, 2 height) mean radiance under the lobe round each direction. Differentiable.

    The kernel is normalised by its own sum over the texels, so that a constant map stays constant whatever the sizes.
    """
    directions, weights = _texels(radiance_B3HW)
    mirror, _ = _texels(radiance_B3HW.new_empty(1, 3, height, 2 * height))
    filtered = []
    for radiance, turn in zip(radiance_B3HW.flatten(2), turn_B33, strict=True):
        cosine = mirror.t() @ (turn @ directions)
        kernel = (0.5 + 0.5 * cosine).clamp_min(0).pow(shininess / 2) * cosine.clamp_min(0) * weights
        filtered.append(radiance @ (kernel / kernel.sum(1, keepdim=True)).t())
    return torch.stack(filtered).unflatten(2, (height, 2 * height))


def shrink(radiance_B3HW: Tensor, height: int) -> Tensor:
    """Average by solid angle to at most `height` rows. Differentiable."""
    size = min(height, radiance_B3HW.shape[2])
    weights = _row_weights(radiance_B3HW).expand(radiance_B3HW.shape[2:])[None]
    total, share = (nnf.adaptive_avg_pool2d(x, (size, 2 * size)) for x in (radiance_B3HW * weights, weights))
    return total / share


def load_environment(path: str | os.PathLike[str]) -> Tensor:
    """Read a longitude-latitude image: (1, 3, H, 2H) float32 linear radiance, top row up.

    Files of floating-point numbers (`.hdr`, `.exr`) hold linear radiance. Other images are taken as sRGB, so that white
    is 1 and lamps are cut off.

    Raises:
        ValueError: the file is not an image, has another shape, or holds negative or infinite radiance.
    """
    stored = read_image(Path(path))
    image = stored.values.expand(3, -1, -1)
    if image.shape[2] != 2 * image.shape[1]:
        raise ValueError(f"{path}: got an image of {tuple(image.shape[1:])}; give a longitude-latitude map, (H, 2H)")
    if image.min() < 0:
        raise ValueError(f"{path}: radiance must not be negative, got {image.min():g}")
    return (image if stored.floating else srgb_to_linear(image))[None].contiguous()


def _texels(image_B3HW: Tensor) -> tuple[Tensor, Tensor]:
    """Directions (3, H W) and solid angles (H W,) of a map's texels, in its dtype and on its device."""
    height, width = image_B3HW.shape[2:]
    v, u = ((torch.arange(n, device=image_B3HW.device, dtype=image_B3HW.dtype) + 0.5) / n for n in (height, width))
    v, u = torch.meshgrid(v, u, indexing="ij")
    weights = _row_weights(image_B3HW) * (2 * torch.pi / width)
    return lights.uv_to_direction(u, v).flatten(1), weights.expand(-1, width).flatten()


def _row_weights(image_B3HW: Tensor) -> Tensor:
    """(H, 1) exact solid angles of the rows' bands, over 2 pi: the difference of the sines of their elevations."""
    edges = torch.linspace(0, 1, image_B3HW.shape[2] + 1, device=image_B3HW.device, dtype=torch.float64)
    return ((torch.pi * (0.5 - edges[:-1])).sin() - (torch.pi * (0.5 - edges[1:])).sin()).to(image_B3HW)[:, None]
