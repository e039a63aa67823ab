"""Lips, their make-up, and the mouth between them.

Legend of shape suffixes: B people · P texels of the patch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fitdiff.data.atlas import UvAtlas
from fitdiff.data.skin_canvas import Canvas, soft_step, stroke
from fitdiff.data.skin_eyes import palette
from fitdiff.data.skin_geometry import FaceGeometry, distance_to_segments, inside_polygon, signed_distance, smooth_curve
from fitdiff.randomness import Draws
from fitdiff.types import TensorRecord

LIPSTICKS = (
    (0.36, 0.03, 0.03),  # red
    (0.20, 0.01, 0.03),  # wine
    (0.48, 0.12, 0.16),  # pink
    (0.44, 0.10, 0.08),  # coral
    (0.42, 0.20, 0.15),  # nude
    (0.20, 0.07, 0.05),  # brown
)
TEETH = ((0.62, 0.58, 0.51), (0.50, 0.42, 0.28))
"""White to yellow, linear."""
MOUTH = (0.30, 0.105, 0.095)
"""Gums and tongue, linear, where light reaches them."""
DARK = 7.0
"""mm behind the lips' seam over which light falls to 1 / e."""


@dataclass(frozen=True)
class Lips(TensorRecord):
    """Look of the lips; (B,) unless said otherwise.

    Attributes:
        pigments: (B, 3) what the lips have over the skin in melanin (relative to the person's own), blood, carotene.
        lower: share of the lower lip that is pinker. rim, lower_rim: mm that the red of the upper and the lower lip
            reaches beyond (+) the mean's; bow: mm of cupid's bow; width: mm at each corner; softness: mm.
        border: paler skin round the lips. lines: mm depth of the upright lines. gloss: specular albedo.
        stick: (B, 3) linear colour; stick_opacity: 0 to 1. teeth: (B, 3) linear colour.
    """

    pigments: Tensor
    lower: Tensor
    rim: Tensor
    lower_rim: Tensor
    bow: Tensor
    width: Tensor
    softness: Tensor
    border: Tensor
    lines: Tensor
    gloss: Tensor
    stick: Tensor
    stick_opacity: Tensor
    teeth: Tensor


def sample_lips(draws: Draws, melanin: Tensor, age: Tensor, male: Tensor, made_up: Tensor) -> Lips:
    """Draw it: lips of dark skin hold more melanin than blood shows."""
    dark = torch.sigmoid((melanin - 3.0) / 0.8)
    pigments = torch.stack(
        [
            draws.normal(0.06 - 0.05 * dark, 0.18),
            draws.normal(1.3 - 0.25 * age - 0.1 * male, 0.58).clamp_min(0.35),
            draws.normal(-0.05, 0.12),
        ],
        1,
    )
    worn = made_up * draws.chance(0.75)
    return Lips(
        pigments=pigments,
        lower=draws.normal(0.25 + 0.3 * dark, 0.22),
        rim=draws.normal(-0.3 * age, 1.3),
        lower_rim=draws.normal(-0.3 * age, 1.3),
        bow=draws.normal(std=0.7),
        width=draws.normal(std=1.2),
        softness=draws.uniform(0.45, 1.0) + 0.3 * age,
        border=draws.uniform(0.0, 0.12),
        lines=(draws.uniform(0.02, 0.07) + 0.05 * age) * (1 - 0.3 * worn),
        gloss=draws.normal(0.55, 0.06) + 0.12 * worn * draws.uniform(),
        stick=palette(LIPSTICKS, draws.uniform()) * torch.exp(draws.normal(std=0.2) - 0.16 * (melanin - 1))[:, None],
        stick_opacity=worn * draws.uniform(0.3, 0.92),
        teeth=palette(TEETH, (0.6 * draws.uniform() + 0.4 * age)),
    )


