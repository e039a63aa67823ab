"""Conversion of maps against closed forms and slow references."""

import math

import pytest
import torch
import torch.nn.functional as nnf

from fitdiff.colour import linear_to_srgb
from fitdiff.data.folder.maps import (
    diffuse_albedo,
    resize_by_area,
    specular_albedo,
    stored_normals,
    to_tangent_space,
)
from fitdiff.data.folder.rules import Rules
from fitdiff.images import StoredImage
from fitdiff.renderer.shading import map_normals, uv_handedness, vertex_frames
from fitdiff.types import Topology


def test_whole_factors_are_plain_averages():
    values = torch.rand(3, 24, 24)
    torch.testing.assert_close(resize_by_area(values, 8), nnf.avg_pool2d(values[None], 3)[0])


@pytest.mark.parametrize(("side", "size"), [(7, 3), (10, 4), (9, 8)])
def test_broken_factors_against_a_fine_grid(side, size):
    """Enlarged by repetition to a multiple of both sides, the area average is a plain one."""
    values = torch.rand(2, side, side, dtype=torch.float64)
    fine = values.repeat_interleave(size, 1).repeat_interleave(size, 2)
    torch.testing.assert_close(resize_by_area(values, size), nnf.avg_pool2d(fine[None], side)[0])


def test_enlarging_keeps_constants_and_size():
    enlarged = resize_by_area(torch.full((3, 4, 4), 0.3), 16)
    torch.testing.assert_close(enlarged, torch.full((3, 16, 16), 0.3))


def checkers(dark: float, bright: float) -> torch.Tensor:
    return torch.tensor([[dark, bright], [bright, dark]]).repeat(4, 4).expand(3, 8, 8)


def test_diffuse_is_averaged_in_linear_light():
    """Half black, half white reflects half of the light: sRGB 188, not 128."""
    grey = diffuse_albedo(StoredImage(checkers(0, 1), False), Rules(), 4)
    torch.testing.assert_close(grey, torch.full((3, 4, 4), 0.5))
    assert (linear_to_srgb(grey) * 255).round().unique().tolist() == [188]


def test_colour_space_follows_the_file_or_the_rule():
    values = torch.full((3, 4, 4), 0.5)
    encoded, linear = 0.21404114, 0.5
    for floating, rule, expected in (
        (False, "auto", encoded), (True, "auto", linear), (True, "srgb", encoded), (False, "linear", linear),
    ):  # fmt: skip
        got = diffuse_albedo(StoredImage(values, floating), Rules(colour_space=rule), 4)
        torch.testing.assert_close(got, torch.full((3, 4, 4), expected))


def test_specular_of_one_channel_and_another_scale():
    """F0 = 0.028, skin's, is 0.35 of our scale, whatever scale it was stored in."""
    for f0, stored in ((1.0, 0.028), (0.08, 0.35), (0.04, 0.7)):
        got = specular_albedo(StoredImage(torch.full((1, 4, 4), stored), True), Rules(specular_f0=f0), 2)
        torch.testing.assert_close(got, torch.full((3, 2, 2), 0.35))
    assert specular_albedo(StoredImage(torch.ones(1, 4, 4), True), Rules(specular_f0=1.0), 2).max() == 1
    encoded = specular_albedo(StoredImage(torch.full((1, 4, 4), 0.5), False), Rules(specular_space="srgb"), 2)
    torch.testing.assert_close(encoded, torch.full((3, 2, 2), 0.21404114))


def test_normals_are_decoded_flipped_and_normalised():
    normal = nnf.normalize(torch.tensor([0.3, 0.4, 0.8]), dim=0).view(3, 1, 1).expand(3, 8, 8)
    for file in (
        StoredImage(normal * 0.5 + 0.5, False),
        StoredImage(normal.clone() * 0.5 + 0.5, True),
        StoredImage(-normal, True),
    ):
        sign = -1 if (file.values < 0).any() else 1
        torch.testing.assert_close(stored_normals(file, Rules(), 4), sign * normal[:, :4, :4])
    down = stored_normals(StoredImage(normal * 0.5 + 0.5, False), Rules(normal_y="down"), 8)
    torch.testing.assert_close(down, normal * torch.tensor([1.0, -1.0, 1.0]).view(3, 1, 1))
    tilted = torch.stack([checkers(-0.6, 0.6)[0], torch.zeros(8, 8), torch.full((8, 8), 0.8)])
    flat = stored_normals(StoredImage(tilted * 0.5 + 0.5, False), Rules(), 4)
    torch.testing.assert_close(flat, torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1).expand(3, 4, 4), atol=1e-6, rtol=0)


