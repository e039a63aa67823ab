"""The mean face unrolled on its UV square: where on the head each texel lies, so that skin can be drawn in millimetres.

Legend of shape suffixes: R map side · K points.
Texel row r, column c has its centre at UV ((c+.5)/R, (r+.5)/R), v down.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor

from fitdiff.types import TensorRecord, Topology

SIZES = (32, 64, 128, 256, 512, 1024, 2048)
CHART_SIZE = 64
CANDIDATES_PER_CHUNK = 2_000_000
"""Triangle-texel pairs tested at once: bounds the rasteriser's memory to about 200 MB at any size."""


@dataclass(frozen=True)
class UvAtlas(TensorRecord):
    """Geometry of the mean face at every texel.

    Attributes:
        position: (3, R, R) mm in head space; texels outside the mesh are filled smoothly from the covered ones.
        triangle: (R, R) int64, the triangle under the texel's centre; -1 outside the mesh.
        frame: (3, R, R) mm per texel: the entries (a, b, c) of the map from texel steps to the tangent plane, which is
            one column to the right = (a, 0) and one row **down** = (b, -c), with the tangent along +u and the
            bitangent perpendicular to it, upwards. a, c > 0; b is the shear of the unwrap.
        chart: (2, 65) mm: how far right of the nose's ridge u = i / 64 lies, and how far above the eyes v = i / 64
            lies, on average over the face. A separable, size-free, roughly isometric chart of the skin.
        mean: (V, 3) mm, the mean face. topology: of the mesh.
    """

    position: Tensor
    triangle: Tensor
    frame: Tensor
    chart: Tensor
    mean: Tensor
    topology: Topology

    @property
    def size(self) -> int:
        """Side R in texels."""
        return self.triangle.shape[-1]

    @property
    def mask(self) -> Tensor:
        """(R, R) bool, the texel's centre lies on the mesh."""
        return self.triangle >= 0

    @classmethod
    def build(cls, mean_V3: Tensor, topology: Topology, size: int) -> UvAtlas:
        """Rasterise the mean face in UV space.

        Args:
            mean_V3: (V, 3) float, mm.
            topology: its triangles, UVs and landmarks.
            size: side R, a power of two from 32 to 2048.

        Raises:
            ValueError: the size is not one of these, or no texel is covered.
        """
        if size not in SIZES:
            raise ValueError(f"got a map size of {size}, expected a power of two from 32 to 2048: {SIZES}")
        uv = topology.uv.to(mean_V3)
        triangle, weights = rasterise_uv(uv, topology.faces, size)
        mask = triangle >= 0
        if not mask.any():
            raise ValueError(f"no texel of {size}x{size} is covered: expected UVs in [0, 1], got {_range(uv)}")
        corners = mean_V3[topology.faces[triangle.clamp_min(0)]]
        position = fill_uncovered((corners * weights[..., None]).sum(2).movedim(-1, 0), mask)
        frame = tangent_frame(position, triangle >= 0)
        if size == CHART_SIZE:
            chart = _separable_chart(frame, mask, _landmark_uv(topology))
        else:
            chart = cls.build(mean_V3, topology, CHART_SIZE).chart
        return cls(position, triangle, frame, chart, mean_V3, topology)

    def at_size(self, size: int) -> UvAtlas:
        """The atlas of the same face at another size."""
        return self if size == self.size else UvAtlas.build(self.mean, self.topology, size)

    @property
    def landmarks(self) -> Tensor:
        """(68, 3) mm, iBUG 68 on the mean face."""
        return self.topology.landmarks(self.mean[None])[0]

    @property
    def landmark_chart(self) -> Tensor:
        """(68, 2) mm, place of the landmarks in the chart."""
        uv = _landmark_uv(self.topology).to(self.chart)
        return torch.stack([self.chart_at(axis, uv[:, axis]) for axis in (0, 1)], 1)

    def chart_at(self, axis: int, coordinate: Tensor) -> Tensor:
        """Chart position in mm of a UV coordinate in [0, 1]: axis 0 for u, 1 for v. Any shape."""
        return _interpolate(self.chart[axis], coordinate)

    def chart_centres(self, axis: int) -> Tensor:
        """(R,) chart positions of the texels' centres along an axis."""
        x = (torch.arange(self.size, device=self.chart.device) + 0.5) / self.size
        return self.chart_at(axis, x.to(self.chart))

    def chart_edges(self, axis: int) -> Tensor:
        """(R + 1,) chart positions of the texels' edges along an axis."""
        x = torch.arange(self.size + 1, device=self.chart.device) / self.size
        return self.chart_at(axis, x.to(self.chart))


