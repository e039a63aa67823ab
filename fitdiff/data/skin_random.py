"""Per-person randomness of the skin: scalar traits, band-limited noise fields and spots, all free of the map size.

Random numbers come from the CPU, from (seed, person, stream) alone, and stand on lattices in millimetres. A map of any
size averages the same continuous field over its texels, so that a person keeps the same skin at every size.

Legend of shape suffixes: B people · C fields · R map side · n, m lattice knots · K spots.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from fitdiff.data.atlas import UvAtlas

SUBSAMPLES = 4
"""Points per texel and axis at which a spline is averaged over the texel."""


def draw_normals(seed: int, index_B: Tensor, stream: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers of each person, (B, *shape) float32 on the CPU.

    Args:
        seed: of the population, non-negative. index_B: (B,) int64 people. stream: which of a person's lists.
    """
    rows = [
        np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, stream, int(i)]))).standard_normal(
            shape, dtype=np.float32
        )
        for i in index_B.tolist()
    ]
    return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, *shape)


class Draws:
    """A person's scalar draws, taken one after another: the order of the calls is part of who people are.

    Args:
        seed: of the population. index_B: (B,) int64. stream: as of `draw_normals`.
    """

    COUNT = 64

    def __init__(self, seed: int, index_B: Tensor, stream: int) -> None:
        self._columns = iter(draw_normals(seed, index_B, stream, (self.COUNT,)).unbind(1))

    def normal(self, mean: float | Tensor = 0.0, std: float | Tensor = 1.0) -> Tensor:
        """(B,) normal."""
        return next(self._columns) * std + mean

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """(B,) uniform in [low, high]."""
        return torch.special.ndtr(next(self._columns)) * (high - low) + low

    def chance(self, probability: float | Tensor) -> Tensor:
        """(B,) 1 with the given probability, else 0."""
        return (self.uniform() < probability).float()


class SplineNoise(nn.Module):
    """Smooth Gaussian noise: a lattice of normal numbers under tensor-product cubic B-splines.

    field = W_v L W_u^T with W (R, knots) the splines averaged over each texel, so that structure finer than a texel
    fades by itself. Unit variance at infinite resolution.

    Args:
        atlas: texels and their millimetres.
        spacing: distance of the knots in mm, (along u, along v); features are about three times as large.
    """

    def __init__(self, atlas: UvAtlas, spacing: tuple[float, float]) -> None:
        super().__init__()
        for name, axis, step in (("basis_u", 0, spacing[0]), ("basis_v", 1, spacing[1])):
            half_range = atlas.chart[axis].abs().max().item()
            self.register_buffer(name, _spline_basis(atlas.chart_samples(axis, SUBSAMPLES), half_range, step))

    @property
    def lattice_shape(self) -> tuple[int, int]:
        """Knots (m, n) along v and u; the same for every map size."""
        return self.basis_v.shape[1], self.basis_u.shape[1]

    @property
    def resolved(self) -> float:
        """Share of the standard deviation that survives at this map size, in [0, 1]."""
        return math.sqrt(self.basis_u.square().sum(1).mean().item() * self.basis_v.square().sum(1).mean().item())

    def forward(self, lattice_BCmn: Tensor) -> Tensor:
        """(B, C, m, n) standard normal -> (B, C, R, R)."""
        return self.basis_v @ (lattice_BCmn.to(self.basis_u) @ self.basis_u.T)


def _spline_basis(samples_RS: Tensor, half_range: float, step: float) -> Tensor:
    """Cubic B-splines on knots over [-half_range, half_range] (symmetric, so that lattices mirror), as (R, knots).

    Scaled by the root of their mean energy 151/315, which gives unit variance.
    """
    last = math.ceil(half_range / step) + 1
    knots = torch.arange(-last, last + 1).to(samples_RS) * step
    return _cubic_spline((samples_RS[..., None] - knots) / step).mean(1) / math.sqrt(151 / 315)


class PatchNoise(nn.Module):
    """Spline noise at free places: `SplineNoise` for a few texels whose lattice is bent, as hairs in a brow are.

    Args:
        place_P2: (P, 2) coordinates in mm. extent: (low, high) of each coordinate; places outside take the border's
            values. spacing: of the knots in mm. texel_P: (P,) mm, beside which finer noise fades.
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
        self.lattice_shape = tuple((((high - low) / step).ceil().long() + 4).tolist())
        x = (torch.minimum(torch.maximum(place_P2, low), high) - low) / step + 1
        first = x.long() - 1
        offset = torch.arange(4, device=x.device)
        spline = _cubic_spline(x[..., None] - (first[..., None] + offset)) / math.sqrt(151 / 315)
        taps = (first[:, 0, None] + offset)[:, :, None] * self.lattice_shape[1] + (first[:, 1, None] + offset)[:, None]
        fade = torch.exp(-0.5 * (texel_P / (2.2 * min(spacing))).square())
        weights = spline[:, 0, :, None] * spline[:, 1, None] * fade[:, None, None]
        self.register_buffer("taps", taps.flatten(1).T.contiguous(), persistent=False)
        self.register_buffer("weights", weights.flatten(1).T.contiguous(), persistent=False)

    def forward(self, lattice_Bmn: Tensor) -> Tensor:
        """(B, m, n) standard normal -> (B, P)."""
        flat = lattice_Bmn.to(self.weights).flatten(1)
        total = torch.zeros(len(flat), self.taps.shape[1], device=flat.device, dtype=flat.dtype)
        for tap, weight in zip(self.taps, self.weights, strict=True):
            total.addcmul_(flat[:, tap], weight)
        return total


def _cubic_spline(x: Tensor) -> Tensor:
    """The cubic B-spline at x, of support [-2, 2]."""
    x = x.abs()
    return torch.where(x < 1, 2 / 3 - x**2 + x**3 / 2, (2 - x).clamp_min(0) ** 3 / 6)


def mirror(lattice_BCmn: Tensor, symmetry: float) -> Tensor:
    """Make a lattice partly left-right symmetric, keeping its variance: `symmetry` is that share of the variance."""
    symmetric = (lattice_BCmn + lattice_BCmn.flip(-1)) * math.sqrt(symmetry / 2)
    return symmetric + lattice_BCmn * math.sqrt(1 - symmetry)


def gaussian_spots(atlas: UvAtlas, centre_BK2: Tensor, radius_BK: Tensor, weight_BKC: Tensor) -> Tensor:
    """Sum of Gaussian spots, each averaged exactly over the texels: (B, C, R, R).

    Args:
        centre_BK2: place in the atlas' chart, mm. radius_BK: standard deviation, mm. weight_BKC: height of each spot.
    """
    across, down = (
        _texel_averages(atlas.chart_edges(axis).to(centre_BK2), centre_BK2[..., axis], radius_BK) for axis in (0, 1)
    )
    return torch.einsum("bkc,bkr,bks->bcrs", weight_BKC, down, across)


def _texel_averages(edges: Tensor, centre_BK: Tensor, radius_BK: Tensor) -> Tensor:
    """Mean of exp(-(x - centre)^2 / (2 radius^2)) between neighbouring edges: (B, K, R)."""
    z = (edges - centre_BK[..., None]) / radius_BK[..., None]
    area = torch.special.ndtr(z).diff(dim=-1) * math.sqrt(2 * math.pi) * radius_BK[..., None]
    return area / edges.diff()
