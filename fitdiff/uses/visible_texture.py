"""The part of a texture that a photo shows: its pixels without the light that fell on them, laid out in UV space.

Legend of shape suffixes: R map side · S image side · V vertices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor

from fitdiff.alignment.crop import cut_square
from fitdiff.avatar.relight import frontal_camera, light_from
from fitdiff.colour import srgb_to_linear
from fitdiff.data.atlas import rasterise_uv
from fitdiff.geometry import project, to_camera_space
from fitdiff.types import FaceMaps, Lighting, Scene, TensorRecord

LEAST_COSINE = 0.4
"""Of the angle between surface and view: beyond 66 degrees a pixel smears over several texels."""

DIMMED = 8.0
"""Light is rendered weaker by this factor, so that nothing brighter than white is clipped."""

DARKEST = 0.05
"""Least received light, in linear units: in deeper shadow, the camera's noise would be divided by almost nothing."""

CLIPPED = 0.98
"""sRGB value from which on a photo only says "at least this bright"."""

UV_SIDE = 64
"""Side of the map of UV coordinates: they are linear, so a small map holds them as well as a large one."""


@dataclass(frozen=True)
class PartialTexture(TensorRecord):
    """A diffuse albedo of which some texels are known.

    Attributes:
        diffuse_albedo: (B, 3, R, R) linear light in [0, 1]; anything where it is not known.
        known: (B, 1, R, R) bool.
    """

    diffuse_albedo: Tensor
    known: Tensor


@torch.no_grad()
def visible_texture(
    model: Any, image_B3SS: Tensor, z_BN: Tensor, scene: Scene, size: int, least_cosine: float = LEAST_COSINE
) -> PartialTexture:
    """Albedo of the texels that photos show, from the photos' colours.

    `albedo = (photo - specular) / received light`, all linear, with light and specular of the fitted face in the fitted
    scene. A texel is known where the photo's pixel at its place shows that very texel (nothing is in front of it), from
    an angle that is not too flat, neither clipped nor in deep shadow.

    Args:
        image_B3SS: sRGB in [0, 1], the squares that were fitted, at any resolution.
        z_BN, scene: the fits. size: R of the result.
        least_cosine: of the angle between surface and view.
    """
    side = image_B3SS.shape[-1]
    vertices, maps = model.vertices(z_BN, scene.expression), model.maps(z_BN)
    light, specular = received_light(model, vertices, maps, scene, side)
    albedo = ((srgb_to_linear(image_B3SS) - specular) / light.clamp_min(DARKEST)).clamp(0, 1)
    uv, facing = _what_pixels_show(model, vertices, maps, scene, side)
    usable = (facing > least_cosine) & (image_B3SS.amax(1, keepdim=True) < CLIPPED)
    usable &= light.amin(1, keepdim=True) > DARKEST

    triangle, weights = rasterise_uv(model.shape_model.topology.uv.cpu(), model.shape_model.topology.faces.cpu(), size)
    place = _texel_places(model, vertices, scene, triangle, weights)
    seen = nnf.grid_sample(torch.cat([albedo, uv, usable.float()], 1), place, align_corners=False)
    albedo, uv, usable = seen.split([3, 2, 1], 1)
    own = torch.stack(_texel_centres(size, uv), 0)
    same = (uv - own).abs().amax(1, keepdim=True) < 2 / min(size, UV_SIDE)
    known = same & (usable > 0.999) & (triangle >= 0).to(uv.device)
    return PartialTexture(albedo, _eroded(known))


@torch.no_grad()
def seen_texels(
    model: Any, z_BN: Tensor, yaw: float, size: int, side: int = 256, least_cosine: float = LEAST_COSINE
) -> Tensor:
    """(B, 1, R, R) bool, what a portrait camera sees of neutral faces turned by `yaw` degrees, whatever the light."""
    vertices = model.vertices(z_BN)
    camera = frontal_camera(vertices, yaw=yaw)
    expression = vertices.new_zeros(len(vertices), model.shape_model.n_expression)
    scene = Scene(camera, light_from(0, 0, batch=len(vertices), ambient=0.4, device=vertices.device), expression)
    grey = vertices.new_full((len(vertices), 3, side, side), 0.5)
    return visible_texture(model, grey, z_BN, scene, size, least_cosine).known


