"""Procedural skin: phenotypes to reflectance maps of synthetic people.

Everything is a function of the place on the mean face in millimetres, of a person's traits, and of noise on lattices in
millimetres, so that a person is the same at every map size. Painting goes from below to the top: pigments and relief of
the skin (with marks, creases, lips and noise), lips and mouth, brows, beard, scalp hair, eyes; make-up lies on what it
covers.
Albedo, gloss and height become `FaceMaps` at the end.

Legend of shape suffixes: B people · N texels of the drawing · R map side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from fitdiff.data.atlas import UvAtlas, slopes, slopes_to_normals
from fitdiff.data.skin_beard import BeardPainter
from fitdiff.data.skin_brows import BrowPainter
from fitdiff.data.skin_canvas import Canvas
from fitdiff.data.skin_eyes import EyePainter
from fitdiff.data.skin_geometry import FaceGeometry
from fitdiff.data.skin_hair import Hair, HairlinePainter
from fitdiff.data.skin_look import Look, Phenotypes, sample_look
from fitdiff.data.skin_marks import MarkPainter
from fitdiff.data.skin_mouth import MouthPainter
from fitdiff.data.skin_noise import Mottle, PersonNoise, SplineNoise
from fitdiff.data.skin_relief import ReliefPainter
from fitdiff.data.skin_tone import RegionBasis, pigments_to_albedo
from fitdiff.types import FaceMaps

SMALLEST_DRAWING = 128
"""Smaller maps are drawn at this size and averaged, so that eyes and brows keep their colours."""

TEXELS_AT_ONCE = 1 << 18
"""People are painted in groups of about this many texels, which keeps the layers in the processor's cache."""

CREASE_MELANIN, CREASE_BLOOD = 0.65, 0.35
"""Pigment a mm of crease depth that darkens as much as the light that a fold swallows, more of it blue and green."""

HAIR_GLOSS = 0.22


