"""Eyes: eyeball inside the lids, lids and lashes round it, and their make-up.

Legend of shape suffixes: B people · P texels of the patch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fitdiff.data.atlas import UvAtlas
from fitdiff.data.skin_canvas import Canvas, columns, soft_step, stroke
from fitdiff.data.skin_geometry import FaceGeometry, signed_distance
from fitdiff.data.skin_noise import PatchNoise
from fitdiff.randomness import Draws
from fitdiff.types import TensorRecord

IRIS_COLOURS = (
    (0.230, 0.330, 0.430),  # light blue
    (0.155, 0.195, 0.225),  # blue-grey
    (0.165, 0.175, 0.115),  # green
    (0.175, 0.125, 0.060),  # hazel
    (0.095, 0.048, 0.022),  # brown
    (0.042, 0.020, 0.012),  # dark brown
    (0.018, 0.010, 0.008),  # nearly black
)
"""Linear; from no melanin in the iris to most."""

SCLERA = (0.52, 0.47, 0.425)
CARUNCLE = (0.52, 0.24, 0.20)
LASH = (0.012, 0.010, 0.009)
EYE_GLOSS = 0.45
"""F0 0.036, between tear film and its meniscus: the renderer's one broad lobe would veil the pupil under more."""
MARGIN = 1.5
"""mm from the rim of the eyeball, under the upper lid, to the lashes on the lid's edge."""
FOLD_SHADE = (0.36, 0.60, 0.55)
"""Darkening of the albedo in the fold of the upper lid."""
HOLLOW_SHADE = (0.75, 1.0, 0.9)
"""Darkening of the albedo in the hollows round the eye."""


@dataclass(frozen=True)
class Eyes(TensorRecord):
    """Look of both eyes; (B,) unless said otherwise.

    Attributes:
        iris: (B, 3) linear, outer part; heart: (B, 3) linear, round the pupil. radius, pupil: mm.
        limbus: darkness of the ring round the iris. fibres: contrast of its strands. sclera: (B, 3) linear.
        crease_height: mm above the lid's edge; crease: strength, 0 for a single lid. lid: darkening of the lids.
        veins: redness of the vessels in it. socket: shade of the hollow above the lid; bags: below the lower one.
        lashes: darkness of the upper lash line; lash_width: mm. lower_lashes: darkness.
        shadow: (B, 3) linear colour of the eye shadow; shadow_opacity: 0 to 1; liner: opacity; liner_width, wing: mm.
    """

    iris: Tensor
    heart: Tensor
    radius: Tensor
    pupil: Tensor
    limbus: Tensor
    fibres: Tensor
    sclera: Tensor
    veins: Tensor
    socket: Tensor
    bags: Tensor
    crease_height: Tensor
    crease: Tensor
    lashes: Tensor
    lash_width: Tensor
    lower_lashes: Tensor
    shadow: Tensor
    shadow_opacity: Tensor
    liner: Tensor
    liner_width: Tensor
    wing: Tensor


SHADOWS = (
    (0.30, 0.17, 0.12),
    (0.10, 0.06, 0.05),
    (0.28, 0.14, 0.20),
    (0.08, 0.10, 0.18),
    (0.45, 0.33, 0.22),
    (0.12, 0.16, 0.12),
)


def palette(colours: tuple[tuple[float, float, float], ...], place: Tensor) -> Tensor:
    """(B,) in [0, 1] -> (B, 3): geometric interpolation between neighbouring colours."""
    table = place.new_tensor(colours).log()
    x = place.clamp(0, 1) * (len(colours) - 1)
    i = x.long().clamp_max(len(colours) - 2)
    return torch.lerp(table[i], table[i + 1], (x - i)[:, None]).exp()


