"""Silhouettes that move: the coverage of the pixels along a face's outlines as a function of the vertices.

Visibility is discrete, so the hard mask has no gradient. Here, as in nvdiffrast's `antialias` (Laine et al. 2020), a
pair of neighbouring pixels of which one sees past an outline of the other is blended by where the outline crosses the
line between their centres: an outline half-way leaves both as they are, one nearer to the outer centre covers part of
the outer pixel. Along a straight outline the coverage sums to its exact area, and so does the gradient.

Unlike there, the list starts from the outline's edges and not from the pixels' triangles: at the rim of a fine mesh the
triangle that a pixel sees seldom owns the edge between it and the next pixel. An outline is an edge of a drawn triangle
whose other side is turned away or missing. It counts where it lies in front of what the outer pixel sees by more than
`GAP`, so that a seam, where a mesh has two edges at one place, is none.

Legend: B images · S side · C channels · V vertices · F triangles · E edges · N crossings · axis 0 compares pixels in a
row, axis 1 in a column.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor

from fitdiff import geometry
from fitdiff.renderer.visibility import front_facing, screen_points
from fitdiff.types import Camera

GAP = 0.005
"""Smallest step in depth, relative to the distance, that is an outline: 3 mm at 60 cm."""


def opposite_faces(faces_F3: Tensor) -> Tensor:
    """(F, 3) int64: the triangle on the other side of the edge from each corner to the next, -1 at a border."""
    start, end = faces_F3, faces_F3.roll(-1, 1)
    n_vertices = int(faces_F3.max()) + 1
    directed, reversed_ = (start * n_vertices + end).flatten(), (end * n_vertices + start).flatten()
    order = directed.argsort()
    place = torch.searchsorted(directed[order], reversed_).clamp_max(len(order) - 1)
    found = directed[order][place] == reversed_
    return torch.where(found, order[place] // 3, -1).view_as(faces_F3)


def soften(
    images_BCSS: Tensor,
    inverse_depth_BSS: Tensor,
    vertices_BV3: Tensor,
    camera: Camera,
    faces_F3: Tensor,
    opposite_F3: Tensor,
    cull_back_faces: bool,
) -> Tensor:
    """Blend pixels across outlines.

    Args:
        images_BCSS: anything that is zero where there is no face, such as linear colours and the mask.
        inverse_depth_BSS: 1/mm at the pixels' centres, 0 where there is no face.
        vertices_BV3: camera space, mm. opposite_F3: from `opposite_faces`.

    Returns:
        (B, C, S, S). Differentiable in images, vertices, focal length and principal point.
    """
    size = images_BCSS.shape[-1]
    screen = geometry.ndc_to_pixels(geometry.project(vertices_BV3, camera), size)
    inverse_depth = screen_points(vertices_BV3.detach(), camera.detach(), size)[..., 2].to(screen)
    image, start, end, inside_right = outline_edges(
        torch.cat([screen.detach(), inverse_depth[..., None]], -1), faces_F3, opposite_F3, cull_back_faces
    )
    ends = [(screen[image, vertex], inverse_depth[image, vertex]) for vertex in (start, end)]
    flat = images_BCSS.transpose(0, 1).flatten(1)
    depth, row_wise = inverse_depth_BSS.detach().flatten(), _varies_along_rows(inverse_depth_BSS)
    softened = flat
    for axis in (0, 1):
        inner, outer, reach = crossings(image, ends, inside_right == (axis == 0), axis, size, depth)
        along = row_wise[inner] == (axis == 0)
        inner, outer, share = inner[along], outer[along], reach[along] - 0.5
        step = flat[:, inner] - flat[:, outer]
        softened = softened.index_add(1, outer, step * share.clamp_min(0))
        softened = softened.index_add(1, inner, step * share.clamp_max(0))
    return softened.unflatten(1, (len(images_BCSS), size, size)).transpose(0, 1)


def outline_edges(
    screen_BV3: Tensor, faces_F3: Tensor, opposite_F3: Tensor, cull_back_faces: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Edges of drawn triangles whose other side is missing or turned the other way.

    Args:
        screen_BV3: column and row in pixels, and 1/depth.

    Returns:
        Image, first and second vertex, (E,) int64 each, and (E,) bool: does the triangle lie on the side of larger
        columns where the edge runs down (else where it runs up)?
    """
    corners = screen_BV3[:, faces_F3]
    drawn, front = front_facing(corners, cull_back_faces), front_facing(corners, True)
    alone = (opposite_F3 < 0) | (front[..., None] != front[:, opposite_F3.clamp_min(0)])
    image, face, corner = (drawn[..., None] & alone).nonzero(as_tuple=True)
    return image, faces_F3[face, corner], faces_F3[face, (corner + 1) % 3], front[image, face]


