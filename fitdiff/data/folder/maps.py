"""Map files of any size and convention -> `FaceMaps`: decode, average by area, rotate normals into tangent space."""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor

from fitdiff.colour import srgb_to_linear
from fitdiff.data.atlas import rasterise_uv
from fitdiff.data.folder.rules import Rules
from fitdiff.images import StoredImage
from fitdiff.renderer.shading import unit, uv_handedness, vertex_frames
from fitdiff.types import SPECULAR_SCALE, Topology


def diffuse_albedo(file: StoredImage, rules: Rules, size: int) -> Tensor:
    """(3, size, size) linear in [0, 1], averaged in linear light."""
    linear = rules.colour_space == "linear" or (rules.colour_space == "auto" and file.floating)
    values = file.values if linear else srgb_to_linear(file.values)
    return resize_by_area(values, size).clamp(0, 1).expand(3, -1, -1)


def specular_albedo(file: StoredImage, rules: Rules, size: int) -> Tensor:
    """(3, size, size) F0 / 0.08 in [0, 1]; what reflects more is clamped."""
    values = srgb_to_linear(file.values) if rules.specular_space == "srgb" else file.values
    return (resize_by_area(values, size) * (rules.specular_f0 / SPECULAR_SCALE)).clamp(0, 1).expand(3, -1, -1)


def stored_normals(file: StoredImage, rules: Rules, size: int) -> Tensor:
    """(3, size, size) unit normals in the space of the file, y up.

    Files hold 0.5 n + 0.5; floating-point ones with a negative number hold n itself.
    """
    signed = file.floating and bool((file.values < 0).any())
    normals = file.values if signed else file.values * 2 - 1
    if rules.normal_y == "down":
        normals = normals * normals.new_tensor([1.0, -1.0, 1.0]).view(3, 1, 1)
    return nnf.normalize(resize_by_area(nnf.normalize(normals, dim=0), size), dim=0)


def to_tangent_space(normals_3RR: Tensor, vertices_V3: Tensor, topology: Topology) -> Tensor:
    """Object-space normals of a mesh in its tangent frames: the inverse of what the renderer does per pixel.

    Args:
        normals_3RR: (3, R, R) unit, in the axes of the vertices. vertices_V3: (V, 3).
        topology: its UVs place the normals on the mesh.

    Returns:
        (3, R, R) unit, as `FaceMaps.normals`; (0, 0, 1) where there is no mesh.
    """
    size = normals_3RR.shape[-1]
    triangle, weights = rasterise_uv(topology.uv, topology.faces, size)
    corners = vertex_frames(vertices_V3[None], topology.faces, topology.uv)[0][topology.faces[triangle.clamp_min(0)]]
    normal, tangent = (corners * weights[..., None].to(corners)).sum(2).movedim(-1, 0).split(3)
    normal = unit(normal, 0)
    tangent = unit(tangent - normal * (normal * tangent).sum(0), 0)
    bitangent = torch.linalg.cross(normal, tangent, dim=0) * uv_handedness(topology.faces, topology.uv)[triangle]
    turned = torch.stack([(normals_3RR * axis).sum(0) for axis in (tangent, bitangent, normal)])
    flat = turned.new_tensor([0.0, 0.0, 1.0]).view(3, 1, 1)
    return torch.where(triangle >= 0, nnf.normalize(turned, dim=0), flat)


def resize_by_area(values_CNN: Tensor, size: int) -> Tensor:
    """(C, N, N) -> (C, size, size): each texel is the mean of the area it covers; enlarging is bilinear."""
    side = values_CNN.shape[-1]
    if side == size:
        return values_CNN
    if side < size:
        return nnf.interpolate(values_CNN[None], size=(size, size), mode="bilinear", align_corners=False)[0]
    rows = _coverage(side, size).to(values_CNN)
    return rows @ values_CNN @ rows.T


def _coverage(side: int, size: int) -> Tensor:
    """(size, side) share of each new texel's width that each old one covers; rows sum to 1."""
    new = torch.arange(size + 1, dtype=torch.float64) * (side / size)
    old = torch.arange(side + 1, dtype=torch.float64)
    overlap = torch.minimum(new[1:, None], old[None, 1:]) - torch.maximum(new[:-1, None], old[None, :-1])
    return overlap.clamp_min(0) * (size / side)