class MouthPainter(nn.Module):
    """Paints lips, and the teeth and the dark between them."""

    REACH = 9.0
    TOOTH_GAPS = (0.0, 8.5, 15.0, 22.5)
    """mm from the middle, between central and lateral incisor, canine and premolar."""

    def __init__(self, atlas: UvAtlas, geometry: FaceGeometry) -> None:
        super().__init__()
        outside = self._outside_lips(geometry)
        patch = (outside < self.REACH).nonzero().squeeze(1)
        texel = geometry.texel[patch]
        in_teeth = -signed_distance(atlas, "teeth", whole=True)[patch]
        gap = (geometry.position[0, patch].abs()[:, None] - texel.new_tensor(self.TOOTH_GAPS)).abs().amin(1)
        buffers = {
            "patch": patch,
            "outside": outside[patch],
            "cavity": signed_distance(atlas, "inner_mouth")[patch],
            "lit": torch.exp(
                -(geometry.landmarks_3d[60:68, 2].mean() - geometry.position[2, patch]).clamp(0, 40) / DARK
            ),
            "texel": texel,
            "cupid": torch.exp(-0.5 * (geometry.side[patch] / 2.5).square())
            - 0.7 * torch.exp(-0.5 * ((geometry.side[patch] - 6.5) / 3).square()),
            "corner": soft_step(geometry.side[patch] - 17, 2.5),
            "below": soft_step(geometry.at(62, 66)[1] - geometry.up[patch], 1.5),
            "teeth": soft_step(in_teeth, 0.2, texel),
            "tooth_light": (1 - 0.35 * torch.exp(-gap / 0.5)) * (1 - 0.5 * torch.exp(-in_teeth.clamp_min(0) / 1.5)),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)

    @staticmethod
    def _outside_lips(geometry: FaceGeometry) -> Tensor:
        """(N,) mm from the lips' outline, a smooth curve through the landmarks; negative on the lips and inside."""
        outline = [*range(48, 60), 48]
        ring = smooth_curve(geometry.landmarks_3d[outline])
        distance = distance_to_segments(geometry.position.T, ring[:-1], ring[1:], 30.0)
        flat = smooth_curve(geometry.landmarks[outline])[:-1]
        inside = inside_polygon(torch.stack([geometry.signed, geometry.up], 1), flat)
        return torch.where(inside, -distance, distance)

    def beyond(self, lips: Lips) -> Tensor:
        """(B, P) mm from the outline of a person's lips, negative on them."""
        rim, lower_rim, bow, width = (x[:, None] for x in (lips.rim, lips.lower_rim, lips.bow, lips.width))
        middle = torch.lerp(rim - bow * self.cupid, lower_rim, self.below)
        return self.outside - torch.lerp(middle, width.expand_as(middle), self.corner)

    def mask(self, lips: Lips) -> Tensor:
        """(B, P) share of each texel of the patch that is lip."""
        return soft_step(-self.beyond(lips), 0.6 * lips.softness[:, None], self.texel)

    def pigments(self, lips: Lips, melanin: Tensor) -> Tensor:
        """(B, 3, P) pigments that the lips add to the skin's."""
        mask = self.mask(lips)
        own = lips.pigments * torch.stack([melanin, torch.ones_like(melanin), torch.ones_like(melanin)], 1)
        added = own[..., None] * mask[:, None]
        pinker = (lips.lower[:, None] * self.below * mask).clamp(-0.6, 1.2)
        added[:, 0] -= 0.12 * melanin[:, None] * pinker
        added[:, 1] += 0.30 * pinker
        border = lips.border[:, None] * stroke(self.beyond(lips) - 1.6, 1.1, self.texel)
        added[:, 0] -= melanin[:, None] * border
        return added

    def forward(self, canvas: Canvas, lips: Lips, lines_BN: Tensor) -> None:
        """Gloss, relief, lipstick and the mouth's inside; `lines_BN` is noise stretched upwards."""
        mask = self.mask(lips)
        lines = lines_BN[:, self.patch]
        canvas.gloss[:, self.patch] += mask * (lips.gloss[:, None] * (1 - 0.05 * lines) - canvas.gloss[:, self.patch])
        lines = lines * soft_step(self.cavity - 0.5, 0.5)
        canvas.height[:, self.patch] += mask * lips.lines[:, None] * lines
        contrast = 0.7 * lips.lines[:, None]
        canvas.tint(self.patch, (1 - contrast * mask * lines.clamp(-2, 2))[:, None])
        edge = lips.stick_opacity[:, None] * soft_step(0.2 - self.beyond(lips), 0.25, self.texel)
        canvas.cover(self.patch, edge, lips.stick)
        self._paint_cavity(canvas, lips)

    def _paint_cavity(self, canvas: Canvas, lips: Lips) -> None:
        seam = stroke(self.cavity.clamp_min(0), 1.2, self.texel)
        canvas.tint(self.patch, 1 - 0.45 * seam)
        inside = soft_step(-self.cavity - 0.3, 0.3, self.texel).expand(len(lips.gloss), -1)
        flesh = canvas.diffuse.new_tensor([MOUTH])[..., None] * self.lit
        canvas.cover(self.patch, inside, flesh, 0.45 * self.lit)
        teeth = lips.teeth[..., None] * (self.tooth_light * (0.5 + 0.5 * self.lit))
        canvas.cover(self.patch, inside * self.teeth, teeth, 0.6)