class SkinSynthesiser(nn.Module):
    """People's reflectance maps from their phenotypes.

    Args:
        atlas: of the shape model's mean face, at the size R of the maps. Its topology needs the regions eyes,
            inner_mouth and teeth.
    """

    def __init__(self, atlas: UvAtlas) -> None:
        super().__init__()
        self.size = atlas.size
        drawing = atlas.at_size(max(atlas.size, SMALLEST_DRAWING))
        self.drawing_size = drawing.size
        geometry = FaceGeometry(drawing)
        self.mottle = Mottle(drawing, self.size, stream=10)
        self.strands = PersonNoise(SplineNoise(drawing, (0.45, 1.8)), 20, self.size)
        self.grain = PersonNoise(SplineNoise(drawing, (0.7, 0.7)), 21, self.size)
        self.regions = RegionBasis(geometry)
        self.marks = MarkPainter(drawing)
        self.relief = ReliefPainter(geometry)
        self.brows = BrowPainter(geometry)
        self.brow_hairs = PersonNoise(self.brows.hairs, 22, self.size)
        self.brow_tufts = PersonNoise(self.brows.tufts, 24, self.size)
        self.beard = BeardPainter(geometry)
        self.hairline = HairlinePainter(geometry)
        self.eyes = EyePainter(drawing, geometry)
        self.iris_fibres = PersonNoise(self.eyes.fibres, 23, self.size)
        self.mouth = MouthPainter(drawing, geometry)
        self.register_buffer("frame", drawing.frame, persistent=False)
        self.register_buffer("blush_map", geometry.bump(geometry.at(46, 54, side=9, up=8), (13, 9)), persistent=False)
        self.register_buffer("nostrils", geometry.bump(geometry.at(34, side=0.5, up=1.0), (2.6, 1.6)), persistent=False)

    @torch.no_grad()
    def forward(self, people: Phenotypes, seed: int) -> FaceMaps:
        """Paint people.

        Args:
            people: of batch B. seed: of the population, non-negative.

        Returns:
            Maps of batch B and side R on the module's device, float32. Person i of a seed gets the same maps in any
            batch, and up to filtering the same ones at any size.
        """
        look = sample_look(people, seed)
        group = max(1, TEXELS_AT_ONCE // self.drawing_size**2)
        starts = range(0, len(look.index), group)
        return FaceMaps.cat([self.paint(look[start : start + group], seed) for start in starts])

    def paint(self, look: Look, seed: int) -> FaceMaps:
        """Maps of people whose traits are given; the seed and `look.index` make their noise."""
        look = look.to(self.frame.device)
        noise = self.mottle(seed, look.index)
        noise["strands"], noise["grain"] = self.strands(seed, look.index), self.grain(seed, look.index)
        canvas = self._bare_skin(look, noise)
        self.mouth(canvas, look.lips, noise["strands"])
        self._paint_brows(canvas, look, seed)
        self._paint_hair(canvas, look.hair, noise)
        self.eyes(canvas, look.eyes, self.iris_fibres(seed, look.index))
        return self._to_maps(canvas)

    def _bare_skin(self, look: Look, noise: dict[str, Tensor]) -> Canvas:
        c = look.complexion
        calm = 1 - 0.6 * look.foundation[:, None]
        marks = self.marks(look.marks)
        pigments = c.pigments[..., None] + self.regions(c.regions * calm[..., None])
        pigments[:, :2] += marks[:, :2]
        for i, field in enumerate(("melanin", "blood", "uneven")):
            pigments[:, i] += calm * c.mottle[:, i, None] * noise[field]
        creases = self.relief(look.relief, noise["wobble"], noise["uneven"])
        pigments[:, 0] -= CREASE_MELANIN * creases
        pigments[:, 1] -= CREASE_BLOOD * creases
        pigments[:, 0] *= 1 + calm * c.patches * torch.sigmoid((noise["wobble"] - c.patch_level) / c.patch_edge)
        pigments[:, 1] += 0.8 * look.blush[:, None] * self.blush_map
        pigments[:, :, self.mouth.patch] += self.mouth.pigments(look.lips, c.pigments[:, 0])
        pigments[:, 0] = pigments[:, 0].clamp_min(0.1)
        gloss = c.gloss + self.regions(c.gloss_regions)[:, 0] + c.gloss_mottle * (noise["gloss"] + noise["grain"])
        gloss -= 0.06 * look.foundation[:, None]
        diffuse = pigments_to_albedo(pigments) * (1 - 0.75 * self.nostrils)
        height = creases + look.relief.undulation[:, None] * noise["height"] + marks[:, 2]
        height += look.relief.pores[:, None] * noise["grain"]
        return Canvas(diffuse, gloss * (1 + 0.25 * creases) * (1 - 0.6 * self.nostrils), height)

    def _paint_brows(self, canvas: Canvas, look: Look, seed: int) -> None:
        noise = self.brow_hairs(seed, look.index), self.brow_tufts(seed, look.index)
        brows = self.brows(look.hair.brows, *noise)
        canvas.cover(self.brows.patch, brows, look.hair.brows.colour, HAIR_GLOSS)
        canvas.height[:, self.brows.patch] += 0.25 * brows

    def _paint_hair(self, canvas: Canvas, hair: Hair, noise: dict[str, Tensor]) -> None:
        beard = self.beard(hair.beard, noise["uneven"], noise["strands"])
        salt_and_pepper = (1 + 0.3 * noise["strands"][:, None, self.beard.patch]).clamp(0.3, 1.8)
        canvas.cover(self.beard.patch, beard, hair.beard.colour[..., None] * salt_and_pepper, HAIR_GLOSS)
        strands = torch.lerp(noise["strands"], noise["grain"], hair.hairline.curl[:, None])
        scalp = self.hairline(hair.hairline, noise["wobble"], strands)
        colour = hair.hairline.colour[..., None] * (1 + 0.2 * strands[:, None]).clamp(0.4, 1.6)
        canvas.cover(slice(None), scalp, colour, HAIR_GLOSS)

    def _to_maps(self, canvas: Canvas) -> FaceMaps:
        square = (self.drawing_size, self.drawing_size)
        diffuse, gloss, height = (
            layer.unflatten(2, square) for layer in (canvas.diffuse, canvas.gloss[:, None], canvas.height[:, None])
        )
        layers = [diffuse, gloss, slopes(height, self.frame)]
        if self.drawing_size > self.size:
            layers = [nnf.avg_pool2d(layer, self.drawing_size // self.size) for layer in layers]
        diffuse, gloss, gradient = layers
        specular = gloss.clamp(0, 1).expand(-1, 3, -1, -1).contiguous()
        return FaceMaps(diffuse.clamp(0, 1), specular, slopes_to_normals(gradient))
