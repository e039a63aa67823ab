"""Shading: tangent frames, normal mapping and the reflectance model. Linear RGB, camera space.

    colour = clamp( [ambient + sum_l max(0, N.L_l) c_l] * A_D  +  sum_l specular_l * A_S )        (FitMe, AvatarMe++)

Light colours absorb the 1/pi of Lambert's law, so c = 1 shows an albedo as it is. Chosen, where the papers are silent:
the specular lobe is Blinn-Phong with its energy normalised and weighted by N.L, so that it vanishes continuously where
the light sets, and A_S means what `types` says (F0 / 0.08) at any shininess.

Legend: P covered pixels · L lights · V vertices · F triangles.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor

from fitdiff.types import SPECULAR_SCALE, Lighting


def vertex_frames(vertices_BV3: Tensor, faces_F3: Tensor, uv_V2: Tensor) -> Tensor:
    """Smooth normals and tangents at the vertices.

    Sums over the triangles round a vertex: normals weighted by area (the cross product of two edges, as it is),
    tangents by area in UV space, where  |det| dp/du = sign(det) (e1 dv2 - e2 dv1)  needs no division.

    Returns:
        (B, V, 6): unit normal, then the tangent along +u (neither unit nor orthogonal). Differentiable.
    """
    a, b, c = vertices_BV3[:, faces_F3].unbind(2)
    e1, e2 = b - a, c - a
    d1, d2 = (uv_V2[faces_F3[:, i]] - uv_V2[faces_F3[:, 0]] for i in (1, 2))
    sign = _uv_determinant(d1, d2).sign()
    tangent = e1 * (sign * d2[:, 1])[:, None] - e2 * (sign * d1[:, 1])[:, None]
    per_face = torch.cat([torch.linalg.cross(e1, e2), tangent], -1)
    per_corner = per_face[:, :, None].expand(-1, -1, 3, -1).flatten(1, 2)
    total = per_face.new_zeros(*vertices_BV3.shape[:2], 6).index_add(1, faces_F3.flatten(), per_corner)
    normal, tangent = total.split(3, -1)
    return torch.cat([nnf.normalize(normal, dim=-1), nnf.normalize(tangent, dim=-1)], -1)


def uv_handedness(faces_F3: Tensor, uv_V2: Tensor) -> Tensor:
    """(F,) +1 where the texture reads correctly from outside, -1 where it is mirrored: the sign of N x T along -v."""
    d1, d2 = (uv_V2[faces_F3[:, i]] - uv_V2[faces_F3[:, 0]] for i in (1, 2))
    return torch.where(_uv_determinant(d1, d2) > 0, -1.0, 1.0)


def _uv_determinant(d1_F2: Tensor, d2_F2: Tensor) -> Tensor:
    """Twice the signed area in UV space; negative for a texture that is not mirrored, since v runs down."""
    return d1_F2[:, 0] * d2_F2[:, 1] - d1_F2[:, 1] * d2_F2[:, 0]


def map_normals(frames_P6: Tensor, handedness_P: Tensor, tangent_normals_P3: Tensor) -> Tensor:
    """Turn tangent-space normals into camera space (glTF 2.0, section 3.9.3: bitangent = N x T * handedness).

    Args:
        frames_P6: interpolated normal and tangent. handedness_P: +-1. tangent_normals_P3: from the normal map.

    Returns:
        (P, 3) unit. Differentiable in frames and map.
    """
    normal, tangent = frames_P6.split(3, -1)
    normal = nnf.normalize(normal, dim=-1)
    tangent = nnf.normalize(tangent - normal * (normal * tangent).sum(-1, keepdim=True), dim=-1)
    bitangent = torch.linalg.cross(normal, tangent) * handedness_P[:, None]
    x, y, z = tangent_normals_P3.split(1, -1)
    return nnf.normalize(x * tangent + y * bitangent + z * normal, dim=-1)


def shade(
    normals_P3: Tensor,
    points_P3: Tensor,
    diffuse_albedo_P3: Tensor,
    specular_albedo_P3: Tensor,
    lighting: Lighting,
    image_P: Tensor,
    shininess: float,
) -> Tensor:
    """Linear colour of surface points, in the model at the head of this module.

    Args:
        normals_P3: unit, camera space. points_P3: camera space, mm (the view vector is per pixel).
        diffuse_albedo_P3: linear in [0, 1]. specular_albedo_P3: F0 / 0.08, linear.
        lighting: of the batch. image_P: (P,) int64, which item of the batch lights each point.
        shininess: Blinn-Phong exponent k.

    Returns:
        (P, 3) linear RGB, not clamped: sRGB encoding clamps. Differentiable in everything but `image_P`.
    """
    directions = nnf.normalize(lighting.directions, dim=-1)[image_P]
    view = nnf.normalize(-points_P3, dim=-1)
    cosine = (directions * normals_P3[:, None]).sum(-1).clamp_min(0)
    received = cosine[..., None] * lighting.colours[image_P]
    lobe = blinn_phong(normals_P3[:, None], directions, view[:, None], shininess)
    diffuse = (lighting.ambient[image_P] + received.sum(1)) * diffuse_albedo_P3
    return diffuse + (received * lobe[..., None]).sum(1) * specular_albedo_P3 * SPECULAR_SCALE


def blinn_phong(normal: Tensor, light: Tensor, view: Tensor, shininess: float) -> Tensor:
    """Energy-normalised Blinn-Phong lobe, times pi (light colours absorb 1/pi): (k + 8)/8 max(0, N.H)^k.

    Normalisation: Akenine-Moeller et al., Real-Time Rendering, 3rd ed., section 7.6. All inputs unit (..., 3).
    """
    half = nnf.normalize(light + view, dim=-1)
    return (shininess + 8) / 8 * (normal * half).sum(-1).clamp_min(0).pow(shininess)
