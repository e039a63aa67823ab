"""Hair of the face: brows, beard and the hairline, as coverage of the skin by hair of one person's colour.

Legend of shape suffixes: B people · P texels of a patch · Z beard zones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fitdiff.data.skin_canvas import columns, soft_step
from fitdiff.data.skin_geometry import FaceGeometry, height_above, nearest_on_polyline, smooth_curve
from fitdiff.data.skin_noise import PatchNoise
from fitdiff.randomness import Draws
from fitdiff.types import TensorRecord

WHITE_BLOND = (0.62, 0.50, 0.34)
EUMELANIN = (3.9, 4.1, 3.9)
PHEOMELANIN = (0.10, 0.60, 1.35)
GREY = (0.42, 0.375, 0.32)


def hair_colour(eumelanin_B: Tensor, pheomelanin_B: Tensor, grey_B: Tensor) -> Tensor:
    """(B, 3) linear colour: base * exp(-eumelanin e - pheomelanin p), mixed with grey by its share."""
    like = eumelanin_B
    absorbed = eumelanin_B[:, None] * like.new_tensor(EUMELANIN) + pheomelanin_B[:, None] * like.new_tensor(PHEOMELANIN)
    colour = like.new_tensor(WHITE_BLOND) * torch.exp(-absorbed)
    return torch.lerp(colour, like.new_tensor(GREY), grey_B[:, None])


@dataclass(frozen=True)
class Brows(TensorRecord):
    """Brow shape and look; (B,) mm unless said otherwise.

    Attributes:
        colour: (B, 3) linear. opacity: 0 to 1. thickness: full height at the thick part. lift, arch, tilt: displacement
            of the whole, of the peak, and outer minus inner end. start, end: in lengths of the mean brow. softness:
            of the edges. hairiness: contrast of the hairs, 0 to 1.
    """

    colour: Tensor
    opacity: Tensor
    thickness: Tensor
    lift: Tensor
    arch: Tensor
    tilt: Tensor
    start: Tensor
    end: Tensor
    softness: Tensor
    hairiness: Tensor


@dataclass(frozen=True)
class Beard(TensorRecord):
    """Beard: `colour` (B, 3) linear and `zones` (B, Z) coverage in [0, 1] of each of `ZONES`, shadow included."""

    colour: Tensor
    zones: Tensor


@dataclass(frozen=True)
class Hairline(TensorRecord):
    """Scalp hair as far as the face reaches it.

    Attributes:
        colour: (B, 3) linear. opacity: (B,) 0 bald to 1.
        height: (B,) mm above the brows at the middle. corners: (B,) mm that the hair recedes at the temples.
        peak: (B,) mm of widow's peak. side: (B,) mm that the hair comes forward (+) at the sides.
        softness: (B,) mm. bottom: (B,) mm above the eyes, where hair beside the face ends.
    """

    colour: Tensor
    opacity: Tensor
    height: Tensor
    corners: Tensor
    peak: Tensor
    side: Tensor
    softness: Tensor
    bottom: Tensor


ZONES = ("moustache", "soul_patch", "chin", "circle", "jaw", "cheek", "sideburn")
STYLES = {
    "shaven": (1.0, 0.7, 1.0, 0.9, 0.9, 0.55, 0.6),
    "full": (1.0, 0.8, 1.0, 1.0, 1.0, 0.9, 0.9),
    "goatee": (0.9, 0.8, 1.0, 0.9, 0.1, 0.0, 0.2),
    "moustache": (1.0, 0.1, 0.1, 0.1, 0.1, 0.05, 0.2),
    "chin_strap": (0.3, 0.4, 0.9, 0.2, 1.0, 0.1, 0.9),
}
"""Relative coverage of the zones."""
STYLE_ODDS = (0.46, 0.28, 0.12, 0.08, 0.06)


@dataclass(frozen=True)
class Hair(TensorRecord):
    """All hair of a face."""

    brows: Brows
    beard: Beard
    hairline: Hairline


def sample_hair(draws: Draws, race_B3: Tensor, age: Tensor, male: Tensor, made_up: Tensor) -> Hair:
    """Draw it: dark for african and asian ancestry, black to blond or red for caucasian, greying from about 45."""
    fair = race_B3[:, 2].pow(1.5)
    eumelanin = 1 - fair * draws.uniform(0.0, 0.95) + draws.normal(std=0.05)
    pheomelanin = 0.25 + 0.5 * fair * draws.uniform() + fair * draws.chance(0.12) * 0.9
    greying = torch.sigmoid((age - 0.52 + draws.normal(std=0.13)) / 0.08)
    head_grey, brow_grey = greying, greying * draws.uniform(0.0, 0.7)
    brow_dark = draws.normal(0.12, 0.08)
    brows = Brows(
        colour=hair_colour((eumelanin + brow_dark).clamp(0.12, 1.1), pheomelanin, brow_grey),
        opacity=(draws.normal(0.76, 0.13) + 0.08 * male + 0.12 * made_up - 0.15 * age).clamp(0.25, 0.97),
        thickness=((5.4 + 2.4 * male - 0.8 * made_up) * torch.exp(draws.normal(std=0.32))).clamp(2.5, 11.0),
        lift=draws.normal(-0.8 * male, 2.0),
        arch=draws.normal(0.9 - 1.2 * male, 1.7),
        tilt=draws.normal(std=2.2),
        start=draws.normal(0.04 - 0.04 * male, 0.07),
        end=draws.normal(0.93, 0.08),
        softness=draws.uniform(0.5, 1.1) - 0.2 * made_up,
        hairiness=draws.uniform(0.12, 0.32) * (1 - 0.4 * made_up),
    )
    beard = _sample_beard(draws, eumelanin, pheomelanin, greying, male, age)
    balding = male * torch.sigmoid((age - 0.55 + draws.normal(std=0.3)) / 0.12)
    hairline = Hairline(
        colour=hair_colour(eumelanin.clamp(0.05, 1.1), pheomelanin, head_grey),
        opacity=((0.78 + 0.4 * draws.uniform()).clamp_max(1) * (1 - balding * draws.uniform(0.3, 1.0))).clamp(0, 1),
        height=draws.normal(47.0, 7.0) + 12 * balding,
        corners=(draws.normal(3.0, 3.0) + 5 * male + 14 * balding).clamp_min(-2),
        peak=draws.normal(1.0, 2.0).clamp_min(0),
        side=draws.normal(1.0, 5.0),
        softness=draws.uniform(1.5, 4.0),
        bottom=torch.where(draws.uniform() < 0.12 + 0.75 * (1 - male), -300.0, draws.normal(-14.0, 9.0)),
    )
    return Hair(brows, beard, hairline)


def _sample_beard(
    draws: Draws, eumelanin: Tensor, pheomelanin: Tensor, greying: Tensor, male: Tensor, age: Tensor
) -> Beard:
    style = torch.searchsorted(torch.tensor(STYLE_ODDS).cumsum(0), draws.uniform()).clamp_max(len(STYLES) - 1)
    shape = torch.tensor(list(STYLES.values()))[style]
    growth = torch.where(style == 0, draws.uniform(0.0, 0.30), draws.uniform(0.35, 0.95))
    fullness = torch.exp(torch.stack([draws.normal(std=0.25) for _ in ZONES], 1))
    grown = torch.sigmoid((male - 0.62) / 0.06)
    colour = hair_colour(
        (eumelanin + draws.normal(-0.05, 0.08)).clamp(0.1, 1.1), pheomelanin * 1.3, greying * draws.uniform(0.4, 1.0)
    )
    return Beard(colour, (shape * (growth * grown)[:, None] * fullness).clamp(0, 0.97))


class BrowPainter(nn.Module):
    """Coverage of the skin by brow hairs."""

    def __init__(self, geometry: FaceGeometry) -> None:
        super().__init__()
        inner, outer = geometry.at(22), geometry.at(26)
        reach = (geometry.side > 0.5) & (geometry.side < outer[0] + 8)
        reach &= (geometry.up > min(inner[1], outer[1]) - 12) & (geometry.up < geometry.at(24)[1] + 14)
        patch = reach.nonzero().squeeze(1)
        side, up = geometry.side[patch], geometry.up[patch]
        curve = smooth_curve(geometry.landmarks[22:27])
        self.register_buffer("patch", patch, persistent=False)
        self.register_buffer("along", (side - inner[0]) / (outer[0] - inner[0]), persistent=False)
        self.register_buffer("above", height_above(side, up, curve), persistent=False)
        self.register_buffer("texel", geometry.texel[patch], persistent=False)
        self.length = (outer[0] - inner[0]).item()
        # Hairs rise steeply at the inner end and lie along the brow at its tail: level sets of `strand` are hairs.
        lean = torch.deg2rad(65 - 50 * self.along.clamp(0, 1))
        self.register_buffer("strand", self.above * lean.cos() - self._run_of_hairs(), persistent=False)
        other_side = 66.0 * (geometry.signed[patch] < 0)
        place = torch.stack([self.strand + other_side, self.along * self.length], 1)
        self.hairs = PatchNoise(place, ((-60, 72), (-8, 60)), (0.3, 2.2), self.texel)

    def _run_of_hairs(self) -> Tensor:
        """Integral of sin(lean) along the brow, mm."""
        t = torch.linspace(-0.3, 1.4, 200).to(self.along)
        rate = torch.deg2rad(65 - 50 * t.clamp(0, 1)).sin() * self.length
        total = torch.cat([rate[:1] * 0, ((rate[1:] + rate[:-1]) / 2 * (t[1] - t[0])).cumsum(0)])
        x = ((self.along + 0.3) / 1.7 * 199).clamp(0, 198.99)
        i = x.long()
        return torch.lerp(total[i], total[i + 1], x - i)

    def forward(self, brows: Brows, hairs_BP: Tensor) -> Tensor:
        """(B, P) coverage in [0, 1] on the patch; `hairs_BP` is unit-variance noise stretched along the hairs."""
        b = columns(brows)
        t = (self.along - b["start"]) / (b["end"] - b["start"])
        peak = torch.exp(-0.5 * ((t - 0.68) / 0.24).square())
        above = self.above - b["lift"] - b["arch"] * (peak - 0.35) - b["tilt"] * (self.along - 0.5)
        profile = (0.72 + 0.28 * torch.sigmoid((t - 0.18) * 14)) * (1 - t.clamp(0, 1).pow(2.6)).clamp_min(0) ** 0.8
        half = 0.5 * b["thickness"] * profile
        # Sparse at the inner end and along the upper edge, denser along the lower edge.
        upper_edge = soft_step(half - above, 0.75 * b["softness"], self.texel)
        lower_edge = soft_step(half + above, 0.55 * b["softness"], self.texel)
        ends = soft_step(t * self.length - 0.8, 1.6 * b["softness"] + 0.8) * soft_step((1 - t) * self.length, 2.0)
        density = b["opacity"] * upper_edge * lower_edge * ends
        texture = 1 + b["hairiness"] * torch.tanh(hairs_BP)
        return (density * texture).clamp(0, 1)


class BeardPainter(nn.Module):
    """Coverage by beard: smooth zones, broken up by noise."""

    def __init__(self, geometry: FaceGeometry) -> None:
        super().__init__()
        zones = _beard_zones(geometry)
        patch = (zones.amax(0) > 0.01).nonzero().squeeze(1)
        self.register_buffer("patch", patch, persistent=False)
        self.register_buffer("zones_ZP", zones[:, patch], persistent=False)

    def forward(self, beard: Beard, patchiness_BN: Tensor, hairs_BN: Tensor) -> Tensor:
        """(B, P) coverage in [0, 1] on the patch."""
        bare = torch.ones(len(beard.zones), 1, device=self.zones_ZP.device)
        for zone, amount in zip(self.zones_ZP, beard.zones.unbind(1), strict=True):
            bare = bare * (1 - amount[:, None] * zone)
        density = 1 - bare
        rough = 1 + 0.10 * patchiness_BN[:, self.patch] + 0.18 * hairs_BN[:, self.patch]
        return (density * rough).clamp(0, 1)


def _beard_zones(g: FaceGeometry) -> Tensor:
    """(Z, N) the zones of `ZONES`, each 0 to 1 and smooth."""
    texels = torch.stack([g.side, g.up], 1)
    moustache = torch.stack(
        [g.at(33, 51), g.at(33, 35, 52, 53, up=-1), g.at(54, side=2, up=2), g.at(54, side=5, up=-6)]
    )
    circle = torch.stack([g.at(54, side=4, up=-2), g.at(54, side=5, up=-12), g.at(8, 54, side=4, up=-6)])
    edge = torch.stack(
        [
            g.at(8, up=14),
            g.at(8, 54, side=8, up=4),
            g.at(54, side=18, up=-2),
            g.at(13, side=-14, up=4),
            g.at(15, side=-4),
        ]
    )

    def band(points: Tensor, half_width: float, softness: float) -> Tensor:
        distance, _ = nearest_on_polyline(texels, smooth_curve(points))
        return soft_step(half_width - distance, softness)

    below = -height_above(g.side, g.up, smooth_curve(edge))
    beyond = soft_step(g.side - g.at(14)[0] + 16, 4.0)
    sideburn = beyond * soft_step(g.at(16)[1] + 22 - g.up, 4.0)
    return torch.stack(
        [
            band(moustache, 4.2, 1.3),
            g.bump(g.at(57, up=-6), (5, 4)),
            g.bump(g.at(8, up=4), (17, 11)),
            band(circle, 4.0, 1.6),
            soft_step(below - 14, 5.0),
            soft_step(below, 3.5) * soft_step(g.side - 22, 4.0),
            sideburn,
        ]
    )


class HairlinePainter(nn.Module):
    """Coverage by scalp hair above the forehead and beside the temples."""

    def __init__(self, geometry: FaceGeometry) -> None:
        super().__init__()
        brow = geometry.at(23, 24, 25)
        self.register_buffer("above", geometry.up - brow[1], persistent=False)
        self.register_buffer("up", geometry.up, persistent=False)
        self.register_buffer("side", geometry.side, persistent=False)
        self.register_buffer("texel", geometry.texel, persistent=False)
        self.temple = geometry.at(26)[0].item()

    def forward(self, hairline: Hairline, wobble_BN: Tensor, strands_BN: Tensor) -> Tensor:
        """(B, N) coverage in [0, 1]."""
        h = columns(hairline)
        corner = torch.exp(-0.5 * ((self.side - 0.72 * self.temple) / 13).square())
        peak = torch.exp(-0.5 * (self.side / 9).square())
        fall = 0.028 * (self.side - 0.45 * self.temple - h["corners"]).clamp_min(0).square()
        edge = (
            h["height"]
            + h["corners"] * corner
            - h["peak"] * peak
            - fall
            - h["side"] * soft_step(self.side - self.temple, 5.0)
        )
        inside = self.above - edge + 1.8 * wobble_BN + 0.8 * h["softness"] * strands_BN
        return h["opacity"] * soft_step(inside, h["softness"], self.texel) * soft_step(self.up - h["bottom"], 4.0)