def _landmark_uv(topology: Topology) -> Tensor:
    return topology.landmarks(nnf.pad(topology.uv, (0, 1))[None])[0, :, :2]


def _separable_chart(frame_3RR: Tensor, mask_RR: Tensor, landmark_uv: Tensor) -> Tensor:
    """Integrate the mean texel width of each column, and height of each row, over the face: `UvAtlas.chart`."""
    weight = mask_RR.to(frame_3RR) + 1e-3
    axes = []
    for step, along, sign in ((frame_3RR[0], 0, 1.0), (frame_3RR[2], 1, -1.0)):
        mean = (step.log() * weight).sum(along) / weight.sum(along)  # geometric: pits and folds are outliers
        axes.append(sign * nnf.pad(mean.exp().cumsum(0), (1, 0)))
    chart = torch.stack(axes)
    for axis, origin in enumerate((landmark_uv[27:31, 0].mean(), landmark_uv[36:48, 1].mean())):
        chart[axis] -= _interpolate(chart[axis], origin)
    return chart


def _interpolate(knots: Tensor, place: Tensor) -> Tensor:
    """Piecewise linear function with equally spaced values over [0, 1]. `place` of any shape."""
    x = place.clamp(0, 1) * (len(knots) - 1)
    i = x.long().clamp_max(len(knots) - 2)
    return torch.lerp(knots[i], knots[i + 1], (x - i).to(knots))


def slopes(height_B1RR: Tensor, frame_3RR: Tensor) -> Tensor:
    """Gradient of a height map along the surface, dh/dx to the right (+u) and dh/dy up (-v).

    With (a, b, c) the atlas' `frame`: h_column = a g_x, h_row = b g_x - c g_y, solved for g. Differentiable.

    Args:
        height_B1RR: (B, 1, R, R) mm, outwards positive. frame_3RR: `UvAtlas.frame`.

    Returns:
        (B, 2, R, R), dimensionless.
    """
    a, b, c = frame_3RR
    column, row = central_differences(height_B1RR)
    g_x = column / a
    return torch.cat([g_x, (b * g_x - row) / c], 1)


def slopes_to_normals(slopes_B2RR: Tensor) -> Tensor:
    """Tangent-space normals of the height field h with gradient g: n = (-g_x, -g_y, 1) / |.|; (B, 3, R, R)."""
    inverse_length = (1 + slopes_B2RR.square().sum(1, keepdim=True)).rsqrt()
    return torch.cat([-slopes_B2RR * inverse_length, inverse_length], 1)


