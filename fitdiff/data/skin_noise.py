"""Noise of the skin: Gaussian fields on lattices in millimetres, averaged over the texels of a map of any size.

Legend of shape suffixes: B people · R map side · N = R * R texels · P texels of a patch · m, n lattice knots.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fitdiff.data.atlas import UvAtlas
from fitdiff.randomness import draw_normals

UNIT = math.sqrt(151 / 315)
"""Root of the mean energy of a cubic B-spline's samples: dividing by it gives the noise unit variance."""

FAINT = 0.6
"""Noise that would keep a smaller share of its standard deviation than this in the maps is left out."""


class SplineNoise(nn.Module):
    """Smooth Gaussian noise: a lattice of normal numbers under tensor-product cubic B-splines.

    field = W_v L W_u^T with W (R, knots) the splines averaged exactly over each texel, so that structure finer than
    a texel fades by itself. Unit variance at infinite resolution.

    Args:
        atlas: texels and their millimetres.
        spacing: distance of the knots in mm, (along u, along v); features are about three times as large.
    """

    def __init__(self, atlas: UvAtlas, spacing: tuple[float, float]) -> None:
        super().__init__()
        for name, axis in (("basis_u", 0), ("basis_v", 1)):
            half_range = atlas.chart[axis].abs().max().item()
            basis = _spline_basis(atlas.chart_edges(axis), half_range, spacing[axis])
            self.register_buffer(name, basis, persistent=False)

    @property
    def lattice_shape(self) -> tuple[int, int]:
        """Knots (m, n) along v and u; the same for every map size."""
        return self.basis_v.shape[1], self.basis_u.shape[1]

    @property
    def n_texels(self) -> int:
        """R * R."""
        return len(self.basis_v) * len(self.basis_u)

    def contrast(self, size: int) -> float:
        """Share of the standard deviation, in [0, 1], that is left in a map of the given size (R or a part of it)."""
        bases = (basis.unflatten(0, (size, -1)).mean(1) for basis in (self.basis_u, self.basis_v))
        return math.sqrt(math.prod(basis.square().sum(1).mean().item() for basis in bases))

    def forward(self, lattice_mn: Tensor) -> Tensor:
        """(..., m, n) standard normal -> (..., N)."""
        return (self.basis_v @ (lattice_mn @ self.basis_u.T)).flatten(-2)


class PatchNoise(nn.Module):
    """Spline noise at free places: `SplineNoise` for a few texels whose lattice is bent, as hairs in a brow are.

    Args:
        place_P2: (P, 2) coordinates in mm.
        extent: (low, high) of each coordinate; places outside take the values at the border.
        spacing: distance of the knots in mm on each axis.
        texel_P: (P,) mm, width of a texel; noise fades as that passes the first axis' spacing.
    """

    def __init__(
        self,
        place_P2: Tensor,
        extent: tuple[tuple[float, float], tuple[float, float]],
        spacing: tuple[float, float],
        texel_P: Tensor,
    ) -> None:
        super().__init__()
        low, high = place_P2.new_tensor(extent).T
        step = place_P2.new_tensor(spacing)
        self.lattice_shape: tuple[int, int] = tuple((((high - low) / step).ceil().long() + 4).tolist())
        x = (torch.minimum(torch.maximum(place_P2, low), high) - low) / step + 1
        first = x.long() - 1
        offset = torch.arange(4, device=x.device)
        spline = cubic_spline(x[..., None] - (first[..., None] + offset)) / UNIT
        taps = (first[:, 0, None] + offset)[:, :, None] * self.lattice_shape[1] + (first[:, 1, None] + offset)[:, None]
        fade = torch.exp(-0.5 * (texel_P / (2.2 * spacing[0])).square())
        weights = spline[:, 0, :, None] * spline[:, 1, None] * fade[:, None, None]
        self.n_texels, self.fade = len(place_P2), fade.mean().item()
        self.register_buffer("taps", taps.flatten(1).T.contiguous(), persistent=False)
        self.register_buffer("weights", weights.flatten(1).T.contiguous(), persistent=False)

    def contrast(self, size: int) -> float:
        """As of `SplineNoise`, at the size that the texels' widths were given for."""
        return self.fade

    def forward(self, lattice_Bmn: Tensor) -> Tensor:
        """(B, m, n) standard normal -> (B, P)."""
        flat = lattice_Bmn.flatten(1)
        total = flat.new_zeros(len(flat), self.n_texels)
        for tap, weight in zip(self.taps, self.weights, strict=True):
            total.addcmul_(flat[:, tap], weight)
        return total


