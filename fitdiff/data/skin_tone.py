"""Complexion: how much melanin, blood and carotene the skin holds at each texel, and the colour that this makes.

    albedo = F + (A_0 - F) exp(-melanin k_m - blood k_b - carotene k_c)              per channel, linear light

A two-layer reading of skin (a melanin filter over a blood-filled dermis, with surface scattering F that no pigment
hides). The coefficients were fitted so that melanin alone runs through skin colours from L* 76 to 26 (CIELAB, D65) with
the a* and b* of measured human skin, which rise and then fall as skin darkens.

Legend of shape suffixes: B people · N texels · G regions · C = 3 pigments (melanin, blood, carotene).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fitdiff.data.skin_geometry import FaceGeometry
from fitdiff.randomness import Draws
from fitdiff.types import TensorRecord

BASE = (0.766, 0.584, 0.493)
FLOOR = (0.002, 0.030, 0.029)
ABSORPTION = ((0.340, 0.544, 0.710), (0.05, 0.40, 0.30), (0.01, 0.08, 0.38))
"""Rows: melanin, blood, carotene; columns: red, green, blue."""


def pigments_to_albedo(pigments_BCN: Tensor) -> Tensor:
    """(B, 3, N) melanin, blood (0 is average), carotene (0 is average) -> (B, 3, N) linear albedo. Differentiable."""
    like = pigments_BCN
    base, floor = like.new_tensor(BASE)[:, None], like.new_tensor(FLOOR)[:, None]
    return floor + (base - floor) * torch.exp(-(like.new_tensor(ABSORPTION).T @ like))


MELANIN_STEPS = (0.15, 0.77, 1.30, 1.74, 2.35, 4.00, 6.00)
"""Melanin where the typology angle ITA of `pigments_to_albedo` is 69, 55, 41, 28, 10, -30 and -62 degrees: the edges of
the six classes very light, light, intermediate, tan, brown and dark (Del Bino 2006)."""


def melanin_of_tone(tone: Tensor) -> Tensor:
    """Melanin of a skin tone in [0, 1], light to dark; each sixth is one class of ITA. Piecewise linear."""
    return piecewise_linear(tone * 6, tone.new_tensor(MELANIN_STEPS))


def piecewise_linear(x: Tensor, values: Tensor) -> Tensor:
    """The function with the given values at 0, 1, 2, ..., constant beyond them; any shape."""
    x = x.clamp(0, len(values) - 1)
    i = x.long().clamp_max(len(values) - 2)
    return torch.lerp(values[i], values[i + 1], x - i)


class Region(NamedTuple):
    """A smooth patch of the face, and how people differ there, as (mean, standard deviation).

    Attributes:
        landmarks: whose mean is the centre. shift, radii: (side, up) mm.
        melanin: relative to the person's own melanin. blood: absolute. gloss: specular albedo.
    """

    landmarks: tuple[int, ...]
    shift: tuple[float, float]
    radii: tuple[float, float]
    melanin: tuple[float, float]
    blood: tuple[float, float]
    gloss: tuple[float, float]


REGIONS = {
    "cheek": Region((46, 54), (4, 2), (15, 13), (-0.04, 0.08), (0.28, 0.31), (0.00, 0.03)),
    "cheekbone": Region((45, 14), (-8, -6), (13, 10), (0.0, 0.07), (0.10, 0.20), (0.03, 0.04)),
    "hollow": Region((54, 12), (0, 0), (14, 13), (0.03, 0.09), (0.0, 0.12), (-0.03, 0.03)),
    "nose_tip": Region((30,), (0, -2), (9, 8), (-0.01, 0.05), (0.26, 0.28), (0.09, 0.05)),
    "nose_wing": Region((35,), (1, 2), (5, 6), (0.03, 0.04), (0.28, 0.25), (0.04, 0.04)),
    "nose_bridge": Region((28,), (0, 0), (7, 13), (-0.05, 0.08), (0.05, 0.15), (0.06, 0.04)),
    "glabella": Region((21, 22), (0, 4), (10, 9), (0.0, 0.05), (0.04, 0.15), (0.05, 0.03)),
    "forehead": Region((21, 22), (0, 28), (36, 17), (0.03, 0.09), (-0.04, 0.11), (0.06, 0.04)),
    "forehead_side": Region((25, 26), (4, 22), (15, 18), (0.05, 0.08), (-0.04, 0.11), (0.01, 0.04)),
    "temple": Region((26,), (14, -2), (13, 15), (0.05, 0.08), (-0.10, 0.15), (-0.03, 0.03)),
    "under_eye": Region((46, 47), (-1, -6), (11, 4.0), (0.09, 0.14), (0.10, 0.28), (0.02, 0.03)),
    "eye_corner": Region((42,), (-4, -2), (4.5, 6), (0.10, 0.14), (0.15, 0.19), (0.02, 0.02)),
    "upper_lid": Region((43, 44), (0, 5), (13, 4.5), (0.10, 0.18), (0.18, 0.28), (0.03, 0.04)),
    "mouth_ring": Region((57,), (0, 6), (25, 15), (0.05, 0.12), (0.06, 0.15), (-0.02, 0.03)),
    "above_lip": Region((51, 33), (0, 0), (13, 5), (0.03, 0.05), (0.04, 0.12), (0.0, 0.03)),
    "mouth_corner": Region((54,), (2, 0), (5, 5), (0.07, 0.08), (0.05, 0.15), (-0.02, 0.02)),
    "nasolabial": Region((35, 54), (4, 0), (5, 10), (0.02, 0.05), (0.10, 0.18), (0.0, 0.02)),
    "chin": Region((8, 57), (0, 2), (13, 10), (0.01, 0.07), (0.10, 0.20), (0.03, 0.04)),
    "jaw": Region((11, 12), (-2, 2), (17, 14), (0.04, 0.08), (-0.06, 0.15), (-0.03, 0.03)),
    "ear": Region((15, 16), (6, 4), (12, 24), (0.05, 0.08), (0.14, 0.22), (-0.05, 0.03)),
}


AGEING = {"under_eye": 0.08, "hollow": 0.06, "nasolabial": 0.05, "mouth_corner": 0.06, "jaw": 0.03, "temple": 0.05}
"""Relative melanin that shadowed, sagging places gain from youth to old age."""


class RegionBasis(nn.Module):
    """The regions as (G, N) maps, and their effect on pigments and gloss as one matrix product.

    Args:
        geometry: of the drawing's texels.
    """

    def __init__(self, geometry: FaceGeometry) -> None:
        super().__init__()
        maps = [
            geometry.bump(geometry.at(*r.landmarks, side=r.shift[0], up=r.shift[1]), r.radii) for r in REGIONS.values()
        ]
        self.register_buffer("maps_GN", torch.stack(maps), persistent=False)

    def forward(self, coefficients_BCG: Tensor) -> Tensor:
        """(B, C, G) coefficients -> (B, C, N)."""
        return coefficients_BCG @ self.maps_GN


@dataclass(frozen=True)
class Complexion(TensorRecord):
    """A person's skin away from hair, lips and eyes.

    Attributes:
        pigments: (B, 3) melanin, blood, carotene of the whole face.
        regions: (B, 3, G) what `REGIONS` add. mottle: (B, 3) standard deviation of the noise in each pigment.
        patches: (B, 1) change of melanin in patches, as a share: -1 for vitiligo, above 0 for melasma; patch_level:
            (B, 1) how many standard deviations of noise a patch needs; patch_edge: (B, 1) over how many it sets in.
        gloss: (B, 1) specular albedo; gloss_regions: (B, 1, G); gloss_mottle: (B, 1).
    """

    pigments: Tensor
    regions: Tensor
    mottle: Tensor
    patches: Tensor
    patch_level: Tensor
    patch_edge: Tensor
    gloss: Tensor
    gloss_regions: Tensor
    gloss_mottle: Tensor


DARKNESS = (0.80, 0.42, 0.15)
"""Expected darkness of each ancestry (african, asian, caucasian), before individuals' spread of 0.17."""

