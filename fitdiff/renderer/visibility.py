"""Visibility: which triangle does the centre of each pixel see? A discrete answer, so nothing here has a gradient.

Three implementations of one definition, equal bit for bit: compiled loops (numba) for the CPU, vectorised torch for any
device, and a Warp kernel (`warp_kernel`) for CUDA and the CPU.

Definition (all in float32, image space):
    * Edge functions are taken relative to the pixel's centre, e = a_x b_y - a_y b_x. Swapping a and b negates e
      exactly, so two triangles that share an edge neither overlap nor leave a crack.
    * A centre exactly on an edge belongs to the triangle for which it is a left edge, or a level top edge (the usual
      top-left rule): exactly one of two neighbours.
    * The nearest triangle wins: 1/depth is linear in image space (Blinn 1992), so the largest 1/depth is the nearest.
      Equal depths go to the smaller triangle id.
    * A triangle is dropped if a vertex is nearer than `NEAR` or not finite. Faces stay far from the camera; clipping
      would add cases that never occur.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fitdiff import geometry
from fitdiff.renderer.compiled import arrays, compiled, for_each_image
from fitdiff.types import Camera

Rasterize = Callable[[Tensor, Tensor, int, bool], Tensor]
"""Screen points (B, V, 3), triangles (F, 3), size S, cull back faces? -> (B, S, S) int64."""

NEAR = 1.0
"""Near plane in mm."""

CHUNK = 1 << 24
"""Largest number of (triangle, pixel) pairs that the torch implementation holds at once: about 1 GB."""

EMPTY = -1
"""Key of a pixel that no triangle covers, smaller than any other."""


@torch.no_grad()
def visible_triangles(
    vertices_BV3: Tensor,
    camera: Camera,
    faces_F3: Tensor,
    size: int,
    *,
    cull_back_faces: bool = True,
    rasterize: Rasterize | None = None,
) -> Tensor:
    """Triangle seen by each pixel's centre; see the module's definition.

    Args:
        vertices_BV3: (B, V, 3) camera space, mm. camera: of batch B.
        faces_F3: (F, 3) int64, counter-clockwise seen from outside. size: side S of the image in pixels.
        cull_back_faces: drop triangles seen from inside.
        rasterize: which implementation; by default the compiled loops on a CPU, vectorised torch elsewhere.

    Returns:
        (B, S, S) int64 in [-1, F): triangle id, -1 where there is none. No gradient.
    """
    if rasterize is None:
        rasterize = rasterize_numba if vertices_BV3.device.type == "cpu" else rasterize_torch
    return rasterize(screen_points(vertices_BV3, camera, size), faces_F3, size, cull_back_faces)


def screen_points(vertices_BV3: Tensor, camera: Camera, size: int) -> Tensor:
    """Camera space -> (B, V, 3) float32: column and row in pixels, and 1/depth in 1/mm (0 behind the near plane)."""
    depth = -vertices_BV3[..., 2:]
    pixels = geometry.ndc_to_pixels(geometry.project(vertices_BV3, camera), size)
    return torch.cat([pixels, torch.where(depth > NEAR, 1 / depth, 0.0)], -1).float()


def front_facing(corners: Tensor, cull_back_faces: bool) -> Tensor:
    """(..., 3, 3) corners as `screen_points` gives them -> (...) bool: is this triangle drawn at all?"""
    area = _area(corners)
    return (corners[..., 2].amin(-1) > 0) & area.isfinite() & ((area < 0) if cull_back_faces else (area != 0))


def _area(corners: Tensor) -> Tensor:
    """Twice the signed area; rows run down, so a triangle that is counter-clockwise to the eye is negative."""
    x, y = corners[..., 0], corners[..., 1]
    return (x[..., 1] - x[..., 0]) * (y[..., 2] - y[..., 0]) - (y[..., 1] - y[..., 0]) * (x[..., 2] - x[..., 0])


def rasterize_numba(points_BV3: Tensor, faces_F3: Tensor, size: int, cull_back_faces: bool) -> Tensor:
    """Compiled z-buffer on the CPU. Arguments as `screen_points` gives them; returns (B, S, S) int64."""
    triangle = np.empty((len(points_BV3), size, size), np.int64)
    for_each_image(_rasterize_kernel, len(points_BV3), *arrays(points_BV3, faces_F3), cull_back_faces, triangle)
    return torch.from_numpy(triangle)


@compiled("void(int64, float32[:,:,::1], int64[:,::1], boolean, int64[:,:,::1])")
def _rasterize_kernel(image, points, faces, cull, triangle):
    zero, half = np.float32(0), np.float32(0.5)
    size = triangle.shape[1]
    limit = np.float32(size)
    nearest = np.zeros((size, size), np.float32)
    triangle[image] = -1
    for face in range(len(faces)):
        i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
        xi, yi, wi = points[image, i, 0], points[image, i, 1], points[image, i, 2]
        xj, yj, wj = points[image, j, 0], points[image, j, 1], points[image, j, 2]
        xk, yk, wk = points[image, k, 0], points[image, k, 1], points[image, k, 2]
        if not min(wi, wj, wk) > 0:
            continue
        # As in `_area`: front faces are negative. Turn all of them positive.
        area = (xj - xi) * (yk - yi) - (yj - yi) * (xk - xi)
        if not np.isfinite(area) or area == 0 or (cull and area > 0):
            continue
        if area < 0:
            xj, yj, wj, xk, yk, wk = xk, yk, wk, xj, yj, wj
        first_column = math.ceil(min(max(min(xi, xj, xk), zero), limit) - half)
        last_column = math.floor(min(max(max(xi, xj, xk), zero), limit) - half)
        first_row = math.ceil(min(max(min(yi, yj, yk), zero), limit) - half)
        last_row = math.floor(min(max(max(yi, yj, yk), zero), limit) - half)
        own_i = yk < yj or (yk == yj and xk > xj)
        own_j = yi < yk or (yi == yk and xi > xk)
        own_k = yj < yi or (yj == yi and xj > xi)
        for row in range(first_row, last_row + 1):
            y = np.float32(row) + half
            ai, aj, ak = yi - y, yj - y, yk - y
            for column in range(first_column, last_column + 1):
                x = np.float32(column) + half
                ei = (xj - x) * ak - aj * (xk - x)
                ej = (xk - x) * ai - ak * (xi - x)
                ek = (xi - x) * aj - ai * (xj - x)
                if ei < 0 or ej < 0 or ek < 0:
                    continue
                if (ei == 0 and not own_i) or (ej == 0 and not own_j) or (ek == 0 and not own_k):
                    continue
                w = (ei * wi + ej * wj + ek * wk) / (ei + ej + ek)
                if w > nearest[row, column]:
                    nearest[row, column] = w
                    triangle[image, row, column] = face


def rasterize_torch(points_BV3: Tensor, faces_F3: Tensor, size: int, cull_back_faces: bool) -> Tensor:
    """Vectorised z-buffer on any device: every (triangle, pixel of its box) pair, then a scattered maximum.

    Depth and id are packed in one int64, so that a single atomic maximum settles both and the result is deterministic.
    """
    n_images, device = len(points_BV3), points_BV3.device
    image, face, corners = _candidates(points_BV3, faces_F3, cull_back_faces)
    first = (corners[..., :2].amin(1).clamp(0, size) - 0.5).ceil().long()
    last = (corners[..., :2].amax(1).clamp(0, size) - 0.5).floor().long()
    extent = (last - first + 1).clamp_min(0)
    winner = torch.full((n_images * size * size,), EMPTY, dtype=torch.int64, device=device)
    for part in _chunks(extent.prod(1)):
        columns, rows, owner = _pixels_of_boxes(first[part], extent[part])
        inside, inverse_depth = _evaluate(corners[part], owner, columns, rows)
        owner, columns, rows = owner[inside], columns[inside], rows[inside]
        # A positive float's bits order like the float; the complement makes the smaller id win ties.
        key = (inverse_depth[inside].view(torch.int32).long() << 32) | (0x7FFFFFFF - face[part][owner])
        winner.scatter_reduce_(0, (image[part][owner] * size + rows) * size + columns, key, "amax")
    return unpack(winner).view(n_images, size, size)


def unpack(key: Tensor) -> Tensor:
    """The triangle id in a key of 1/depth and id, -1 where the key is `EMPTY`."""
    return torch.where(key >= 0, 0x7FFFFFFF - (key & 0xFFFFFFFF), key)


def _candidates(points_BV3: Tensor, faces_F3: Tensor, cull_back_faces: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Triangles worth drawing: image and face ids (N,), corners (N, 3, 3) with positive area in image space."""
    corners = points_BV3[:, faces_F3]
    image, face = front_facing(corners, cull_back_faces).nonzero(as_tuple=True)
    corners = corners[image, face]
    return image, face, torch.where((_area(corners) < 0)[:, None, None], corners[:, [0, 2, 1]], corners)