def sample_eyes(draws: Draws, race_B3: Tensor, age: Tensor, male: Tensor, made_up: Tensor) -> Eyes:
    """Draw it: light eyes go with caucasian ancestry, low creases with asian, shadow and liner with make-up."""
    fair = race_B3[:, 2].pow(1.3)
    place = 1 - fair * draws.uniform(0.0, 1.0) - draws.uniform(0.0, 0.32)
    iris = palette(IRIS_COLOURS, place) * torch.exp(draws.normal(std=0.15))[:, None]
    heart = palette(IRIS_COLOURS, (place + draws.normal(0.05, 0.10)).clamp(0.25, 0.9)) * 1.25
    tint = torch.stack(
        [0.02 * age + draws.normal(std=0.02), draws.normal(std=0.01), -0.05 * age + draws.normal(std=0.02)], 1
    )
    asian = race_B3[:, 1]
    single = torch.sigmoid((asian - 0.55 + draws.normal(std=0.3)) / 0.12)
    strong = draws.uniform() * made_up
    return Eyes(
        iris=iris,
        heart=heart,
        radius=draws.normal(5.85, 0.25),
        pupil=draws.normal(1.8, 0.35).clamp(1.0, 2.8),
        limbus=draws.uniform(0.25, 0.75),
        fibres=draws.uniform(0.08, 0.25),
        sclera=age.new_tensor(SCLERA) * torch.exp(tint) * torch.exp(draws.normal(std=0.05))[:, None],
        veins=draws.uniform(0.02, 0.14) + 0.08 * age,
        socket=draws.normal(0.12, 0.17).clamp(-0.1, 0.6),
        bags=draws.normal(0.02 + 0.14 * age, 0.11).clamp(-0.06, 0.4) * (1 - 0.5 * made_up),
        crease_height=(draws.normal(4.6, 1.0) - 1.6 * asian).clamp(2.0, 7.0),
        crease=draws.uniform(0.5, 1.2) * (1 - 0.75 * single),
        lashes=(draws.uniform(0.30, 0.80) + 0.15 * (1 - male)).clamp(0, 0.95),
        lash_width=draws.uniform(0.45, 0.9) + 0.25 * (1 - male) + 0.5 * made_up * draws.uniform(),
        lower_lashes=draws.uniform(0.05, 0.35),
        shadow=palette(SHADOWS, draws.uniform()),
        shadow_opacity=0.75 * strong,
        liner=made_up * draws.uniform(0.0, 1.1).clamp_max(0.95),
        liner_width=draws.uniform(0.5, 1.5),
        wing=made_up * draws.uniform(-3.0, 5.0).clamp_min(0),
    )


