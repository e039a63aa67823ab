"""Crops: the aligned one that an identity network sees, differentiable, and plain squares of a photo."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fitdiff.types import IdentityNetwork


def crop_transform(network: IdentityNetwork, landmarks_B682: Tensor) -> Tensor:
    """Similarity (rotation, scale, shift) that lays a network's template over the landmarks.

    Least squares in closed form (Umeyama 1991), which in the plane is one complex division:
    `a = sum(conj(s_i) d_i) / sum(|s_i|^2)` over centred points, never a reflection.

    Args:
        network: its `template` and `template_weights` are used.
        landmarks_B682: (B, 68, 2) NDC of the image, iBUG 68 order.

    Returns:
        (B, 2, 3) affine map from the network's crop NDC to the image's NDC: `image = A crop + t`. Differentiable.
    """
    target = network.template_weights.to(landmarks_B682) @ landmarks_B682
    source = network.template.to(landmarks_B682).expand_as(target)
    source_mean, target_mean = source.mean(1), target.mean(1)
    (sx, sy), (dx, dy) = (source - source_mean[:, None]).unbind(-1), (target - target_mean[:, None]).unbind(-1)
    norm = (sx.square() + sy.square()).sum(1)
    real, imaginary = (sx * dx + sy * dy).sum(1) / norm, (sx * dy - sy * dx).sum(1) / norm
    linear = torch.stack([real, -imaginary, imaginary, real], -1).view(-1, 2, 2)
    shift = target_mean - (linear @ source_mean[..., None])[..., 0]
    return torch.cat([linear, shift[..., None]], -1)


@dataclass(frozen=True)
class CropPlan:
    """Where the samples of a crop lie: all of `crop` that does not depend on the image.

    Attributes:
        groups: photos that need equally many samples a pixel: their rows (n,), None for all of the batch; their grid
            (n, k size, k size, 2) for `grid_sample`; and k.
        order: (B,) row of each photo in the joined groups; None where there is one group.
    """

    groups: tuple[tuple[Tensor | None, Tensor, int], ...]
    order: Tensor | None

    def __call__(self, image_B3SS: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, C, size, size), see `crop`. Never waits for the device."""
        parts = []
        for rows, grid, k in self.groups:
            image = image_B3SS if rows is None else image_B3SS[rows]
            parts.append(nnf.avg_pool2d(nnf.grid_sample(image, grid.to(image), align_corners=False), k))
        return parts[0] if self.order is None else torch.cat(parts)[self.order]


def plan_crop(transform_B23: Tensor, side: int, size: int) -> CropPlan:
    """Prepare `crop` for images that share a transform, as the renderings of a fit do.

    Args:
        transform_B23: see `crop`. side: of the images, S. size: of the crops, in pixels.
    """
    image_pixels_per_crop_pixel = transform_B23[:, :, 0].detach().norm(dim=1) * (side / size)
    samples = (image_pixels_per_crop_pixel / 1.5).ceil().clamp_min(1).int().tolist()
    flip = transform_B23.new_tensor([1.0, -1.0, 1.0])
    # grid_sample counts y downwards on both sides; NDC counts it upwards.
    theta = transform_B23 * flip * flip[:2, None]
    groups: list[tuple[Tensor | None, Tensor, int]] = []
    for k in sorted(set(samples)):
        alone = len(set(samples)) == 1
        rows = None if alone else torch.tensor([i for i, n in enumerate(samples) if n == k], device=theta.device)
        of_group = theta if rows is None else theta[rows]
        shape = [len(of_group), 1, k * size, k * size]
        groups.append((rows, nnf.affine_grid(of_group, shape, align_corners=False), k))
    if len(groups) == 1:
        return CropPlan(tuple(groups), None)
    return CropPlan(tuple(groups), torch.cat([rows for rows, _, _ in groups]).argsort())


def crop(image_B3SS: Tensor, transform_B23: Tensor, size: int) -> Tensor:
    """Resample an image to a size x size crop, bilinear, zero outside of the image. Differentiable.

    Where the crop is coarser than the image, each output pixel is the mean of k x k samples spaced at most 1.5 image
    pixels apart, so that fine texture does not alias; k depends on that photo alone.

    Args:
        image_B3SS: (B, C, S, S), any range and colour space. Gradient flows.
        transform_B23: (B, 2, 3) crop NDC to image NDC, as from `crop_transform`.
        size: side of the crop in pixels.

    Returns:
        (B, C, size, size).
    """
    return plan_crop(transform_B23.to(image_B3SS), image_B3SS.shape[-1], size)(image_B3SS)


def cut_square(image_HW3: NDArray[np.uint8], left: float, top: float, side: float, size: int) -> NDArray[np.uint8]:
    """Cut the square [left, left + side] x [top, top + side] and resample it to size x size with antialiasing.

    Args:
        image_HW3: (H, W, 3) uint8. Beyond its border its edge pixels are repeated.
        left, top, side: the square in image space (pixels; fractions are honoured).
        size: side of the result in pixels.

    Returns:
        (size, size, 3) uint8.
    """
    x0, y0 = math.floor(left), math.floor(top)
    rows = np.arange(y0, math.ceil(top + side)).clip(0, image_HW3.shape[0] - 1)
    columns = np.arange(x0, math.ceil(left + side)).clip(0, image_HW3.shape[1] - 1)
    extended = Image.fromarray(image_HW3[rows[:, None], columns])
    box = (left - x0, top - y0, left - x0 + side, top - y0 + side)
    return np.asarray(extended.resize((size, size), Image.Resampling.BICUBIC, box=box))