def sphere(n: int = 48, mirrored: bool = False) -> tuple[torch.Tensor, Topology]:
    """The front of a unit sphere, longitude along u, latitude against v; or its texture seen in a mirror."""
    t = torch.linspace(0, 1, n)
    v, u = torch.meshgrid(t, t, indexing="ij")
    ids = torch.arange(n * n).reshape(n, n)
    a, b, c, d = (corner.flatten() for corner in (ids[:-1, :-1], ids[1:, :-1], ids[1:, 1:], ids[:-1, 1:]))
    faces = torch.cat([torch.stack([a, b, c], 1), torch.stack([a, c, d], 1)])
    uv = torch.stack([1 - u if mirrored else u, v], -1).reshape(-1, 2)
    topology = Topology(faces, uv, torch.zeros(68, 3).long(), torch.tensor([1.0, 0, 0]).repeat(68, 1))
    return torch.stack(_sphere_axes(u, v)[2], -1).reshape(-1, 3), topology


def _sphere_axes(u, v):
    longitude, latitude = (u - 0.5) * 1.6, (0.5 - v) * 1.4
    east = (longitude.cos(), torch.zeros_like(u), -longitude.sin())
    north = (-latitude.sin() * longitude.sin(), latitude.cos(), -latitude.sin() * longitude.cos())
    up = (latitude.cos() * longitude.sin(), latitude.sin(), latitude.cos() * longitude.cos())
    return east, north, up


@pytest.mark.parametrize("mirrored", [False, True])
def test_object_space_normals_of_a_sphere(mirrored):
    """Closed form: a normal tilted by (x, y, z) against east, north and outwards has just these tangent coordinates."""
    size = 32
    vertices, topology = sphere(mirrored=mirrored)
    t = (torch.arange(size) + 0.5) / size
    v, u = torch.meshgrid(t, t, indexing="ij")
    axes = (torch.stack(axis) for axis in _sphere_axes(1 - u if mirrored else u, v))
    tilt = nnf.normalize(torch.tensor([0.5, 0.3, 0.8]), dim=0)
    world = sum(weight * axis for weight, axis in zip(tilt, axes, strict=True))
    tangent = to_tangent_space(world, vertices, topology)
    expected = tilt * torch.tensor([-1.0 if mirrored else 1.0, 1.0, 1.0])  # +u runs west in a mirror
    cosine = (tangent * expected.view(3, 1, 1)).sum(0)
    assert cosine.min() > math.cos(math.radians(3))  # facets


def test_tangent_space_is_the_renderers_inverse():
    """What `map_normals` makes of a map, from the same frames, comes back exactly."""
    from fitdiff.data.atlas import rasterise_uv

    vertices, topology = sphere(9)
    vertices = vertices * torch.tensor([0.7, 1.2, 0.9]) + 0.02 * torch.randn(81, 3)
    size = 24
    wanted = nnf.normalize(torch.randn(3, size, size) * 0.3 + torch.tensor([0.0, 0, 1]).view(3, 1, 1), dim=0)
    triangle, weights = rasterise_uv(topology.uv, topology.faces, size)
    frames = vertex_frames(vertices[None], topology.faces, topology.uv)[0][topology.faces[triangle]]
    frames = (frames * weights[..., None]).sum(2).movedim(-1, 0).flatten(1)
    sign = uv_handedness(topology.faces, topology.uv)[triangle].flatten()
    world = map_normals(frames, sign, wanted.flatten(1)).view(3, size, size)
    torch.testing.assert_close(to_tangent_space(world, vertices, topology), wanted, atol=2e-6, rtol=0)


def test_texels_without_a_mesh_are_flat():
    vertices, topology = sphere(9)
    shrunk = Topology(topology.faces, topology.uv * 0.5, topology.landmark_vertices, topology.landmark_weights)
    outside = to_tangent_space(nnf.normalize(torch.randn(3, 16, 16), dim=0), vertices, shrunk)[:, 12:, 12:]
    torch.testing.assert_close(outside, torch.tensor([0.0, 0, 1]).view(3, 1, 1).expand(3, 4, 4))
