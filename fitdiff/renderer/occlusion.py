"""Ambient occlusion of a mesh, baked into a map: which share of the surroundings does each point of the face see?

    o(p) = 1/pi int V(p, d) max(0, N.d) dd      (V: is the surroundings visible from p in the direction d?)

The integral is a sum over directions spread evenly over the sphere. One picture of the mesh from each of them, with
parallel rays, answers V for all vertices at once: a vertex is seen if no triangle lies before it in its pixel.
"""

from __future__ import annotations

import math

import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from fitdiff import geometry
from fitdiff.renderer.visibility import rasterize_numba
from fitdiff.types import Topology

PICTURES_AT_ONCE = 32
"""Bounds the memory: pictures of 256 x 256 take 17 MB."""

SLACK = 0.01
"""How far before a vertex a triangle must lie to hide it, relative to half of the mesh's extent: 1 mm of a face."""


@torch.no_grad()
def bake_occlusion(
    vertices_V3: Tensor, topology: Topology, resolution: int, *, directions: int = 256, size: int = 256
) -> Tensor:
    """Occlusion map of one face for `FaceMaps.occlusion`. On the CPU; about a second. No gradient.

    Args:
        vertices_V3: mm, any space. resolution: side R of the map.
        directions: samples of the sphere; the error is about their inverse root. size: pixels of a picture's side.

    Returns:
        (1, 1, R, R) float32 in [0, 1]. Texels outside of all triangles repeat the nearest one inside.
    """
    occlusion = vertex_occlusion(vertices_V3.cpu().double(), topology.faces.cpu(), directions, size)
    return _spread_over_map(occlusion.float(), topology, resolution)[None, None]


def vertex_occlusion(vertices_V3: Tensor, faces_F3: Tensor, directions: int, size: int) -> Tensor:
    """(V,) occlusion of each vertex in [0, 1], 1 where everything is visible; float64 on the CPU."""
    normals = geometry.vertex_normals(vertices_V3[None], faces_F3)[0]
    centred = vertices_V3 - (vertices_V3.amin(0) + vertices_V3.amax(0)) / 2
    reached, possible = torch.zeros(2, len(vertices_V3), dtype=torch.float64)
    for frames in _even_frames(directions).split(PICTURES_AT_ONCE):
        cosine = (frames[:, 2] @ normals.t()).clamp_min(0)
        reached += (cosine * _seen(centred @ frames.transpose(1, 2), faces_F3, size)).sum(0)
        possible += cosine.sum(0)
    return reached / possible.clamp_min(1e-9)


def _seen(points_DV3: Tensor, faces_F3: Tensor, size: int) -> Tensor:
    """(D, V) bool: is a vertex the nearest thing to an eye far away along z?"""
    reach = points_DV3.norm(dim=-1).max()
    columns = (points_DV3[..., :2] / reach + 1) * (size / 2)
    # Parallel rays: any quantity that grows towards the eye and is linear in space does for 1/depth.
    screen = torch.cat([columns, points_DV3[..., 2:] / reach + 2], -1)
    triangle = rasterize_numba(screen.float(), faces_F3, size, False)
    column, row = columns.long().clamp(0, size - 1).unbind(-1)
    picture = torch.arange(len(screen))[:, None]
    nearest = triangle[picture, row, column]
    a, b, c = screen[picture[..., None], faces_F3[nearest.clamp_min(0)]].unbind(2)
    # Height of the nearest triangle's plane over the vertex itself: no error by the pixel's size.
    e1, e2, to_vertex = b - a, c - a, columns - a[..., :2]
    area = e1[..., 0] * e2[..., 1] - e1[..., 1] * e2[..., 0]
    share_1 = (to_vertex[..., 0] * e2[..., 1] - to_vertex[..., 1] * e2[..., 0]) / area
    share_2 = (e1[..., 0] * to_vertex[..., 1] - e1[..., 1] * to_vertex[..., 0]) / area
    plane = a[..., 2] + share_1 * e1[..., 2] + share_2 * e2[..., 2]
    own = (faces_F3[nearest.clamp_min(0)] == torch.arange(points_DV3.shape[1])[:, None]).any(-1)
    return (nearest < 0) | own | ~(plane > screen[..., 2] + SLACK)


def _even_frames(n: int) -> Tensor:
    """(n, 3, 3) rows x, y and z of eyes whose z points at n directions along Fibonacci's spiral."""
    index = torch.arange(n, dtype=torch.float64) + 0.5
    z, turn = 1 - 2 * index / n, index * math.pi * (3 - 5**0.5)
    level = (1 - z * z).sqrt()
    ahead = torch.stack([level * turn.cos(), level * turn.sin(), z], 1)
    right = torch.stack([-turn.sin(), turn.cos(), torch.zeros_like(turn)], 1)
    return torch.stack([right, torch.linalg.cross(ahead, right), ahead], 1)


def _spread_over_map(values_V: Tensor, topology: Topology, resolution: int) -> Tensor:
    """(R, R) values of the vertices, linear over each triangle of the UVs."""
    uv, faces = topology.uv.cpu() * resolution, topology.faces.cpu()
    points = torch.cat([uv, torch.ones(len(uv), 1)], 1)[None]
    triangle = rasterize_numba(points, faces, resolution, False)[0]
    row, column = (triangle >= 0).nonzero(as_tuple=True)
    corners = faces[triangle[row, column]]
    a, b, c = uv[corners].unbind(1)
    edges = torch.stack([b - a, c - a], 2).double()
    place = torch.stack([column + 0.5, row + 0.5], 1) - a
    shares = torch.linalg.solve(edges, place.double()[..., None])[..., 0].float()
    weights = torch.cat([1 - shares.sum(1, keepdim=True), shares], 1).clamp(0, 1)
    image = values_V.new_zeros(resolution, resolution)
    image[row, column] = (weights * values_V[corners]).sum(1)
    nearest = distance_transform_edt((triangle < 0).numpy(), return_distances=False, return_indices=True)
    return image[tuple(torch.from_numpy(nearest).long())].clamp(0, 1)