class EyePainter(nn.Module):
    """Paints eyeballs, lids, lashes and their make-up.

    Distances are in mm through space: `outside` from the lids' edge, `radius` from the middle of the iris as seen from
    the front.
    """

    REACH = 15.0

    def __init__(self, atlas: UvAtlas, geometry: FaceGeometry) -> None:
        super().__init__()
        outside = signed_distance(atlas, "eyes")
        patch = (outside < self.REACH).nonzero().squeeze(1)
        ball = atlas.mean[atlas.topology.regions["eyes"]]
        centre, _ = fit_sphere(ball[ball[:, 0] > 0])
        x = geometry.position[0, patch].abs() - centre[0]  # outwards from the pupil, on both sides
        y = geometry.position[1, patch] - centre[1]
        inner, outer = (geometry.landmarks_3d[i] - centre for i in (42, 45))
        above_corners = y - inner[1] - (outer[1] - inner[1]) * (x - inner[0]) / (outer[0] - inner[0])
        buffers = {
            "patch": patch,
            "texel": geometry.texel[patch],
            "outside": outside[patch],
            "radius": torch.hypot(x, y),
            "upper": soft_step(above_corners, 0.8),
            "caruncle": soft_step(inner[0] + 3.2 - x, 0.7),
            "outer_end": soft_step(x - outer[0] + 5, 1.5),
            "crease_span": soft_step(x - inner[0] + 1, 1.5) * soft_step(outer[0] + 3 - x, 1.5),
            "beyond": x - outer[0],
            "above_wing": above_corners - 0.45 * (x - outer[0] + 2),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)
        turn = geometry.signed[patch].sign() * 40 + torch.atan2(y, x) * 6  # each eye has strands of its own
        wedge = self.texel * 6 / self.radius.clamp_min(1.5)
        self.fibres = PatchNoise(torch.stack([turn, self.radius], 1), ((-60, 60), (0, 8)), (0.5, 2.5), wedge)

    def forward(self, canvas: Canvas, eyes: Eyes, fibres_BP: Tensor) -> None:
        """Change the canvas in place; `fibres_BP` is noise from `self.fibres`."""
        self._paint_lids(canvas, eyes)
        self._paint_shadow(canvas, eyes)
        self._paint_eyeball(canvas, eyes, fibres_BP)
        self._paint_lashes(canvas, eyes, fibres_BP)

    def _paint_lids(self, canvas: Canvas, eyes: Eyes) -> None:
        e = columns(eyes)
        fold = e["crease"] * self.upper * self.crease_span * stroke(self.outside - e["crease_height"], 0.7, self.texel)
        canvas.tint(self.patch, torch.exp(-fold[:, None] * canvas.diffuse.new_tensor(FOLD_SHADE)[:, None]))
        canvas.height[:, self.patch] -= 0.30 * fold
        hollow = e["socket"] * self.upper * torch.exp(-0.5 * ((self.outside - e["crease_height"] - 1) / 4).square())
        bag = e["bags"] * (1 - self.upper) * torch.exp(-0.5 * ((self.outside - 7) / 2.5).square())
        shade = (self.outside > 0) * (hollow + bag)
        canvas.tint(self.patch, torch.exp(-shade[:, None] * canvas.diffuse.new_tensor(HOLLOW_SHADE)[:, None]))
        waterline = (1 - self.upper) * stroke(self.outside - 0.5, 0.5, self.texel)
        canvas.tint(self.patch, 1 + waterline * canvas.diffuse.new_tensor([[0.10], [-0.16], [-0.12]]))
        canvas.gloss[:, self.patch] += 0.15 * waterline

    def _paint_shadow(self, canvas: Canvas, eyes: Eyes) -> None:
        e = columns(eyes)
        lid = self.upper * soft_step(e["crease_height"] + 3 - self.outside, 1.6)
        corner = 0.45 * self.outer_end * soft_step(3.5 - self.outside, 1.2)
        canvas.cover(self.patch, (e["shadow_opacity"] * (lid + corner)).clamp(0, 0.9), eyes.shadow)

    def _paint_eyeball(self, canvas: Canvas, eyes: Eyes, fibres_BP: Tensor) -> None:
        ball = torch.lerp(self._sclera(eyes, fibres_BP), self._iris(eyes, fibres_BP), self._disc(eyes.radius)[:, None])
        lid_shade = 1 - (0.72 * self.upper + 0.13) * torch.exp(self.outside.clamp_max(0) / (1.5 + 2.0 * self.upper))
        inside = soft_step(-self.outside, 0.12, self.texel).expand(len(ball), -1)
        canvas.cover(self.patch, inside, ball * lid_shade, EYE_GLOSS)

    def _disc(self, radius_B: Tensor) -> Tensor:
        """(B, P) share of each texel within a distance of the pupil's middle."""
        return soft_step(radius_B[:, None] - self.radius, 0.15, self.texel)

    def _sclera(self, eyes: Eyes, fibres_BP: Tensor) -> Tensor:
        caruncle = eyes.sclera.new_tensor(CARUNCLE)[:, None]
        sclera = torch.lerp(eyes.sclera[..., None], caruncle, 0.75 * self.caruncle)
        vessels = eyes.veins[:, None] * (0.5 + fibres_BP).clamp(0, 2) * ((self.radius - 6) / 5).clamp(0, 1)
        redder = 1 - vessels[:, None] * sclera.new_tensor([[0.3], [1.0], [0.9]])
        return sclera * redder * (1 - 0.10 * (self.radius / 12).clamp(0, 1).square())

    def _iris(self, eyes: Eyes, fibres_BP: Tensor) -> Tensor:
        e = columns(eyes)
        heart = 0.55 * torch.exp(-0.5 * ((self.radius / e["radius"] - 0.38) / 0.16).square())
        colour = torch.lerp(eyes.iris[..., None], eyes.heart[..., None], heart[:, None])
        limbus = 1 - e["limbus"] * stroke(self.radius - e["radius"] + 0.3, 0.6, self.texel)
        strands = (1 + e["fibres"] * fibres_BP).clamp(0.4, 1.8)
        return colour * (limbus * strands * (1 - 0.985 * self._disc(eyes.pupil)))[:, None]

    def _paint_lashes(self, canvas: Canvas, eyes: Eyes, fibres_BP: Tensor) -> None:
        e = columns(eyes)
        lash_width = e["lash_width"] * (1 + 0.35 * torch.tanh(fibres_BP))
        liner = stroke(self.outside - 0.3 - MARGIN * self.upper, e["liner_width"], self.texel)
        lower = 1 - self.upper
        bare = [
            1 - e["lashes"] * self.upper * stroke(self.outside - MARGIN, lash_width, self.texel),
            1 - e["lower_lashes"] * lower * stroke(self.outside - 0.9, 0.45, self.texel),
            1 - 0.9 * e["liner"] * (self.upper + 0.35 * lower) * liner,
            1 - 0.85 * e["liner"] * self._wing(e["wing"]),
        ]
        dark = (1 - math.prod(bare)) * (1 - 0.8 * self.caruncle)
        canvas.cover(self.patch, dark.clamp(0, 0.97), canvas.diffuse.new_tensor([LASH]), 0.2)

    def _wing(self, length_B1: Tensor) -> Tensor:
        """(B, P) a stroke of liner beyond the outer corner, thinning to its tip."""
        thickness = 0.9 * (1 - self.beyond / (length_B1 + 0.5)).clamp(0.15, 1)
        along = soft_step(length_B1 - self.beyond, 0.5) * soft_step(self.beyond + 1.5, 0.5)
        return (length_B1 > 0.3) * along * stroke(self.above_wing, thickness, self.texel)


def fit_sphere(points_P3: Tensor) -> tuple[Tensor, Tensor]:
    """Centre (3,) and radius () of the sphere nearest to points: least squares of |p|^2 = 2 p.c + (r^2 - |c|^2)."""
    system = torch.cat([2 * points_P3, torch.ones_like(points_P3[:, :1])], 1).double()
    solution = torch.linalg.lstsq(system, points_P3.double().square().sum(1, keepdim=True)).solution[:, 0]
    centre = solution[:3]
    return centre.to(points_P3), (solution[3] + centre.square().sum()).sqrt().to(points_P3)
