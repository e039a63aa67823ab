"""Interpolation: from a triangle id per pixel to differentiable attributes of the covered pixels.

Only covered pixels are kept, as one flat list over the batch: a face fills about half of a photo, and everything after
this step costs in proportion to the list. Legend: P covered pixels of the whole batch · C channels.
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
        batch: B. size: S.
    """

    pixel: Tensor
    triangle: Tensor
    batch: int
    size: int

    @classmethod
    def from_visibility(cls, triangle_BSS: Tensor) -> Fragments:
        """Keep the pixels whose triangle id is not -1."""
        flat = triangle_BSS.flatten()
        pixel = (flat >= 0).nonzero()[:, 0]
        return cls(pixel, flat[pixel], triangle_BSS.shape[0], triangle_BSS.shape[-1])

    @property
    def image(self) -> Tensor:
        """(P,) int64 index of the image that each pixel belongs to."""
        return self.pixel // self.size**2

    def counts(self) -> list[int]:
        """Number of covered pixels of each image."""
        return torch.bincount(self.image, minlength=self.batch).tolist()

    def centres(self, like: Tensor) -> Tensor:
        """(P, 2) NDC of the pixels' centres, in the dtype of `like`."""
        row, column = (self.pixel // self.size) % self.size, self.pixel % self.size
        to_ndc = (2 * torch.stack([column, row], -1).to(like.dtype) + 1) / self.size - 1
        return to_ndc * like.new_tensor([1.0, -1.0])

    def to_images(self, values_PC: Tensor) -> Tensor:
        """Scatter (P, C) values to (B, C, S, S) images, zero elsewhere. Differentiable."""
        channels = values_PC.shape[1]
        flat = values_PC.new_zeros(self.batch * self.size**2, channels).index_copy(0, self.pixel, values_PC)
        return flat.view(self.batch, self.size, self.size, channels).permute(0, 3, 1, 2).contiguous()

    def mask(self, like: Tensor) -> Tensor:
        """(B, 1, S, S) 1 at covered pixels, else 0."""
        return self.to_images(torch.ones_like(self.pixel, dtype=like.dtype)[:, None])


def gather_corners(attributes_BVC: Tensor, faces_F3: Tensor, fragments: Fragments) -> Tensor:
    """(P, 3, C) attributes at the corners of each pixel's triangle. Differentiable."""
    n_vertices, channels = attributes_BVC.shape[1:]
    corner = faces_F3[fragments.triangle] + (fragments.image * n_vertices)[:, None]
    return attributes_BVC.reshape(-1, channels).index_select(0, corner.flatten()).view(-1, 3, channels)


def barycentrics(corners_P33: Tensor, camera: Camera, fragments: Fragments) -> Tensor:
    """Perspective-correct barycentric coordinates of the surface point behind each pixel's centre.

    The point is where the pixel's ray r meets the triangle: sum_i b_i v_i is parallel to r, so by Cramer's rule
    b_i is proportional to det(r, v_j, v_k) (homogeneous rasterisation: Olano and Greer 1997, Eq. 6). The shear that
    turns r into the optical axis leaves each determinant as the cross product of two short vectors: no division by
    depth, and no cancellation between numbers of the size of the camera's distance.

    Args:
        corners_P33: camera-space corners in mm. camera: of the whole batch.

    Returns:
        (P, 3), sums to 1; negative only by rounding. Differentiable in corners, focal length and principal point.
    """
    image = fragments.image
    centre, focal = camera.principal_point[image], camera.focal[image, None]
    slope = (fragments.centres(corners_P33) - centre) / focal
    x, y = (corners_P33[..., :2] + slope[:, None] * corners_P33[..., 2:]).unbind(-1)
    following, preceding = [1, 2, 0], [2, 0, 1]
    weights = x[:, following] * y[:, preceding] - y[:, following] * x[:, preceding]
    return weights / weights.sum(-1, keepdim=True)


def interpolate(barycentrics_P3: Tensor, corners_P3C: Tensor) -> Tensor:
    """(P, C): sum over the corners, weighted. Differentiable in both."""
    return (barycentrics_P3[:, :, None] * corners_P3C).sum(1)