def crossings(
    image_E: Tensor,
    ends: list[tuple[Tensor, Tensor]],
    inside_beyond_E: Tensor,
    axis: int,
    size: int,
    inverse_depth: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Where outlines cross the lines between the centres of neighbouring pixels.

    Args:
        ends: of the edges, twice (E, 2) pixels and (E,) 1/depth. inside_beyond_E: does the triangle lie at larger
            coordinates along the axis where the edge runs to larger coordinates across it?
        inverse_depth: (B S S,) what the pixels see.

    Returns:
        Inner and outer pixel, (N,) indices into the flattened (B, S, S), and (N,) how far from the inner to the outer
        centre the face reaches, in [0, 1]. Differentiable in the ends.
    """
    (a, depth_a), (b, depth_b) = ends
    (along_a, across_a), (along_b, across_b) = ((p[:, axis], p[:, 1 - axis]) for p in (a, b))
    first = (torch.minimum(across_a, across_b).detach().clamp(0, size) - 0.5).ceil().long()
    last = (torch.maximum(across_a, across_b).detach().clamp(0, size) - 0.5).ceil().long()
    counts = (last - first).clamp_min(0)
    owner = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    line = first[owner] + torch.arange(len(owner), device=owner.device) - (counts.cumsum(0) - counts)[owner]
    share = (line + 0.5 - across_a[owner]) / (across_b - across_a)[owner]
    place = along_a[owner] + share * (along_b - along_a)[owner]
    before = (place.detach() - 0.5).floor().long()
    reach_before = place - before - 0.5
    beyond = inside_beyond_E[owner] == (across_b > across_a)[owner]
    stride, across_stride = (1, size) if axis == 0 else (size, 1)
    kept = ((before >= 0) & (before < size - 1)).nonzero()[:, 0]
    at = (image_E[owner] * size**2 + line * across_stride + before * stride)[kept]
    beyond = beyond[kept].long()
    inner, outer = at + stride * beyond, at + stride * (1 - beyond)
    edge_depth = (depth_a[owner] + share.detach() * (depth_b - depth_a)[owner])[kept]
    in_front = torch.minimum(edge_depth, inverse_depth[inner]) > inverse_depth[outer] * (1 + GAP)
    reach = torch.where(beyond > 0, 1 - reach_before[kept], reach_before[kept])[in_front]
    # Where several outlines cross one pair of pixels, the face ends at the outermost of them.
    pairs, number = torch.unique(torch.stack([inner, outer], 1)[in_front], dim=0, return_inverse=True)
    outermost = reach.new_zeros(len(pairs)).scatter_reduce(0, number, reach, "amax", include_self=False)
    return pairs[:, 0], pairs[:, 1], outermost


def _varies_along_rows(inverse_depth_BSS: Tensor) -> Tensor:
    """(B S S,) bool: does an outline here run rather down than across the image (by Sobel's gradient)?

    Each outline is to be counted by one kind of pair only.
    """
    smooth = torch.tensor([1.0, 2.0, 1.0], device=inverse_depth_BSS.device)
    slope = torch.tensor([-1.0, 0.0, 1.0], device=inverse_depth_BSS.device)
    filters = torch.stack([torch.outer(smooth, slope), torch.outer(slope, smooth)])[:, None]
    padded = nnf.pad(inverse_depth_BSS.detach()[:, None].float(), (1, 1, 1, 1), mode="replicate")
    across, down = nnf.conv2d(padded, filters).abs().unbind(1)
    return (across >= down).flatten()
