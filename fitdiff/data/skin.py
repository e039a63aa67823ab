"""Procedural skin: phenotypes to reflectance maps of synthetic people.

Everything is a function of the place on the mean face in millimetres, of a person's traits, and of noise on lattices in
millimetres, so that a person is the same at every map size. Painting goes from below to the top: pigments of the skin
(with moles, lips and noise), relief, brows, beard and scalp hair, eyes, make-up; albedo, gloss and height become
`FaceMaps` at the end.

Legend of shape suffixes: B people · N texels · R map side · C noise fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from fitdiff.data.atlas import UvAtlas, slopes_to_normals
from fitdiff.data.skin_canvas import Canvas
from fitdiff.data.skin_eyes import EyePainter, Eyes, sample_eyes
from fitdiff.data.skin_geometry import FaceGeometry
from fitdiff.data.skin_hair import BeardPainter, BrowPainter, Hair, HairlinePainter, sample_hair
from fitdiff.data.skin_mouth import Lips, MouthPainter, sample_lips
from fitdiff.data.skin_random import Draws, SplineNoise, draw_normals, gaussian_spots, mirror
from fitdiff.data.skin_relief import Relief, ReliefPainter, sample_relief
from fitdiff.data.skin_tone import (
    MARK_COUNT,
    REGIONS,
    Complexion,
    Marks,
    RegionBasis,
    pigments_to_albedo,
    sample_complexion,
    sample_marks,
)
from fitdiff.types import FaceMaps, TensorRecord

SMALLEST_DRAWING = 128
"""Smaller maps are drawn at this size and averaged, so that eyes and brows keep their colours."""

TEXELS_AT_ONCE = 1 << 18
"""People are painted in groups of about this many texels, which keeps the layers in the processor's cache."""


class Phenotypes(Protocol):
    """What the skin needs to know of people: (B,) tensors, `race` (B, 3) african, asian, caucasian."""

    index: Tensor
    gender: Tensor
    age: Tensor
    race: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Look(TensorRecord):
    """All traits of people's skin."""

    index: Tensor
    complexion: Complexion
    marks: Marks
    relief: Relief
    hair: Hair
    eyes: Eyes
    lips: Lips
    blush: Tensor
    foundation: Tensor


def sample_look(people: Phenotypes, seed: int) -> Look:
    """Draw the traits of people; those of person i depend on (seed, i) and the phenotypes alone."""
    index = people.index.cpu()
    age, male, weight, race = (x.cpu().float() for x in (people.age, people.gender, people.weight, people.race))

    def draws(part: int) -> Draws:
        return Draws(seed, index, 100 + part)

    habits = draws(0)
    made_up = habits.chance(0.62 * (1 - male).pow(2)) * habits.uniform(0.25, 1.0)
    foundation = made_up * habits.uniform(0.0, 1.0)
    blush = made_up * habits.uniform(0.0, 0.9)
    regions = draw_normals(seed, index, 1, (3, len(REGIONS)))
    complexion = sample_complexion(draws(1), regions, race, age, male)
    melanin = complexion.pigments[:, 0]
    marks = sample_marks(draws(2), draw_normals(seed, index, 2, (MARK_COUNT, 5)), melanin, age, foundation)
    return Look(
        index,
        complexion,
        marks,
        sample_relief(draws(3), age, weight, male),
        sample_hair(draws(4), race, age, male, made_up),
        sample_eyes(draws(5), race, age, male, made_up),
        sample_lips(draws(6), melanin, age, male, made_up),
        blush,
        foundation,
    )


class Octave(nn.Module):
    """One octave of the skin's noise and how much of it each field holds."""

    FIELDS = ("melanin", "blood", "gloss", "height", "wobble", "uneven")

    def __init__(
        self, atlas: UvAtlas, spacing: float, amplitudes: tuple[float, ...], symmetry: float, stream: int
    ) -> None:
        super().__init__()
        self.noise = SplineNoise(atlas, (spacing, spacing))
        self.symmetry, self.stream = symmetry, stream
        self.register_buffer("amplitudes", torch.tensor(amplitudes), persistent=False)

    def forward(self, seed: int, index: Tensor) -> Tensor:
        """(B, C, N) the octave's part of each field."""
        lattice = draw_normals(seed, index, self.stream, (len(self.FIELDS), *self.noise.lattice_shape))
        lattice = mirror(lattice, self.symmetry) * self.amplitudes.cpu()[:, None, None]
        return self.noise(lattice).flatten(2)


