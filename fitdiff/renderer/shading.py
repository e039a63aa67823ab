"""Shading: tangent frames, normal mapping and the reflectance model. Linear RGB, camera space.

    colour = clamp( [ambient + sum_l max(0, N.L_l) c_l] * A_D  +  sum_l specular_l * A_S )        (FitMe, AvatarMe++)

Light colours absorb the 1/pi of Lambert's law, so c = 1 shows an albedo as it is. Chosen, where the papers are silent:
the specular lobe is Blinn-Phong with its energy normalised and weighted by N.L, so that it vanishes continuously where
the light sets, and A_S means what `types` says (F0 / 0.08) at any shininess.

Legend: P covered pixels (lists are channels first, see `interpolation`) · L lights · V vertices · F triangles.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fitdiff.types import SPECULAR_SCALE


def unit(vectors: Tensor, dim: int) -> Tensor:
    """Normalise along `dim`; vectors shorter than 1e-10 shrink to zero, with a finite gradient."""
    return vectors * vectors.square().sum(dim, keepdim=True).clamp_min(1e-20).rsqrt()


def vertex_frames(vertices_BV3: Tensor, faces_F3: Tensor, uv_V2: Tensor) -> Tensor:
    """Smooth normals and tangents at the vertices.

    Sums over the triangles round a vertex: normals weighted by area (the cross product of two edges, as it is),
    tangents by area in UV space, where  |det| dp/du = sign(det) (e1 dv2 - e2 dv1)  needs no division.

    Returns:
        (B, V, 6): unit normal, then unit tangent along +u (not yet orthogonal). Differentiable.
    """
    batch, n_vertices = vertices_BV3.shape[:2]
    corners = faces_F3.t().flatten()
    # One row per vertex holds the whole batch, so that the cost of indexing does not grow with it.
    rows = vertices_BV3.transpose(0, 1).flatten(1)
    a, b, c = rows.index_select(0, corners).view(3, -1, batch, 3)
    e1, e2 = b - a, c - a
    (du1, dv1), (du2, dv2) = _uv_edges(faces_F3, uv_V2)
    sign = (du1 * dv2 - dv1 * du2).sign()
    tangent = e1 * (sign * dv2)[:, None, None] - e2 * (sign * dv1)[:, None, None]
    per_face = torch.cat([torch.linalg.cross(e1, e2), tangent], -1).flatten(1)
    total = per_face.new_zeros(n_vertices, batch * 6).index_add(0, corners, per_face.repeat(3, 1))
    return unit(total.view(n_vertices, batch, 2, 3), -1).flatten(2).transpose(0, 1)


def uv_handedness(faces_F3: Tensor, uv_V2: Tensor) -> Tensor:
    """(F,) +1 where the texture reads correctly from outside, -1 where it is mirrored.

    It is the sign of (N x T) along -v. Since v runs down, the UV area of a triangle that is not mirrored is negative.
    """
    (du1, dv1), (du2, dv2) = _uv_edges(faces_F3, uv_V2)
    return torch.where(du1 * dv2 - dv1 * du2 > 0, -1.0, 1.0)


def _uv_edges(faces_F3: Tensor, uv_V2: Tensor) -> tuple[Tensor, Tensor]:
    """Two edges from each triangle's first corner in UV space, (2, F) each."""
    a, b, c = uv_V2[faces_F3].permute(1, 2, 0)
    return b - a, c - a


def map_normals(frames_6P: Tensor, handedness_P: Tensor, tangent_normals_3P: Tensor) -> Tensor:
    """Turn tangent-space normals into camera space (as glTF 2.0 does: bitangent = N x T * handedness).

    Args:
        frames_6P: interpolated normal and tangent. handedness_P: +-1. tangent_normals_3P: from the normal map.

    Returns:
        (3, P) unit. Differentiable in frames and map.
    """
    normal, tangent = unit(frames_6P[:3], 0), frames_6P[3:]
    tangent = unit(tangent - normal * (normal * tangent).sum(0), 0)
    bitangent = torch.linalg.cross(normal, tangent, dim=0) * handedness_P
    x, y, z = tangent_normals_3P
    return unit(x * tangent + y * bitangent + z * normal, 0)


def shade(
    normals_3P: Tensor,
    points_3P: Tensor,
    diffuse_albedo_3P: Tensor,
    specular_albedo_3P: Tensor,
    ambient_3P: Tensor,
    directions_L3P: Tensor,
    colours_L3P: Tensor,
    shininess: float,
) -> Tensor:
    """Linear colour of surface points, in the model at the head of this module.

    Args:
        normals_3P: unit, camera space. points_3P: camera space, mm (the view vector is per pixel).
        diffuse_albedo_3P: linear in [0, 1]. specular_albedo_3P: F0 / 0.08, linear.
        ambient_3P, directions_L3P, colours_L3P: the `Lighting` of each point's image; directions of any length.
        shininess: Blinn-Phong exponent k.

    Returns:
        (3, P) linear RGB, not clamped. Differentiable in every tensor.
    """
    directions = unit(directions_L3P, 1)
    view = unit(-points_3P, 0)
    received = (directions * normals_3P).sum(1, keepdim=True).clamp_min(0) * colours_L3P
    lobe = blinn_phong(normals_3P, directions, view, shininess)
    specular = (received * lobe[:, None]).sum(0) * (SPECULAR_SCALE * specular_albedo_3P)
    return (ambient_3P + received.sum(0)) * diffuse_albedo_3P + specular


def blinn_phong(normals_3P: Tensor, lights_L3P: Tensor, views_3P: Tensor, shininess: float) -> Tensor:
    """Energy-normalised Blinn-Phong lobe c max(0, N.H)^k; inputs are unit vectors. Returns (L, P).

    c = (k + 2)(k + 4) / (8 (k + 2^(-k/2))), so that F0 = 1 reflects all of a light's energy at normal incidence:
    the integral of max(0, N.H)^k N.L over the hemisphere is pi / c there (light colours absorb 1/pi).
    """
    k = shininess
    halfway = unit(lights_L3P + views_3P, 1)
    return (k + 2) * (k + 4) / (8 * (k + 2 ** (-k / 2))) * (normals_3P * halfway).sum(1).clamp_min(0).pow(k)
