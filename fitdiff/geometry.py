"""Rotations and projection: the only place where head space becomes camera space, NDC and pixels (see `types`).

Also the normals and tangents of a mesh: the frame in which `FaceMaps.normals` is read.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor

from fitdiff.types import Camera


def rotation_matrix(axis_angle_B3: Tensor) -> Tensor:
    """Rodrigues' formula: (B, 3) axis-angle in radians -> (B, 3, 3). Smooth at zero."""
    x, y, z = axis_angle_B3.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*axis_angle_B3.shape[:-1], 3, 3)
    return torch.linalg.matrix_exp(skew)


def to_camera_space(points_BN3: Tensor, camera: Camera) -> Tensor:
    """Head space to camera space: (B, N, 3) mm -> (B, N, 3) mm."""
    return points_BN3 @ rotation_matrix(camera.rotation).transpose(1, 2) + camera.translation[:, None]


def project(points_BN3: Tensor, camera: Camera) -> Tensor:
    """Camera space to NDC: (B, N, 3) mm -> (B, N, 2). Points must lie in front of the camera (z < 0)."""
    depth = -points_BN3[..., 2:]
    return camera.focal[:, None, None] * points_BN3[..., :2] / depth + camera.principal_point[:, None]


def pixels_to_ndc(points: Tensor, size: int | float) -> Tensor:
    """Image space of a size x size image -> NDC. (..., 2) pixels -> (..., 2)."""
    return (points * (2 / size) - 1) * points.new_tensor([1.0, -1.0])


def ndc_to_pixels(points: Tensor, size: int | float) -> Tensor:
    """NDC -> image space of a size x size image: the inverse of `pixels_to_ndc`."""
    return (points * points.new_tensor([1.0, -1.0]) + 1) * (size / 2)


def vertex_normals(vertices_BV3: Tensor, faces_F3: Tensor) -> Tensor:
    """Smooth unit normals: the area-weighted mean of the adjacent faces' normals. Differentiable.

    Args:
        vertices_BV3: (B, V, 3) any unit.
        faces_F3: (F, 3) int64, counter-clockwise seen from outside.

    Returns:
        (B, V, 3) unit length, outwards; zero at vertices of no face.
    """
    a, b, c = vertices_BV3[:, faces_F3].unbind(2)
    return nnf.normalize(_sum_over_faces(torch.linalg.cross(b - a, c - a), faces_F3, vertices_BV3.shape[1]), dim=-1)


def vertex_tangents(vertices_BV3: Tensor, faces_F3: Tensor, uv_V2: Tensor, normals_BV3: Tensor) -> Tensor:
    """Unit tangents along +u, perpendicular to the normals, and the sign of the bitangent. Differentiable.

    With them a tangent-space normal (x, y, z) is ``x t + y w cross(n, t) + z n``, where `w cross(n, t)` points along -v
    (the `TANGENT` attribute of glTF 2.0, section 3.7.2.1). Faces count by their area in UV space: dP/du times that area
    needs no division, so that a degenerate face contributes nothing.

    Args:
        vertices_BV3: (B, V, 3) any unit.
        faces_F3: (F, 3) int64.
        uv_V2: (V, 2) UV space, v down.
        normals_BV3: (B, V, 3) unit length, as `vertex_normals` gives them.

    Returns:
        (B, V, 4): x, y, z of the tangent (zero where u has no direction) and w = +1, or -1 where the UVs are mirrored.
    """
    a, b, c = vertices_BV3[:, faces_F3].unbind(2)
    uv_a, uv_b, uv_c = uv_V2.to(vertices_BV3)[faces_F3].unbind(1)
    (du1, dv1), (du2, dv2) = (uv_b - uv_a)[..., None].unbind(1), (uv_c - uv_a)[..., None].unbind(1)
    orientation = torch.sign(du1 * dv2 - du2 * dv1)
    along_u = _sum_over_faces(((b - a) * dv2 - (c - a) * dv1) * orientation, faces_F3, vertices_BV3.shape[1])
    along_v = _sum_over_faces(((c - a) * du1 - (b - a) * du2) * orientation, faces_F3, vertices_BV3.shape[1])
    tangents = nnf.normalize(along_u - (along_u * normals_BV3).sum(-1, keepdim=True) * normals_BV3, dim=-1)
    up = -(torch.linalg.cross(normals_BV3, tangents) * along_v).sum(-1, keepdim=True)
    return torch.cat([tangents, torch.where(up < 0, -1.0, 1.0).to(tangents)], -1)


def _sum_over_faces(values_BF3: Tensor, faces_F3: Tensor, n_vertices: int) -> Tensor:
    """Sum per-face vectors at the three vertices of each face: (B, F, 3) -> (B, V, 3)."""
    total = values_BF3.new_zeros(values_BF3.shape[0], n_vertices, 3)
    return total.index_add(1, faces_F3.T.reshape(-1), values_BF3.repeat(1, 3, 1))
