"""Interpolation: from a triangle id per pixel to differentiable attributes of the covered pixels.

Only covered pixels are kept, as one flat list over the batch: a face fills about half of a photo, and everything after
this step costs in proportion to the list. Lists are channels first, (C, P): on a CPU, sums over three channels are then
sums of whole rows. Legend: P covered pixels of the whole batch · C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fitdiff.types import Camera


@dataclass(frozen=True)
class Fragments:
    """The covered pixels of a batch of images.

    Attributes:
        pixel: (P,) int64 index into the flattened (B, S, S) batch, increasing.
        triangle: (P,) int64 triangle seen there.
        counts: covered pixels of each image, B of them.
        size: S.
    """

    pixel: Tensor
    triangle: Tensor
    counts: tuple[int, ...]
    size: int

    @classmethod
    def from_visibility(cls, triangle_BSS: Tensor) -> Fragments:
        """Keep the pixels whose triangle id is not -1."""
        covered = triangle_BSS.flatten(1) >= 0
        pixel = covered.flatten().nonzero()[:, 0]
        counts = tuple(covered.sum(1).tolist())
        return cls(pixel, triangle_BSS.flatten()[pixel], counts, triangle_BSS.shape[-1])

    def centres(self, like: Tensor) -> Tensor:
        """(2, P) NDC of the pixels' centres, in the dtype of `like`."""
        row, column = self.pixel // self.size % self.size, self.pixel % self.size
        x, y = ((2 * index.to(like.dtype) + 1) / self.size - 1 for index in (column, row))
        return torch.stack([x, -y])

    def corners(self, faces_F3: Tensor, n_vertices: int) -> Tensor:
        """(3, P) corners of each pixel's triangle, as indices into the flattened (B * V) vertices of the batch."""
        return faces_F3[self.triangle].t() + self.pixel // self.size**2 * n_vertices

    def spread(self, values_BX: Tensor) -> Tensor:
        """Give each pixel the values of its image: (B, ...) -> (..., P). Differentiable.

        Expanding runs is much cheaper, backwards above all, than indexing with one image number per pixel.
        """
        return torch.cat([v[..., None].expand(*v.shape, n) for v, n in zip(values_BX, self.counts, strict=True)], -1)

    def to_images(self, values_CP: Tensor) -> Tensor:
        """Scatter (C, P) values to (B, C, S, S) images, zero elsewhere. Differentiable."""
        channels, batch = len(values_CP), len(self.counts)
        empty = values_CP.new_zeros(channels, batch * self.size**2)
        flat = empty.scatter(1, self.pixel.expand(channels, -1), values_CP)
        return flat.view(channels, batch, self.size, self.size).transpose(0, 1).contiguous()

    def mask(self, like: Tensor) -> Tensor:
        """(B, 1, S, S) 1 at covered pixels, else 0, in the dtype of `like`."""
        return self.to_images(torch.ones_like(self.pixel, dtype=like.dtype)[None])


def gather_corners(attributes_BVC: Tensor, corners_3P: Tensor) -> Tensor:
    """(C, 3, P) attributes at the corners that `Fragments.corners` gives. Differentiable."""
    rows = attributes_BVC.flatten(0, 1).index_select(0, corners_3P.flatten())
    return rows.t().contiguous().view(rows.shape[1], *corners_3P.shape)


def barycentrics(corners_33P: Tensor, camera: Camera, fragments: Fragments) -> Tensor:
    """Perspective-correct barycentric coordinates of the surface point behind each pixel's centre.

    The point is where the pixel's ray r meets the triangle: sum_i b_i v_i is parallel to r, so by Cramer's rule
    b_i is proportional to det(r, v_j, v_k) (homogeneous rasterisation: Olano and Greer 1997). The shear that turns r
    into the optical axis leaves each determinant as the cross product of two short vectors: no division by depth, and
    no cancellation between numbers of the size of the camera's distance.

    Args:
        corners_33P: (xyz, corner, P) camera space, mm. camera: of the whole batch.

    Returns:
        (3, P), sums to 1; negative only by rounding. Differentiable in corners, focal length and principal point.
    """
    optics = fragments.spread(torch.cat([camera.principal_point, camera.focal[:, None]], 1))
    slope = (fragments.centres(optics) - optics[:2]) / optics[2]
    x, y = corners_33P[:2] + slope[:, None] * corners_33P[2]
    weights = x.roll(-1, 0) * y.roll(-2, 0) - y.roll(-1, 0) * x.roll(-2, 0)
    return weights / weights.sum(0)


def interpolate(barycentrics_3P: Tensor, corners_C3P: Tensor) -> Tensor:
    """(C, P): sum over the corners, weighted. Differentiable in both."""
    return (barycentrics_3P * corners_C3P).sum(1)