class PersonNoise(nn.Module):
    """One noise field of each person, or zero where a map is too coarse to show it.

    Args:
        noise: the field's lattice. stream: which of a person's lists of random numbers. size: of the maps.
    """

    def __init__(self, noise: SplineNoise | PatchNoise, stream: int, size: int) -> None:
        super().__init__()
        self.noise, self.stream = noise, stream
        self.visible = noise.contrast(size) > FAINT

    def forward(self, seed: int, index_B: Tensor) -> Tensor:
        """(B, N) or (B, P), on the device of `index_B`."""
        if not self.visible:
            return torch.zeros(len(index_B), self.noise.n_texels, device=index_B.device)
        return self.noise(draw_normals(seed, index_B, self.stream, self.noise.lattice_shape))


class Octave(NamedTuple):
    """Knot spacing in mm, standard deviation in each of `FIELDS`, and symmetry (see `mirror`)."""

    spacing: float
    amplitudes: tuple[float, ...]
    symmetry: float


FIELDS = ("melanin", "blood", "gloss", "height", "wobble", "uneven")
OCTAVES = (
    Octave(30.0, (0.62, 0.58, 0.65, 0.00, 0.3, 0.0), 0.6),
    Octave(15.0, (0.50, 0.50, 0.55, 0.40, 0.8, 0.3), 0.5),
    Octave(7.50, (0.42, 0.45, 0.40, 0.70, 0.5, 0.7), 0.3),
    Octave(3.75, (0.32, 0.35, 0.28, 0.50, 0.2, 0.64), 0.0),
    Octave(1.90, (0.24, 0.25, 0.20, 0.22, 0.0, 0.0), 0.0),
    Octave(0.95, (0.16, 0.14, 0.00, 0.00, 0.0, 0.0), 0.0),
)


class Mottle(nn.Module):
    """The unit-variance fields `FIELDS` of each person: sums of octaves, the coarse ones partly symmetric.

    `wobble` bends edges and lines, `uneven` makes their strength vary.

    Args:
        atlas: of the drawing. size: of the maps. stream: first of the lists of random numbers, one an octave.
    """

    def __init__(self, atlas: UvAtlas, size: int, stream: int) -> None:
        super().__init__()
        noises = [SplineNoise(atlas, (octave.spacing, octave.spacing)) for octave in OCTAVES]
        self.shown = [i for i, noise in enumerate(noises) if noise.contrast(size) > FAINT]
        self.noises = nn.ModuleList(noises[i] for i in self.shown)
        self.stream = stream

    def forward(self, seed: int, index_B: Tensor) -> dict[str, Tensor]:
        """Field name -> (B, N), on the device of `index_B`."""
        total = torch.zeros(len(index_B), len(FIELDS), self.noises[0].n_texels, device=index_B.device)
        for i, noise in zip(self.shown, self.noises, strict=True):
            held = [field for field, amplitude in enumerate(OCTAVES[i].amplitudes) if amplitude]
            lattice = draw_normals(seed, index_B, self.stream + i, (len(held), *noise.lattice_shape))
            lattice = mirror(lattice, OCTAVES[i].symmetry)
            for place, field in enumerate(held):
                total[:, field] += OCTAVES[i].amplitudes[field] * noise(lattice[:, place])
        return dict(zip(FIELDS, total.unbind(1), strict=True))


def mirror(lattice_mn: Tensor, symmetry: float) -> Tensor:
    """Make lattices partly left-right symmetric: `symmetry` is the correlation of the two sides; variance is kept.

    Even and odd parts (L +- flip L) / sqrt(2) are independent; they get the shares (1 +- symmetry) / 2 of the variance.
    """
    if symmetry == 0:
        return lattice_mn
    even, odd = math.sqrt((1 + symmetry) / 2), math.sqrt((1 - symmetry) / 2)
    return (lattice_mn * (even + odd) + lattice_mn.flip(-1) * (even - odd)) / math.sqrt(2)


def cubic_spline(x: Tensor) -> Tensor:
    """The cubic B-spline at x, of support [-2, 2]."""
    x = x.abs()
    return torch.where(x < 1, 2 / 3 - x**2 + x**3 / 2, (2 - x).clamp_min(0) ** 3 / 6)


def _spline_basis(edges: Tensor, half_range: float, step: float) -> Tensor:
    """Mean between neighbouring edges (R + 1,) of the splines on knots over +-half_range: (R, knots).

    The knots are symmetric about zero, so that lattices mirror.
    """
    last = math.ceil(half_range / step) + 1
    x = edges.double()[:, None] / step - torch.arange(-last, last + 1, device=edges.device)
    return (_spline_integral(x).diff(dim=0) / x[:, :1].diff(dim=0) / UNIT).to(edges)


def _spline_integral(x: Tensor) -> Tensor:
    """Integral of `cubic_spline` from minus infinity to x."""
    size = x.abs().clamp_max(2)
    half = torch.where(size < 1, size * 2 / 3 - size**3 / 3 + size**4 / 8, 0.5 - (2 - size) ** 4 / 24)
    return 0.5 + half * x.sign()
