"""Colour spaces: linear light for shading, sRGB for display, photos and every network trained on photos.

Source of the transfer function: IEC 61966-2-1.
"""

from __future__ import annotations

import torch
from torch import Tensor

LUMINANCE = (0.2126, 0.7152, 0.0722)
"""Relative luminance of linear Rec. 709 / sRGB primaries."""


def linear_to_srgb(linear: Tensor) -> Tensor:
    """Encode linear light in [0, 1] as sRGB in [0, 1]; values outside are clamped. Differentiable everywhere.

    Args:
        linear: any shape, float. The gradient is zero where a value is clamped.
    """
    linear = linear.clamp(0.0, 1.0)
    low = linear * 12.92
    # The clamp keeps the gradient of the power finite at zero, where `where` would otherwise give 0 * inf.
    high = 1.055 * linear.clamp_min(0.0031308).pow(1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, low, high)


def srgb_to_linear(srgb: Tensor) -> Tensor:
    """Decode sRGB in [0, 1] to linear light in [0, 1]; values outside are clamped. Differentiable everywhere."""
    srgb = srgb.clamp(0.0, 1.0)
    low = srgb / 12.92
    high = ((srgb.clamp_min(0.04045) + 0.055) / 1.055).pow(2.4)
    return torch.where(srgb <= 0.04045, low, high)
