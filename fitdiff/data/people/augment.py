"""From the light of a scene to a stored photograph: lens, sensor, JPEG. Batched, each view with its own strengths.

Legend of shape suffixes: N views · S side of the picture · Q blocks of 8 x 8 pixels.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as nnf
from torch import Tensor

from fitdiff.colour import linear_to_srgb
from fitdiff.data.people.options import Augmentation
from fitdiff.data.people.views import Views

REFERENCE_SIZE = 224
"""Side of the portrait in whose pixels blur is given: the same share of the face at any size."""

MIDDLE_GREY = 0.18


def photograph(linear_N3SS: Tensor, views: Views, options: Augmentation) -> Tensor:
    """(N, 3, S, S) uint8 sRGB of linear light, as the options' camera takes it."""
    light = _sensed(_blurred(linear_N3SS, views, options), views, options)
    picture = linear_to_srgb(light)
    draws = views.draws("jpeg")
    rows = (draws.uniform() < options.jpeg).nonzero()[:, 0]
    if len(rows):
        quality = draws.uniform(options.jpeg_quality, 95.0)
        picture[rows] = jpeg(picture[rows], quality[rows])
    return (picture * 255).round().to(torch.uint8)


def _blurred(linear_N3SS: Tensor, views: Views, options: Augmentation) -> Tensor:
    """Out of focus and shaken by a little: a Gaussian, longer along one direction."""
    draws = views.draws("optics")
    rows = (draws.uniform() < options.blur).nonzero()[:, 0]
    if not len(rows):
        return linear_N3SS
    size = linear_N3SS.shape[-1]
    largest = options.blur_strength * size / REFERENCE_SIZE
    defocus, shake, angle = draws.uniform(0.1, 1.0), draws.uniform().square(), draws.uniform(0.0, math.pi)
    kernels = gaussian_kernels(defocus[rows] * largest, shake[rows] * largest, angle[rows], math.ceil(3 * largest))
    blurred = linear_N3SS.clone()
    blurred[rows] = convolve(linear_N3SS[rows], kernels)
    return blurred


def gaussian_kernels(sigma_N: Tensor, shake_N: Tensor, angle_N: Tensor, radius: int) -> Tensor:
    """(N, K, K) kernels that sum to 1, K = 2 radius + 1, with covariance sigma^2 I + shake^2 d d^T in pixels.

    d is the direction of `angle_N` (radians from +x to +y in image space). A floor of 0.15 pixels keeps it regular.
    """
    place = torch.arange(-radius, radius + 1, device=sigma_N.device, dtype=sigma_N.dtype)
    y, x = torch.meshgrid(place, place, indexing="ij")
    cosine, sine = angle_N.cos()[:, None, None], angle_N.sin()[:, None, None]
    across = sigma_N.clamp_min(0.15).square()[:, None, None]
    along = across + shake_N.square()[:, None, None]
    weights = torch.exp(-0.5 * ((x * cosine + y * sine).square() / along + (y * cosine - x * sine).square() / across))
    return weights / weights.sum((1, 2), keepdim=True)


def convolve(images_NCSS: Tensor, kernels_NKK: Tensor) -> Tensor:
    """Each image with its own kernel; the border's pixels are repeated outwards."""
    n, channels = images_NCSS.shape[:2]
    radius = kernels_NKK.shape[-1] // 2
    padded = nnf.pad(images_NCSS, (radius,) * 4, mode="replicate").flatten(0, 1)[None]
    weights = kernels_NKK[:, None].repeat_interleave(channels, 0)
    return nnf.conv2d(padded, weights, groups=n * channels)[0].unflatten(0, (n, channels))


def _sensed(linear_N3SS: Tensor, views: Views, options: Augmentation) -> Tensor:
    """Noise of photons (variance in proportion to the light) and of reading out (the same everywhere)."""
    draws = views.draws("sensor")
    rows = (draws.uniform() < options.noise).nonzero()[:, 0]
    if not len(rows):
        return linear_N3SS
    light = linear_N3SS[rows]
    variance = (draws.uniform(0.1, 1.0)[rows] * options.noise_strength).square()[:, None, None, None]
    share = draws.uniform(0.6, 1.0)[rows][:, None, None, None]
    spread = (variance * (share * light.clamp_min(0) / MIDDLE_GREY + 1 - share)).sqrt()
    sensed = linear_N3SS.clone()
    sensed[rows] = light + spread * views[rows].normals("grain", tuple(light.shape[1:]))
    return sensed


# --- JPEG (ITU-T T.81) -----------------------------------------------------------------------------------------------

LUMINANCE_STEPS = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
CHROMINANCE_STEPS = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99,
    99, 99, 99, *(99,) * 32,
)  # fmt: skip
"""Tables K.1 and K.2, row by row."""

TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
"""JFIF: sRGB to luma and the two chroma differences."""


def jpeg(images_N3SS: Tensor, quality_N: Tensor) -> Tensor:
    """What is left of sRGB images in [0, 1] after JPEG with 4:2:0 chroma; entropy coding loses nothing and is left out.

    Args:
        images_N3SS: any size; the border is repeated to whole blocks. quality_N: libjpeg's, 1 to 100.
    """
    size = images_N3SS.shape[-2:]
    padding = [-side % 16 for side in size]
    images = nnf.pad((images_N3SS * 255).round(), (0, padding[1], 0, padding[0]), mode="replicate")
    matrix = images.new_tensor(TO_YCC)
    luma, chroma = torch.einsum("dc,nchw->ndhw", matrix, images).round().split([1, 2], 1)
    luma = _coded(luma - 128, _steps(LUMINANCE_STEPS, quality_N)) + 128
    chroma = _coded(nnf.avg_pool2d(chroma, 2).round(), _steps(CHROMINANCE_STEPS, quality_N))
    chroma = nnf.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    decoded = torch.einsum("dc,nchw->ndhw", torch.linalg.inv(matrix), torch.cat([luma, chroma], 1))
    return (decoded.round() / 255).clamp(0, 1)[..., : size[0], : size[1]]


def _steps(table: tuple[int, ...], quality_N: Tensor) -> Tensor:
    """(N, 1, 1, 8, 1, 8) quantisation steps, scaled as libjpeg does."""
    quality = quality_N.round().clamp(1, 100)
    scale = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    steps = ((scale[:, None] * scale.new_tensor(table) + 50) / 100).floor().clamp(1, 255)
    return steps.view(-1, 1, 1, 8, 1, 8)


def _coded(planes_NCHW: Tensor, steps: Tensor) -> Tensor:
    """Quantise the cosine transform of each block of 8 x 8; planes are whole numbers on both sides."""
    dct = cosine_basis().to(planes_NCHW)
    blocks = planes_NCHW.unflatten(3, (-1, 8)).unflatten(2, (-1, 8))
    spectrum = torch.einsum("ur,ncarbs,vs->ncaubv", dct, blocks, dct)
    kept = (spectrum / steps).round() * steps
    return torch.einsum("ur,ncaubv,vs->ncarbs", dct, kept, dct).flatten(4, 5).flatten(2, 3).round()


@functools.cache
def cosine_basis() -> Tensor:
    """(8, 8) orthonormal DCT-II, a row a frequency."""
    angle = torch.arange(8)[:, None] * (torch.arange(8) + 0.5) * (math.pi / 8)
    basis = angle.cos() / 2
    basis[0] /= math.sqrt(2)
    return basis
