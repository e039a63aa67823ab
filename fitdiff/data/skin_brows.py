"""Brows: a tapering arch of hairs that rise at the inner end and lie down towards the tail.

Legend of shape suffixes: B people · P texels of the patch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fitdiff.data.skin_canvas import columns, soft_step
from fitdiff.data.skin_geometry import FaceGeometry, height_above, smooth_curve
from fitdiff.data.skin_hair_colour import HairPigments, hair_colour
from fitdiff.data.skin_noise import PatchNoise
from fitdiff.randomness import Draws
from fitdiff.types import TensorRecord


@dataclass(frozen=True)
class Brows(TensorRecord):
    """Brow shape and look; (B,) mm unless said otherwise.

    Attributes:
        colour: (B, 3) linear. opacity: 0 to 1. thickness: full height at the thick part. lift, arch, tilt: displacement
            of the whole, of the peak, and outer minus inner end. peak, width: place and spread of the arch, and start,
            end, in lengths of the mean brow. taper: power of the thinning towards the tail, 1 early to 5 late. sparse:
            share of hairs missing at both ends. softness: of the edges. ragged: how far hairs stand out. hairiness:
            contrast of the hairs, 0 to 1. join: hair between the brows, 0 to 1.
    """

    colour: Tensor
    opacity: Tensor
    thickness: Tensor
    lift: Tensor
    arch: Tensor
    tilt: Tensor
    peak: Tensor
    width: Tensor
    start: Tensor
    end: Tensor
    taper: Tensor
    sparse: Tensor
    softness: Tensor
    ragged: Tensor
    hairiness: Tensor
    join: Tensor


def sample_brows(draws: Draws, hair: HairPigments, age: Tensor, male: Tensor, made_up: Tensor) -> Brows:
    """Draw them: women's thinner, higher and more arched, made-up ones denser and sharper, old ones sparse."""
    grey = hair.grey * draws.uniform(0.0, 0.7)
    darker = draws.normal(0.12, 0.15) + 0.1 * made_up
    kept = 1 - 0.6 * made_up  # plucked and filled: less of nature's variation at the edges
    return Brows(
        colour=hair_colour((hair.eumelanin + darker).clamp(0.12, 1.1), hair.pheomelanin, grey),
        opacity=(draws.normal(0.78, 0.17) + 0.08 * male + 0.12 * made_up - 0.15 * age - 0.1 * grey).clamp(0.22, 0.97),
        thickness=((5.6 + 2.6 * male - 0.9 * made_up) * torch.exp(draws.normal(std=0.40))).clamp(2.2, 12.0),
        lift=draws.normal(-0.8 * male, 2.7),
        arch=draws.normal(1.3 - 1.4 * male, 2.5),
        tilt=draws.normal(std=3.2),
        peak=draws.uniform(0.48, 0.80),
        width=draws.uniform(0.17, 0.34),
        start=draws.normal(0.04 - 0.05 * male, 0.08),
        end=draws.normal(0.93, 0.09),
        taper=1.3 + 3.7 * draws.uniform().square(),
        sparse=draws.uniform(0.1, 0.7) * (1 - 0.4 * made_up),
        softness=draws.uniform(0.45, 1.0) * (1 - 0.25 * made_up),
        ragged=draws.uniform(0.2, 0.8) * kept,
        hairiness=draws.uniform(0.12, 0.35) * (1 - 0.4 * made_up),
        join=male.clamp_min(0.3) * kept * (draws.uniform() - 0.72).clamp_min(0) / 0.28,
    )


class BrowPainter(nn.Module):
    """Coverage of the skin by brow hairs."""

    def __init__(self, geometry: FaceGeometry) -> None:
        super().__init__()
        inner, outer = geometry.at(22), geometry.at(26)
        reach = (geometry.side < outer[0] + 8) & (geometry.up > min(inner[1], outer[1]) - 14)
        patch = (reach & (geometry.up < geometry.at(24)[1] + 16)).nonzero().squeeze(1)
        side, up = geometry.side[patch], geometry.up[patch]
        curve = smooth_curve(geometry.landmarks[22:27])
        self.register_buffer("patch", patch, persistent=False)
        self.register_buffer("along", (side - inner[0]) / (outer[0] - inner[0]), persistent=False)
        # Between the brows the reference line is level, so that joined brows do not meet in a point.
        level = torch.maximum(side, inner[0])
        self.register_buffer("above", height_above(level, up, curve), persistent=False)
        self.register_buffer("texel", geometry.texel[patch], persistent=False)
        self.length = (outer[0] - inner[0]).item()
        # Hairs rise steeply at the inner end and lie along the brow at its tail: level sets of `strand` are hairs.
        lean = torch.deg2rad(65 - 50 * self.along.clamp(0, 1))
        self.register_buffer("strand", self.above * lean.cos() - self._run_of_hairs(), persistent=False)
        other_side = 66.0 * (geometry.signed[patch] < 0)
        place = torch.stack([self.strand + other_side, self.along * self.length], 1)
        extent = ((-60, 72), (-12, 60))
        self.hairs = PatchNoise(place, extent, (0.4, 2.2), self.texel)
        self.tufts = PatchNoise(place, extent, (0.75, 4.0), self.texel)

    def _run_of_hairs(self) -> Tensor:
        """Integral of sin(lean) along the brow, mm."""
        t = torch.linspace(-0.3, 1.4, 200).to(self.along)
        rate = torch.deg2rad(65 - 50 * t.clamp(0, 1)).sin() * self.length
        total = torch.cat([rate[:1] * 0, ((rate[1:] + rate[:-1]) / 2 * (t[1] - t[0])).cumsum(0)])
        x = ((self.along + 0.3) / 1.7 * 199).clamp(0, 198.99)
        i = x.long()
        return torch.lerp(total[i], total[i + 1], x - i)

    def forward(self, brows: Brows, hairs_BP: Tensor, tufts_BP: Tensor) -> Tensor:
        """(B, P) coverage in [0, 1] on the patch; unit-variance noise along single hairs and along tufts of them."""
        b = columns(brows)
        t = (self.along - b["start"]) / (b["end"] - b["start"])
        peak = torch.exp(-0.5 * ((t - b["peak"]) / b["width"]).square())
        above = self.above - b["lift"] - b["arch"] * (peak - 0.35) - b["tilt"] * (self.along - 0.5)
        inside = t.clamp(0, 1)
        half = 0.5 * b["thickness"] * (0.62 + 0.38 * torch.sigmoid((t - 0.2) * 11)) * (1 - inside ** b["taper"]).sqrt()
        stray = b["ragged"] * (0.6 * tufts_BP + 0.6 * hairs_BP)
        # Hairs stand out along the upper edge; the lower one is denser and cleaner.
        upper_edge = soft_step(half - above + stray, 0.75 * b["softness"], self.texel)
        lower_edge = soft_step(half + above + 0.4 * stray, 0.5 * b["softness"], self.texel)
        thinning = 1 - b["sparse"] * ((1 - t / 0.35).clamp(0, 1) + 0.7 * ((t - 0.5) / 0.5).clamp(0, 1).square())
        mm = t * self.length + 1.5 * stray
        ends = soft_step(mm, 1.2 * b["softness"] + 1.0)
        joined = torch.maximum(ends, 0.7 * b["join"].expand_as(ends))
        tail = soft_step((1 - t) * self.length + stray, 1.2)
        density = b["opacity"] * upper_edge * lower_edge * joined * thinning.clamp_min(0.15) * tail
        return (density * (1 + b["hairiness"] * torch.tanh(hairs_BP + 0.6 * tufts_BP))).clamp(0, 1)