def central_differences(values: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives per texel along columns (right) and rows (down), one-sided at the border. (..., R, R) each."""
    row, column = torch.gradient(values, dim=(-2, -1))
    return column, row


def tangent_frame(position_3RR: Tensor, mask_RR: Tensor) -> Tensor:
    """The (a, b, c) of `UvAtlas.frame` by central differences of positions; (3, R, R) mm per texel.

    Outside the mesh it is extrapolated from the inside. Folded or collapsed texels (the corners of eyes and mouth)
    would make infinite slopes: a and c are kept above a fifth of their median.
    """
    column, row = central_differences(position_3RR)
    a = column.norm(dim=0)
    tangent = column / a.clamp_min(1e-9)
    b = (row * tangent).sum(0)
    c = (row - b * tangent).norm(dim=0)
    a, c = (x.clamp_min(0.2 * x.median()) for x in (a, c))
    inner = nnf.max_pool2d(nnf.pad((~mask_RR).float()[None], (1, 1, 1, 1)), 3, 1)[0] == 0
    return fill_uncovered(torch.stack([a, b, c]), inner)


def rasterise_uv(uv_V2: Tensor, faces_F3: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Find the triangle under each texel's centre and the barycentric weights there. Not differentiable.

    Where triangles share an edge or overlap, the one with the lowest number owns the texel.

    Args:
        uv_V2: (V, 2) UV space. faces_F3: (F, 3) int64. size: R.

    Returns:
        triangle (R, R) int64, -1 where no triangle lies; weights (R, R, 3), zero there.
    """
    corners = uv_V2.detach().double()[faces_F3] * size - 0.5  # in texels: a centre has integer coordinates
    low = corners.amin(1).ceil().long().clamp(0, size)
    high = corners.amax(1).floor().long().clamp(-1, size - 1)
    extent = (high - low + 1).clamp_min(0)
    count = extent.prod(1)
    owner = torch.full((size * size,), len(faces_F3), dtype=torch.long, device=uv_V2.device)
    for chunk in _chunks(count):
        face = chunk.repeat_interleave(count[chunk])
        start = count[chunk].cumsum(0) - count[chunk]
        rank = torch.arange(len(face), device=face.device) - start.repeat_interleave(count[chunk])
        column = low[face, 0] + rank % extent[face, 0]
        row = low[face, 1] + rank // extent[face, 0]
        inside = (_barycentric(corners[face], torch.stack([column, row], 1)) >= -1e-9).all(1)
        owner.scatter_reduce_(0, (row * size + column)[inside], face[inside], "amin")
    covered = owner < len(faces_F3)
    texel = covered.nonzero().squeeze(1)
    weights = uv_V2.new_zeros(size * size, 3)
    centre = torch.stack([texel % size, texel // size], 1)
    weights[texel] = _barycentric(corners[owner[texel]], centre).to(weights)
    return torch.where(covered, owner, -1).view(size, size), weights.view(size, size, 3)


def fill_uncovered(values_CRR: Tensor, mask_RR: Tensor, *, relaxations: int = 8) -> Tensor:
    """Extrapolate a map smoothly to the texels outside a mask; inside it is kept as it is.

    Pull-push pyramid (Gortler et al. 1996, "The Lumigraph"): average the known texels at half the size, fill that
    map, enlarge it, then relax the filled texels towards their neighbours' mean at each level.
    """
    if mask_RR.all() or values_CRR.shape[-1] == 1:
        return values_CRR
    weight = mask_RR.to(values_CRR)[None]
    coarse_weight = nnf.avg_pool2d(weight, 2)
    coarse = nnf.avg_pool2d(values_CRR * weight, 2) / coarse_weight.clamp_min(1e-9)
    coarse = fill_uncovered(coarse, coarse_weight[0] > 0, relaxations=relaxations)
    filled = nnf.interpolate(coarse[None], scale_factor=2, mode="bilinear", align_corners=False)[0]
    for _ in range(relaxations):
        filled = torch.where(mask_RR, values_CRR, filled)
        filled = nnf.avg_pool2d(nnf.pad(filled[None], (1, 1, 1, 1), mode="replicate"), 3, 1)[0]
    return torch.where(mask_RR, values_CRR, filled)


def _chunks(count_F: Tensor) -> list[Tensor]:
    """Split the non-empty triangles into runs of about `CANDIDATES_PER_CHUNK` candidate texels."""
    busy = count_F.nonzero().squeeze(1)
    part = count_F[busy].cumsum(0) // CANDIDATES_PER_CHUNK
    return list(busy.split(torch.unique_consecutive(part, return_counts=True)[1].tolist()))


def _barycentric(corners_K32: Tensor, point_K2: Tensor) -> Tensor:
    """(K, 3) barycentric weights of points in triangles; nan in a triangle without area, which so owns nothing."""
    a, b, c = corners_K32.unbind(1)
    ab, ac, ap = b - a, c - a, point_K2 - a
    area = _cross(ab, ac)
    w_b, w_c = _cross(ap, ac) / area, _cross(ab, ap) / area
    return torch.stack([1 - w_b - w_c, w_b, w_c], 1)


def _cross(a_K2: Tensor, b_K2: Tensor) -> Tensor:
    return a_K2[:, 0] * b_K2[:, 1] - a_K2[:, 1] * b_K2[:, 0]


def _range(values: Tensor) -> str:
    return f"[{values.min().item():.3g}, {values.max().item():.3g}]"
