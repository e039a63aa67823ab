"""Light that enters the skin leaves it a little further on: a blur of the received diffuse light in the image.

As in texture-space diffusion (d'Eon et al. 2007), the diffuse light is blurred before the albedo multiplies it, each
colour by its own width, and the specular light is not. The profile of a mean free path m, exp(-r/m) / (2 pi m r), is
replaced by the Gaussian of the same second moment, whose standard deviation along each axis is m. Chosen for speed: the
blur is in the image, by the scale at the head's distance. So it neither narrows where the skin turns away nor stops at
a nose before a cheek; it stops at the face's outline.

The mean free paths of the colours are in the ratio of those of skin in Jensen et al. (2001), 1 / sqrt(3 a (a + s)) for
absorption a = 0.032, 0.17, 0.48 and reduced scattering s = 0.74, 0.88, 1.01 per mm: 3.67, 1.37 and 0.68 mm.
"""

from __future__ import annotations

import torch
from torch import Tensor

RELATIVE_PATHS = (1.0, 0.372, 0.186)
"""Mean free paths of red, green and blue light, relative to that of red."""


def scatter(light_B3SS: Tensor, mask_B1SS: Tensor, pixels_per_mm_B: Tensor, mean_free_path: float) -> Tensor:
    """Blur received light within the mask.

    The weights inside the mask sum to 1 at each pixel, so that uniform light stays as it is up to the outline; away
    from the outline by a few mean free paths, light is only moved and none is lost.

    Args:
        light_B3SS: linear RGB; what is outside of the mask is ignored. mask_B1SS: 1 where there is skin, else 0.
        pixels_per_mm_B: scale of each image. mean_free_path: mm, of red light.

    Returns:
        (B, 3, S, S), zero outside of the mask. Differentiable in light and scale.
    """
    deviation = pixels_per_mm_B[:, None] * mean_free_path * light_B3SS.new_tensor(RELATIVE_PATHS)
    index = torch.arange(light_B3SS.shape[-1], device=light_B3SS.device, dtype=light_B3SS.dtype)
    squared = (index[:, None] - index).square()
    kernel = torch.exp(-0.5 * squared / deviation.clamp_min(1e-3).square()[..., None, None])
    # A separable blur as two products of matrices: no radius to cut off at, and a gradient in the width.
    light, weight = (kernel @ x @ kernel for x in (light_B3SS * mask_B1SS, mask_B1SS.expand(-1, 3, -1, -1)))
    return light / weight.clamp_min(1e-12) * mask_B1SS