def received_light(model: Any, vertices: Tensor, maps: FaceMaps, scene: Scene, side: int) -> tuple[Tensor, Tensor]:
    """What each pixel of the face receives and what it mirrors, (B, 3, S, S) linear: rendered, so of any renderer."""
    lighting = scene.lighting
    dim = replace(
        lighting,
        **{
            name: value / DIMMED
            for name in ("ambient", "colours", "harmonics", "reflections")
            if (value := getattr(lighting, name)) is not None
        },
    )
    black, white = torch.zeros_like(maps.diffuse_albedo), torch.ones_like(maps.diffuse_albedo)
    return tuple(
        _linear(model, vertices, replace(maps, diffuse_albedo=diffuse, specular_albedo=specular), scene, dim, side)
        * DIMMED
        for diffuse, specular in ((white, black), (black, maps.specular_albedo))
    )


def _linear(model: Any, vertices: Tensor, maps: FaceMaps, scene: Scene, lighting: Lighting, side: int) -> Tensor:
    return srgb_to_linear(model.renderer(vertices, maps, scene.camera, lighting, side).image)


def _what_pixels_show(
    model: Any, vertices: Tensor, maps: FaceMaps, scene: Scene, side: int
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """UV coordinates (B, 2, S, S) of what each pixel shows, and the cosine (B, 1, S, S) to the view; 0 off the face."""
    rows = _texel_centres(UV_SIDE, vertices)
    uv = torch.stack([*rows, torch.zeros_like(rows[0])]).expand(len(vertices), -1, -1, -1)
    flat = torch.zeros_like(uv)
    flat[:, 2] = 1
    surface = model.renderer.surface(vertices, FaceMaps(uv, uv, flat), scene.camera, side)
    centre = (torch.arange(side, device=vertices.device) + 0.5) * (2 / side) - 1
    x, y = centre.expand(side, side), -centre[:, None].expand(side, side)
    principal, focal = scene.camera.principal_point[:, :, None, None], scene.camera.focal[:, None, None]
    ray = torch.stack([(x - principal[:, 0]) / focal, (y - principal[:, 1]) / focal, -torch.ones_like(x / focal)], 1)
    facing = -(surface.normals * nnf.normalize(ray, dim=1)).sum(1, keepdim=True)
    return surface.diffuse_albedo[:, :2], facing * surface.mask


def _texel_places(model: Any, vertices: Tensor, scene: Scene, triangle: Tensor, weights: Tensor) -> Tensor:
    """(B, R, R, 2) where the texels lie in the image, as `grid_sample` counts: y downwards."""
    faces = model.shape_model.topology.faces.to(vertices.device)
    corners = vertices[:, faces[triangle.clamp_min(0).flatten().to(vertices.device)]]
    points = (corners * weights.view(1, -1, 3, 1).to(vertices)).sum(2)
    ndc = project(to_camera_space(points, scene.camera), scene.camera)
    return (ndc * ndc.new_tensor([1.0, -1.0])).view(len(vertices), *triangle.shape, 2)


def _texel_centres(size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """u and v (R, R) of the texels' centres."""
    centre = (torch.arange(size, device=like.device, dtype=like.dtype) + 0.5) / size
    return centre.expand(size, size), centre[:, None].expand(size, size)


def _eroded(known_B1RR: Tensor) -> Tensor:
    """Without the texels at the edge, whose colours are mixed with what lies behind."""
    unknown = nnf.max_pool2d((~known_B1RR).float(), 3, 1, 1)
    return unknown == 0


def fitted_square(fit: Any, size: int) -> Tensor:
    """(1, 3, S, S) sRGB, the square of the photo that was fitted, cut anew at `size` pixels a side."""
    left, top, side = fit.crop.square[0].tolist()
    pixels = torch.from_numpy(cut_square(fit.photo.image, left, top, side, size).copy())
    return pixels.permute(2, 0, 1)[None].to(fit.observation.image) / 255
