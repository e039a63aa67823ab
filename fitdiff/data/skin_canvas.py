"""What skin is painted on: reflectance and height of a batch of people, texel by texel.

Legend of shape suffixes: B people · N texels · P texels of a patch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fitdiff.types import TensorRecord


@dataclass
class Canvas:
    """Layers under the brush; painters change them in place.

    Attributes:
        diffuse: (B, 3, N) linear albedo. gloss: (B, N) specular albedo. height: (B, N) mm outwards.
    """

    diffuse: Tensor
    gloss: Tensor
    height: Tensor

    def cover(
        self, patch: Tensor | slice, coverage_BP: Tensor, colour: Tensor, gloss: float | Tensor | None = None
    ) -> None:
        """Lay an opaque colour over part of each texel of a patch.

        Args:
            patch: (P,) texels, or the slice of all. coverage_BP: share of the texel in [0, 1].
            colour: (B, 3) or (B, 3, P) linear. gloss: of the layer; None keeps what is below.
        """
        colour = colour[..., None] if colour.dim() == 2 else colour
        below = self.diffuse[:, :, patch]
        self.diffuse[:, :, patch] = torch.lerp(below, colour.expand_as(below), coverage_BP[:, None])
        if gloss is not None:
            below = self.gloss[:, patch]
            self.gloss[:, patch] = below + coverage_BP * (gloss - below)

    def tint(self, patch: Tensor, factor: Tensor) -> None:
        """Multiply the diffuse albedo of a patch by a factor that broadcasts to (B, 3, P)."""
        self.diffuse[:, :, patch] *= factor


def soft_step(distance: Tensor, width: Tensor | float, texel: Tensor | float = 0.0) -> Tensor:
    """0 to 1 as `distance` passes zero: a logistic edge.

    Args:
        distance: mm. width: scale of the logistic, mm. texel: mm, by whose box filter the edge is widened.
    """
    return torch.sigmoid(distance / _blurred(width, 0.16 * texel))


def stroke(distance: Tensor, width: Tensor | float, texel: Tensor | float) -> Tensor:
    """A line with a Gaussian profile of standard deviation `width`, 1 on its axis before filtering.

    The texel's box filter (standard deviation texel / sqrt(12)) widens it and thins it out by the same factor.
    """
    blurred = _blurred(width, 0.29 * texel)
    return torch.exp(-0.5 * (distance / blurred).square()) * (width / blurred)


def _blurred(width: Tensor | float, filter_width: Tensor | float) -> Tensor | float:
    return (width**2 + filter_width**2) ** 0.5


def columns(record: TensorRecord) -> dict[str, Tensor]:
    """The (B,) traits of a record as (B, 1), to be combined with the (P,) texels of a patch."""
    return {name: value[:, None] for name, value in vars(record).items() if value.dim() == 1}