def _chunks(counts: Tensor) -> list[Tensor]:
    """Split non-empty boxes into index lists of about `CHUNK` pixels (a single larger box stays whole)."""
    index = counts.nonzero()[:, 0]
    chunk = counts[index].cumsum(0) // CHUNK
    return list(index.split(torch.bincount(chunk).tolist())) if len(index) else []


def _pixels_of_boxes(first_N2: Tensor, extent_N2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All pixels of all boxes, flat: columns, rows and the number of the box that each belongs to."""
    counts = extent_N2.prod(1)
    owner = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    local = torch.arange(len(owner), device=counts.device) - (counts.cumsum(0) - counts)[owner]
    width = extent_N2[owner, 0]
    return first_N2[owner, 0] + local % width, first_N2[owner, 1] + local // width, owner


def _evaluate(corners_N33: Tensor, owner: Tensor, columns: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Coverage (bool) and 1/depth of each pair, in the operations and order of the compiled kernel."""
    x, y, w = corners_N33[owner].unbind(-1)
    own = _owns_edges(corners_N33)[owner]
    dx, dy = x - (columns + 0.5)[:, None], y - (rows + 0.5)[:, None]
    following, preceding = [1, 2, 0], [2, 0, 1]
    edge = dx[:, following] * dy[:, preceding] - dy[:, following] * dx[:, preceding]
    inside = ((edge > 0) | ((edge == 0) & own)).all(1)
    ew = edge * w
    inverse_depth = (ew[:, 0] + ew[:, 1] + ew[:, 2]) / (edge[:, 0] + edge[:, 1] + edge[:, 2])
    return inside & (inverse_depth > 0), inverse_depth


def _owns_edges(corners_N33: Tensor) -> Tensor:
    """(N, 3) bool: does the edge opposite each corner include the points exactly on it?"""
    start, end = corners_N33[:, [1, 2, 0], :2], corners_N33[:, [2, 0, 1], :2]
    up, level = end[..., 1] < start[..., 1], end[..., 1] == start[..., 1]
    return up | (level & (end[..., 0] > start[..., 0]))