OCTAVES = (
    # spacing mm, share of melanin, blood, gloss, height, wobble, uneven; symmetry
    (30.0, (0.62, 0.58, 0.45, 0.0, 0.3, 0.0), 0.6),
    (15.0, (0.50, 0.50, 0.50, 0.3, 0.8, 0.3), 0.5),
    (7.5, (0.42, 0.45, 0.50, 0.6, 0.5, 0.7), 0.3),
    (3.75, (0.32, 0.35, 0.40, 0.7, 0.2, 0.6), 0.0),
    (1.9, (0.24, 0.25, 0.30, 0.3, 0.0, 0.2), 0.0),
    (0.95, (0.16, 0.12, 0.20, 0.1, 0.0, 0.0), 0.0),
)
UNRESOLVED = 0.08
"""Noise that keeps a smaller share of its standard deviation than this is left out."""


class SkinSynthesiser(nn.Module):
    """People's reflectance maps from their phenotypes.

    Args:
        atlas: of the shape model's mean face, at the size R of the maps.
    """

    def __init__(self, atlas: UvAtlas) -> None:
        super().__init__()
        self.size = atlas.size
        self.atlas = drawing = atlas.at_size(max(atlas.size, SMALLEST_DRAWING))
        geometry = FaceGeometry(drawing)
        octaves = [Octave(drawing, *octave, stream=10 + i) for i, octave in enumerate(OCTAVES)]
        self.octaves = nn.ModuleList(o for o in octaves if o.noise.resolved > UNRESOLVED)
        self.strands = SplineNoise(drawing, (0.7, 3.5))
        self.pores = SplineNoise(drawing, (0.5, 0.5))
        self.regions = RegionBasis(geometry)
        self.relief = ReliefPainter(geometry)
        self.brows = BrowPainter(geometry)
        self.beard = BeardPainter(geometry)
        self.hairline = HairlinePainter(geometry)
        self.eyes = EyePainter(drawing, geometry)
        self.mouth = MouthPainter(drawing, geometry)
        self.register_buffer("everywhere", torch.arange(drawing.size**2), persistent=False)
        self.register_buffer("blush_map", geometry.bump(geometry.at(46, 54, side=9, up=8), (13, 9)), persistent=False)
        self.register_buffer("nostrils", _nostrils(geometry), persistent=False)

    @torch.no_grad()
    def forward(self, people: Phenotypes, seed: int) -> FaceMaps:
        """Paint people.

        Args:
            people: of batch B. seed: of the population, non-negative.

        Returns:
            Maps of batch B and side R on the module's device. The same people give the same maps in any batch.
        """
        look = sample_look(people, seed)
        group = max(1, TEXELS_AT_ONCE // self.atlas.size**2)
        starts = range(0, len(look.index), group)
        return FaceMaps.cat([self.paint(look[start : start + group], seed) for start in starts])

    def paint(self, look: Look, seed: int) -> FaceMaps:
        """Maps of people whose traits are given; the seed and `look.index` make their noise."""
        look = look.to(self.blush_map.device)
        noise = self._noise(seed, look.index)
        canvas = self._bare_skin(look, noise)
        strands = self._lattice_noise(self.strands, seed, look.index, 20)
        self._paint_relief(canvas, look, noise, self._lattice_noise(self.pores, seed, look.index, 21))
        self.mouth(canvas, look.lips, strands)
        self._paint_hair(canvas, look, noise, strands, seed)
        self.eyes(
            canvas, look.eyes, self.eyes.fibres(self._lattice(seed, look.index, 23, self.eyes.fibres.lattice_shape))
        )
        return self._to_maps(canvas)

    def _noise(self, seed: int, index: Tensor) -> dict[str, Tensor]:
        total = sum(octave(seed, index) for octave in self.octaves)
        return dict(zip(Octave.FIELDS, total.unbind(1), strict=True))

    def _lattice(self, seed: int, index: Tensor, stream: int, shape: tuple[int, int]) -> Tensor:
        return draw_normals(seed, index, stream, shape).to(self.blush_map.device)

    def _lattice_noise(self, noise: SplineNoise, seed: int, index: Tensor, stream: int) -> Tensor:
        """(B, N) one field of fine noise, or zero where no texel can show it."""
        if noise.resolved < UNRESOLVED:
            return torch.zeros(len(index), self.atlas.size**2, device=self.blush_map.device)
        return noise(self._lattice(seed, index, stream, (1, *noise.lattice_shape))).flatten(1)

    def _bare_skin(self, look: Look, noise: dict[str, Tensor]) -> Canvas:
        c = look.complexion
        calm = 1 - 0.6 * look.foundation[:, None]
        pigments = c.pigments[..., None] + self.regions(c.regions * calm[..., None])
        pigments[:, 0] += calm * c.mottle[:, :1] * noise["melanin"]
        pigments[:, 1] += calm * c.mottle[:, 1:2] * noise["blood"]
        pigments[:, 2] += calm * c.mottle[:, 2:] * noise["gloss"]
        marks = look.marks
        spots = gaussian_spots(self.atlas, marks.centre, marks.radius, marks.pigments)
        pigments += spots.flatten(2)
        pigments[:, 1] += 0.8 * look.blush[:, None] * self.blush_map
        pigments[:, :, self.mouth.patch] += self.mouth.pigments(look.lips, c.pigments[:, 0])
        pigments[:, 0] = pigments[:, 0].clamp_min(0.1)
        gloss = c.gloss + self.regions(c.gloss_regions)[:, 0] + c.gloss_mottle * noise["gloss"]
        gloss -= 0.06 * look.foundation[:, None]
        diffuse = pigments_to_albedo(pigments) * (1 - 0.75 * self.nostrils)
        return Canvas(diffuse, gloss * (1 - 0.6 * self.nostrils), torch.zeros_like(gloss))

    def _paint_relief(self, canvas: Canvas, look: Look, noise: dict[str, Tensor], pores: Tensor) -> None:
        creases = self.relief(look.relief, noise["wobble"], noise["uneven"])
        canvas.height += creases
        canvas.height += look.relief.undulation[:, None] * noise["height"]
        canvas.height += look.relief.pores[:, None] * pores
        shade = canvas.diffuse.new_tensor([0.30, 0.48, 0.50])[:, None]
        canvas.diffuse *= torch.exp(creases[:, None] * shade)
        canvas.gloss *= 1 + 0.25 * creases

    def _paint_hair(self, canvas: Canvas, look: Look, noise: dict[str, Tensor], strands: Tensor, seed: int) -> None:
        hair = look.hair
        beard = self.beard(hair.beard, noise["uneven"], strands)
        canvas.cover(self.beard.patch, beard, hair.beard.colour, 0.22)
        scalp = self.hairline(hair.hairline, noise["wobble"], strands)
        colour = hair.hairline.colour[..., None] * (1 + 0.25 * strands[:, None]).clamp(0.3, 2)
        canvas.cover(self.everywhere, scalp, colour, 0.25)
        hairs = self.brows.hairs(self._lattice(seed, look.index, 22, self.brows.hairs.lattice_shape))
        brows = self.brows(hair.brows, hairs)
        canvas.cover(self.brows.patch, brows, hair.brows.colour, 0.22)
        canvas.height[:, self.brows.patch] += 0.25 * brows

    def _to_maps(self, canvas: Canvas) -> FaceMaps:
        side = self.atlas.size
        layers = torch.cat([canvas.diffuse, canvas.gloss[:, None], canvas.height[:, None]], 1).unflatten(
            2, (side, side)
        )
        diffuse, gloss, height = layers.split([3, 1, 1], 1)
        maps = torch.cat([diffuse, gloss, self.atlas.slopes(height)], 1)
        maps = nnf.avg_pool2d(maps, side // self.size)
        diffuse, gloss, slopes = maps.split([3, 1, 2], 1)
        return FaceMaps(
            diffuse.clamp(0, 1), gloss.clamp(0, 1).expand(-1, 3, -1, -1).contiguous(), slopes_to_normals(slopes)
        )


def _nostrils(geometry: FaceGeometry) -> Tensor:
    """(N,) 0 to 1, the dark of the nostrils."""
    return geometry.bump(geometry.at(34, side=0.5, up=1.0), (2.6, 1.6))
