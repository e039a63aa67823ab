"""Interpolation: from a triangle id per pixel to differentiable attributes of the covered pixels.

Only covered pixels are kept, as one flat list over the batch: a face fills about half of a photo, and everything after
this step costs in proportion to the list. Lists are channels first, (C, P): on a CPU, sums over three channels are then
sums of whole rows. Legend: P covered pixels of the whole batch · C channels.

`interpolate_visible` has two implementations: a few lines of torch for every device and precision, and compiled loops
with a derivative by hand for float32 on the CPU, which never hold the corners of all pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fitdiff.renderer.compiled import arrays, compiled, for_each_image, serves
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

    def first_of_image(self) -> Tensor:
        """(B + 1,) int64 on the CPU: where the pixels of each image begin in the list, and its length."""
        return torch.tensor([0, *self.counts]).cumsum(0)

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


def interpolate_visible(attributes_BVC: Tensor, faces_F3: Tensor, camera: Camera, fragments: Fragments) -> Tensor:
    """Attributes of the surface points behind the pixels' centres, perspective-correct.

    Args:
        attributes_BVC: C >= 3 numbers a vertex, of which the first three are its place in camera space, mm.
        faces_F3: (F, 3) int64. camera: of the whole batch.

    Returns:
        (C, P). Differentiable in attributes, focal length and principal point (once, on the CPU in float32).
    """
    optics = torch.cat([camera.principal_point, camera.focal[:, None]], 1)
    if serves(attributes_BVC, optics):
        return _CompiledInterpolation.apply(attributes_BVC, optics, faces_F3, fragments)
    corners = gather_corners(attributes_BVC, fragments.corners(faces_F3, attributes_BVC.shape[1]))
    return (barycentrics(corners[:3], optics, fragments) * corners).sum(1)


def gather_corners(attributes_BVC: Tensor, corners_3P: Tensor) -> Tensor:
    """(C, 3, P) attributes at the corners that `Fragments.corners` gives. Differentiable."""
    rows = attributes_BVC.flatten(0, 1).index_select(0, corners_3P.flatten())
    return rows.t().contiguous().view(rows.shape[1], *corners_3P.shape)


def barycentrics(corners_33P: Tensor, optics_B3: Tensor, fragments: Fragments) -> Tensor:
    """Perspective-correct barycentric coordinates of the surface point behind each pixel's centre.

    The point is where the pixel's ray r meets the triangle: sum_i b_i v_i is parallel to r, so by Cramer's rule
    b_i is proportional to det(r, v_j, v_k) (homogeneous rasterisation: Olano and Greer 1997). The shear that turns r
    into the optical axis leaves each determinant as the cross product of two short vectors: no division by depth, and
    no cancellation between numbers of the size of the camera's distance.

    Args:
        corners_33P: (xyz, corner, P) camera space, mm. optics_B3: principal point and focal length of each image, NDC.

    Returns:
        (3, P), sums to 1; negative only by rounding. Differentiable in corners and optics.
    """
    optics = fragments.spread(optics_B3)
    slope = (fragments.centres(optics) - optics[:2]) / optics[2]
    x, y = corners_33P[:2] + slope[:, None] * corners_33P[2]
    weights = x.roll(-1, 0) * y.roll(-2, 0) - y.roll(-1, 0) * x.roll(-2, 0)
    return weights / weights.sum(0)


class _CompiledInterpolation(torch.autograd.Function):
    """`interpolate_visible` in compiled loops."""

    @staticmethod
    def forward(ctx, attributes_BVC, optics_B3, faces_F3, fragments):
        ctx.save_for_backward(attributes_BVC, optics_B3, faces_F3)
        mesh = arrays(attributes_BVC, optics_B3, faces_F3)
        ctx.lists = arrays(fragments.pixel, fragments.triangle, fragments.first_of_image())
        ctx.size = fragments.size
        values = attributes_BVC.new_empty(attributes_BVC.shape[-1], len(fragments.pixel))
        unused = arrays(attributes_BVC.new_empty(0, 0, 0), optics_B3.new_empty(0, 0))
        for_each_image(_interpolate, len(optics_B3), *mesh, *ctx.lists, ctx.size, values.numpy(), False, *unused)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient_CP):
        mesh = arrays(*ctx.saved_tensors)
        to_attributes, to_optics = (torch.zeros(array.shape) for array in mesh[:2])
        outputs = to_attributes.numpy(), to_optics.numpy()
        gradient = arrays(gradient_CP)
        for_each_image(_interpolate, len(to_optics), *mesh, *ctx.lists, ctx.size, *gradient, True, *outputs)
        return to_attributes, to_optics, None, None


@compiled(
    "void(int64, float32[:,:,::1], float32[:,::1], int64[:,::1], int64[::1], int64[::1], int64[::1], int64,"
    " float32[:,::1], boolean, float32[:,:,::1], float32[:,::1])"
)
def _interpolate(
    image, vertices, optics, faces, pixels, triangles, first, size, values, backward, to_vertices, to_optics
):
    """Write `values` (C, P); or, backward, read them as gradients and add to those of vertices and optics."""
    one, half_side = np.float32(1), np.float32(2 / size)
    centre_x, centre_y, focal = optics[image, 0], optics[image, 1], optics[image, 2]
    sum_x, sum_y, sum_f = 0.0, 0.0, 0.0
    for p in range(first[image], first[image + 1]):
        row, column = pixels[p] // size % size, pixels[p] % size
        slope_x = (np.float32(column + 0.5) * half_side - one - centre_x) / focal
        slope_y = (one - np.float32(row + 0.5) * half_side - centre_y) / focal
        i, j, k = faces[triangles[p], 0], faces[triangles[p], 1], faces[triangles[p], 2]
        zi, zj, zk = vertices[image, i, 2], vertices[image, j, 2], vertices[image, k, 2]
        xi, yi = vertices[image, i, 0] + slope_x * zi, vertices[image, i, 1] + slope_y * zi
        xj, yj = vertices[image, j, 0] + slope_x * zj, vertices[image, j, 1] + slope_y * zj
        xk, yk = vertices[image, k, 0] + slope_x * zk, vertices[image, k, 1] + slope_y * zk
        wi, wj, wk = xj * yk - yj * xk, xk * yi - yk * xi, xi * yj - yi * xj
        scale = one / (wi + wj + wk)
        bi, bj, bk = wi * scale, wj * scale, wk * scale
        if not backward:
            for c in range(len(values)):
                values[c, p] = bi * vertices[image, i, c] + bj * vertices[image, j, c] + bk * vertices[image, k, c]
            continue
        gi, gj, gk = np.float32(0), np.float32(0), np.float32(0)
        for c in range(len(values)):
            g = values[c, p]
            gi += g * vertices[image, i, c]
            gj += g * vertices[image, j, c]
            gk += g * vertices[image, k, c]
            to_vertices[image, i, c] += bi * g
            to_vertices[image, j, c] += bj * g
            to_vertices[image, k, c] += bk * g
        # b = w / sum(w), then w_i = x_j y_k - y_j x_k and its rotations, then x = X + slope Z.
        mean = gi * bi + gj * bj + gk * bk
        gi, gj, gk = (gi - mean) * scale, (gj - mean) * scale, (gk - mean) * scale
        gxi, gyi = gk * yj - gj * yk, gj * xk - gk * xj
        gxj, gyj = gi * yk - gk * yi, gk * xi - gi * xk
        gxk, gyk = gj * yi - gi * yj, gi * xj - gj * xi
        to_vertices[image, i, 0] += gxi
        to_vertices[image, i, 1] += gyi
        to_vertices[image, i, 2] += slope_x * gxi + slope_y * gyi
        to_vertices[image, j, 0] += gxj
        to_vertices[image, j, 1] += gyj
        to_vertices[image, j, 2] += slope_x * gxj + slope_y * gyj
        to_vertices[image, k, 0] += gxk
        to_vertices[image, k, 1] += gyk
        to_vertices[image, k, 2] += slope_x * gxk + slope_y * gyk
        gx, gy = gxi * zi + gxj * zj + gxk * zk, gyi * zi + gyj * zj + gyk * zk
        sum_x += gx
        sum_y += gy
        sum_f += gx * slope_x + gy * slope_y
    if backward:
        to_optics[image, 0] -= sum_x / focal
        to_optics[image, 1] -= sum_y / focal
        to_optics[image, 2] -= sum_f / focal