DARKNESS_SEXTILES = (-0.18, 0.232, 0.359, 0.466, 0.577, 0.715, 1.15)
"""Sixths of the darkness of the shape model's population. Ranks in it become tones: all tones are as frequent."""


def tone_of_darkness(darkness: Tensor) -> Tensor:
    """Rank in [0, 1] within the population, by linear interpolation between its sixths."""
    edges = darkness.new_tensor(DARKNESS_SEXTILES)
    i = torch.searchsorted(edges, darkness.contiguous()).clamp(1, len(edges) - 1)
    share = ((darkness - edges[i - 1]) / (edges[i] - edges[i - 1])).clamp(0, 1)
    return (i - 1 + share) / (len(edges) - 1)


def sample_complexion(draws: Draws, regions_B3G: Tensor, race_B3: Tensor, age: Tensor, male: Tensor) -> Complexion:
    """Draw it.

    Args:
        draws: scalars. regions_B3G: standard normal numbers for the regions' melanin, blood and gloss.
        race_B3, age, male: (B, ...) phenotypes in [0, 1].
    """
    darkness = race_B3 @ race_B3.new_tensor(DARKNESS) + 0.03 * male + draws.normal(std=0.17)
    melanin = melanin_of_tone(tone_of_darkness(darkness))
    blood = draws.normal(0.03, 0.25).clamp(-0.4, 0.7) + 0.08 * male
    carotene = draws.normal(std=0.22) + race_B3 @ race_B3.new_tensor([0.0, 0.16, -0.08])
    table = race_B3.new_tensor([[r.melanin, r.blood, r.gloss] for r in REGIONS.values()])  # (G, 3, 2)
    values = table[..., 0].T + table[..., 1].T * regions_B3G.clamp(-2.5, 2.5)
    values[:, 0] += age[:, None] * race_B3.new_tensor([AGEING.get(name, 0.0) for name in REGIONS])
    contrast = torch.exp(draws.normal(0.15, 0.45).clamp_max(0.8))
    ruddy = torch.exp(draws.normal(0.0, 0.55).clamp_max(1.0)) * (0.85 + 0.5 * age)
    regions = torch.stack(
        [
            values[:, 0] * (melanin.clamp_min(0.7) * contrast)[:, None],
            torch.where(values[:, 1] > 0, values[:, 1] * ruddy[:, None], values[:, 1]),
            torch.zeros_like(values[:, 0]),
        ],
        1,
    )
    uneven = torch.exp(draws.normal(std=0.4)) * (0.7 + 0.7 * age)
    blotchy = torch.exp(draws.normal(std=0.4)) * (0.8 + 0.4 * age)
    mottle = torch.stack([0.05 * uneven * melanin.sqrt(), 0.08 * blotchy, 0.025 * uneven], 1)
    vitiligo, melasma = draws.chance(0.015), draws.chance(0.07)
    patches = torch.where(vitiligo > 0, draws.uniform(-0.9, -0.6), melasma * draws.uniform(0.1, 0.3))
    patch_level = draws.uniform(0.5, 1.4)
    gloss = 0.33 + draws.normal(std=0.05) - 0.05 * age
    oily = torch.exp(draws.normal(std=0.4))
    gloss_regions = values[:, 2:] * oily[:, None, None]
    return Complexion(
        torch.stack([melanin, blood, carotene], 1),
        regions,
        mottle,
        patches[:, None],
        patch_level[:, None],
        (0.5 - 0.4 * vitiligo)[:, None],
        gloss[:, None],
        gloss_regions,
        0.018 * oily[:, None],
    )
