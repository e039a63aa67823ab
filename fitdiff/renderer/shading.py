"""Shading: tangent frames, normal mapping and the reflectance model. Linear RGB, camera space.

    colour = clamp( [o surroundings(N) + sum_l max(0, N.L_l) c_l] * A_D
                  + [o_s rho(N.V) reflections(R) + sum_l max(0, N.L_l) c_l lobe(N.H_l)] * 0.08 A_S )

(FitMe, AvatarMe++), with the lamps' light c_l as it arrives at the point, and everything in received light (see
`lights`), so that 1 shows an albedo as it is. Chosen, where the papers are silent:

    * The lobe is Blinn-Phong with its energy normalised and weighted by N.L, so that it vanishes continuously where the
      lamp sets, and A_S means what `types` says (F0 / 0.08) at any shininess. It never reflects more than it gets.
    * The surroundings' reflection is the split-sum approximation (Karis 2013): a map filtered by the lobe of a view
      along the normal, looked up in the mirror direction R, times rho, the share of all light that the lobe reflects.
    * Occlusion o dims the surroundings only, never the lamps; o_s is its specular counterpart (Lagarde and de Rousiers
      2014, section 4.10.2), which is 1 where o is 1 and 0 where o is 0.

Legend: P covered pixels (lists are channels first, see `interpolation`) · L lamps · V vertices · F triangles.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from fitdiff.renderer import lights
from fitdiff.renderer.interpolation import Fragments
from fitdiff.renderer.lights import unit
from fitdiff.types import SPECULAR_SCALE, Lighting


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


def receive(
    normals_3P: Tensor,
    points_3P: Tensor,
    occlusion_P: Tensor | None,
    lighting: Lighting,
    origin_B3: Tensor,
    fragments: Fragments,
    shininess: float,
) -> tuple[Tensor, Tensor]:
    """Light that surface points receive, in the model at the head of this module.

    Args:
        normals_3P: unit, camera space. points_3P: camera space, mm (the view vector is per pixel).
        occlusion_P: share of the surroundings' light that arrives, in [0, 1]; None is 1.
        lighting: of the images, batch B. origin_B3: the head's origin in camera space, mm.
        shininess: Blinn-Phong exponent k.

    Returns:
        The two square brackets of the model, (3, P) each: multiplied by the albedos they are the linear colour.
        Differentiable in every tensor.
    """
    spread, counts = fragments.spread, fragments.counts
    view = unit(-points_3P, 0)
    proximity = None if lighting.proximity is None else spread(lighting.proximity)
    from_origin = points_3P if proximity is None else points_3P - spread(origin_B3)
    lamps, arriving = lights.from_lamps(spread(lighting.directions), spread(lighting.colours), proximity, from_origin)
    received = (lamps * normals_3P).sum(1, keepdim=True).clamp_min(0) * arriving
    specular = (received * blinn_phong(normals_3P, lamps, view, shininess)[:, None]).sum(0)
    diffuse = lights.from_surroundings(spread(lighting.ambient), lighting.harmonics, normals_3P, counts)
    if occlusion_P is not None:
        diffuse = diffuse * occlusion_P
    if lighting.reflections is not None:
        cosine = (normals_3P * view).sum(0)
        mirrored = lights.reflected(lighting.reflections, 2 * cosine * normals_3P - view, counts)
        specular = specular + mirrored * _share_reflected(cosine.clamp(0, 1), occlusion_P, shininess)
    return diffuse + received.sum(0), specular


def colour(diffuse_3P: Tensor, specular_3P: Tensor, diffuse_albedo_3P: Tensor, specular_albedo_3P: Tensor) -> Tensor:
    """(3, P) linear RGB, not clamped, of points that receive what `receive` gives. Differentiable."""
    return diffuse_3P * diffuse_albedo_3P + SPECULAR_SCALE * specular_3P * specular_albedo_3P


def blinn_phong(normals_3P: Tensor, lights_L3P: Tensor, views_3P: Tensor, shininess: float) -> Tensor:
    """Energy-normalised Blinn-Phong lobe c max(0, N.H)^k; inputs are unit vectors. Returns (L, P).

    c = (k + 2)(k + 4) / (8 (k + 2^(-k/2))), so that F0 = 1 reflects all of a light's energy at normal incidence:
    the integral of max(0, N.H)^k N.L over the hemisphere is pi / c there (light colours absorb 1/pi).
    """
    halfway = unit(lights_L3P + views_3P, 1)
    return lobe_scale(shininess) * (normals_3P * halfway).sum(1).clamp_min(0).pow(shininess)


def lobe_scale(shininess: float) -> float:
    """The factor c of `blinn_phong`."""
    k = shininess
    return (k + 2) * (k + 4) / (8 * (k + 2 ** (-k / 2)))


def specular_occlusion(occlusion_P: Tensor, cosine_P: Tensor, shininess: float) -> Tensor:
    """Share of the reflected surroundings that is not hidden, clamp((N.V + o)^(2^(-16 m - 1)) - 1 + o, 0, 1).

    Lagarde and de Rousiers (2014), listing 26, with Beckmann's roughness m = sqrt(2 / (k + 2)). Differentiable.
    """
    exponent = 2 ** (-16 * (2 / (shininess + 2)) ** 0.5 - 1)
    return ((cosine_P + occlusion_P).clamp_min(1e-4).pow(exponent) - 1 + occlusion_P).clamp(0, 1)


def _share_reflected(cosine_P: Tensor, occlusion_P: Tensor | None, shininess: float) -> Tensor:
    """(P,) rho(N.V), times the specular occlusion if there is any."""
    share = functools.reduce(lambda total, c: total * cosine_P + c, reflectance_polynomial(shininess), 0.0)
    return share if occlusion_P is None else share * specular_occlusion(occlusion_P, cosine_P, shininess)


@functools.cache
def reflectance_polynomial(shininess: float) -> tuple[float, ...]:
    """Share of uniform light from all sides that the lobe with F0 = 1 reflects, a polynomial of N.V in [0, 1].

    rho(N.V) = 1/pi int c max(0, N.H)^k N.L dL over the hemisphere: 1 at normal incidence, less at grazing angles.
    Fitted by least squares to the integral; the error is below 1e-3 for k up to 100 and 2e-3 for k up to 400.

    Returns:
        Coefficients, highest power first.
    """
    n_views, n_heights, n_turns = 33, 256, 64
    height, turn = (np.arange(n_heights) + 0.5) / n_heights, (np.arange(n_turns) + 0.5) / n_turns * np.pi
    view = np.linspace(0, 1, n_views)[:, None, None]
    cosine = height[:, None]
    between = np.sqrt(1 - view**2) * np.sqrt(1 - cosine**2) * np.cos(turn) + view * cosine
    half = (view + cosine) / np.sqrt(2 + 2 * between)
    integral = 2 * lobe_scale(shininess) * (half**shininess * cosine).mean((1, 2))
    return tuple(np.polyfit(view.ravel(), integral, 4))
