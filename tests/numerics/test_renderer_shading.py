"""Renders with a known answer: planes, spheres, bumps and lobes in closed form (float64 where the renderer allows)."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fitdiff.colour import linear_to_srgb, srgb_to_linear
from fitdiff.renderer import TorchRenderer, shading
from fitdiff.renderer.bench import ellipsoid
from fitdiff.types import SPECULAR_SCALE, Camera, FaceMaps, Lighting, Topology

SPHERE_RADIUS, DISTANCE, FOCAL = 80.0, 400.0, 4.0


def camera(distance=DISTANCE, focal=FOCAL, rotation=(0.0, 0.0, 0.0)):
    return Camera(
        torch.tensor([rotation], dtype=torch.float64),
        torch.tensor([[0, 0, -distance]], dtype=torch.float64),
        torch.tensor([focal], dtype=torch.float64),
        torch.zeros(1, 2, dtype=torch.float64),
    )


def maps(diffuse=0.5, specular=0.0, side=4):
    plane = torch.ones(1, 3, side, side, dtype=torch.float64)
    return FaceMaps(diffuse * plane, specular * plane, plane * torch.tensor([0.0, 0, 1]).view(1, 3, 1, 1))


def light(direction=(0.0, 0.0, 1.0), colour=0.0, ambient=0.0):
    return Lighting(
        torch.full((1, 3), ambient, dtype=torch.float64),
        torch.tensor([[direction]], dtype=torch.float64),
        torch.full((1, 1, 3), colour, dtype=torch.float64),
    )


def square(mirrored=False):
    """A square of side 200 mm that faces the camera, textured upright (or mirrored left to right)."""
    corners = torch.tensor([[-100.0, 100, 0], [-100, -100, 0], [100, -100, 0], [100, 100, 0]], dtype=torch.float64)
    uv = torch.tensor([[0.0, 0], [0, 1], [1, 1], [1, 0]])
    uv = torch.stack([1 - uv[:, 0], uv[:, 1]], 1) if mirrored else uv
    landmarks = torch.zeros(68, 3, dtype=torch.int64)
    return corners[None], Topology(torch.tensor([[0, 1, 2], [0, 2, 3]]), uv, landmarks, torch.ones(68, 3) / 3)


def sphere(n_side=161):
    vertices, topology = ellipsoid(n_side, (SPHERE_RADIUS,) * 3)
    return vertices[None].double(), topology


def sphere_points(size):
    """Ray-sphere intersection at each pixel's centre: points (S, S, 3) in camera space, unit normals, and hit mask."""
    rows, columns = np.mgrid[:size, :size] + 0.5
    x, y = (columns / size * 2 - 1) / FOCAL, (1 - rows / size * 2) / FOCAL
    ray = np.stack([x, y, -np.ones_like(x)], -1)
    a, b, c = (ray**2).sum(-1), DISTANCE * ray[..., 2], DISTANCE**2 - SPHERE_RADIUS**2
    discriminant = b**2 - a * c
    points = ray * ((-b - np.sqrt(np.maximum(discriminant, 0))) / a)[..., None]
    return points, (points + np.array([0, 0, DISTANCE])) / SPHERE_RADIUS, discriminant > 0


def test_a_square_that_fills_the_image_shows_its_texture_exactly():
    torch.manual_seed(0)
    vertices, topology = square()
    texture = replace(maps(side=16), diffuse_albedo=torch.rand(1, 3, 16, 16, dtype=torch.float64))
    rendering = TorchRenderer(topology)(vertices, texture, camera(), light(ambient=1.0), 16)
    assert rendering.mask.eq(1).all()
    assert torch.allclose(rendering.image, linear_to_srgb(texture.diffuse_albedo), atol=1e-6)


def test_mirrored_uv_mirror_the_texture():
    torch.manual_seed(0)
    vertices, topology = square(mirrored=True)
    texture = replace(maps(side=16), diffuse_albedo=torch.rand(1, 3, 16, 16, dtype=torch.float64))
    image = TorchRenderer(topology)(vertices, texture, camera(), light(ambient=1.0), 16).image
    assert torch.allclose(image.flip(-1), linear_to_srgb(texture.diffuse_albedo), atol=1e-6)


def test_texture_on_a_tilted_square_is_correct_in_perspective():
    # Bilinear look-ups reproduce a linear ramp exactly, so each pixel tells the uv that its ray meets.
    size, turn, side = 24, 0.8, 256
    vertices, topology = square()
    ramp = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    texture = torch.stack([ramp.expand(side, -1), ramp[:, None].expand(-1, side), torch.zeros(side, side)])[None]
    posed = camera(rotation=(0.0, turn, 0.0))
    surface = TorchRenderer(topology, texture_filter="none").surface(
        vertices, replace(maps(side=side), diffuse_albedo=texture), posed, size
    )
    rows, columns = np.mgrid[:size, :size] + 0.5
    x, y = (columns / size * 2 - 1) / FOCAL, (1 - rows / size * 2) / FOCAL
    depth = DISTANCE * np.cos(turn) / (np.cos(turn) + x * -np.sin(turn))
    u, v = x * depth / np.cos(turn) / 200 + 0.5, 0.5 - y * depth / 200
    inside = (surface.mask[0, 0] > 0).numpy() & (np.abs(u - 0.5) < 0.49) & (np.abs(v - 0.5) < 0.49)
    assert inside.sum() > 200
    assert np.allclose(surface.diffuse_albedo[0, 0].numpy()[inside], u[inside], atol=1e-6)
    assert np.allclose(surface.diffuse_albedo[0, 1].numpy()[inside], v[inside], atol=1e-6)


def test_silhouette_of_a_sphere():
    vertices, topology = sphere()
    mask = TorchRenderer(topology)(vertices, maps(), camera(), light(), 200).mask
    radius = FOCAL * SPHERE_RADIUS / np.sqrt(DISTANCE**2 - SPHERE_RADIUS**2)
    assert mask.mean().item() == pytest.approx(np.pi * radius**2 / 4, rel=2e-3)


def test_normals_of_a_sphere():
    vertices, topology = sphere()
    surface = TorchRenderer(topology).surface(vertices, maps(), camera(), 64)
    _, normals, hit = sphere_points(64)
    inside = hit & (surface.mask[0, 0] > 0).numpy()
    assert (hit != inside).mean() < 0.01
    error = np.abs(surface.normals[0].permute(1, 2, 0).numpy() - normals).max(-1)[inside]
    assert np.quantile(error, 0.99) < 0.01
    assert np.median(error) < 2e-4


@pytest.mark.parametrize("direction", [(0.0, 0.0, 1.0), (-2.0, 0.5, 1.0), (0.3, 3.0, -0.5)])
def test_sphere_in_lambert_and_blinn_phong(direction):
    size, shininess, specular, diffuse, ambient, colour = 48, 20.0, 0.6, 0.4, 0.1, 0.7
    vertices, topology = sphere()
    renderer = TorchRenderer(topology, shininess=shininess)
    image = renderer(vertices, maps(diffuse, specular), camera(), light(direction, colour, ambient), size).image
    points, normals, hit = sphere_points(size)
    to_light = np.array(direction) / np.linalg.norm(direction)
    to_eye = -points / np.linalg.norm(points, axis=-1, keepdims=True)
    half = (to_light + to_eye) / np.linalg.norm(to_light + to_eye, axis=-1, keepdims=True)
    cosine = np.maximum(normals @ to_light, 0)
    scale = (shininess + 2) * (shininess + 4) / (8 * (shininess + 2 ** (-shininess / 2)))
    lobe = scale * np.maximum((normals * half).sum(-1), 0) ** shininess
    linear = (ambient + colour * cosine) * diffuse + colour * cosine * lobe * specular * SPECULAR_SCALE
    expected = linear_to_srgb(torch.from_numpy(linear)).numpy()
    off_the_rim = hit & (normals[..., 2] > 0.3)
    assert np.abs(image[0].numpy() - expected)[:, off_the_rim].max() < 2e-3


def test_lobe_reflects_all_energy_at_normal_incidence():
    # Integrate lobe / pi * cosine over the hemisphere of lights with the eye on the normal.
    for shininess in (1.0, 8.0, 30.0, 200.0):
        theta = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000 * torch.pi / 2
        lights = torch.stack([theta.sin(), torch.zeros_like(theta), theta.cos()])[None]
        up = torch.tensor([0.0, 0, 1], dtype=torch.float64)[:, None].expand(3, len(theta))
        lobe = shading.blinn_phong(up, lights, up, shininess)[0]
        energy = (lobe * theta.cos() * 2 * theta.sin()).sum() * torch.pi / 2 / 20000
        assert energy == pytest.approx(1, abs=1e-6)


def test_specular_vanishes_where_the_light_has_set():
    vertices, topology = sphere(41)
    shiny = TorchRenderer(topology, shininess=2.0)
    image = shiny(vertices, maps(0.0, 1.0), camera(), light((1.0, 0.0, -0.2), 5.0), 32).image
    assert image[..., :14].max() == 0
    assert image[..., 24:].max() > 0


def bump(side=64):
    """Normal map of a round bump in the middle, from its height (in texels, v down): n = (-dh/du, +dh/dv, 1)."""
    line = (torch.arange(side, dtype=torch.float64) + 0.5 - side / 2) / (side / 8)
    v, u = torch.meshgrid(line, line, indexing="ij")
    height = torch.exp(-(u**2) - v**2)
    normals = torch.stack([2 * u * height, -2 * v * height, torch.ones_like(u)])[None]
    return replace(maps(side=side), normals=normals / normals.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("roll", [0.0, np.pi / 2, 2.0])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("direction", [(-1, 0), (1, 0), (0, 1), (0, -1)])
def test_a_bump_is_bright_on_the_side_of_the_light(direction, mirrored, roll):
    # In camera space, however the head is rolled and even where the texture is mirrored.
    vertices, topology = square(mirrored)
    lit = light((*direction, 1.0), 0.5)
    image = TorchRenderer(topology)(vertices, bump(), camera(rotation=(0.0, 0.0, roll)), lit, 65).image[0, 0]
    step = 5
    towards = image[32 - step * direction[1], 32 + step * direction[0]]
    away = image[32 + step * direction[1], 32 - step * direction[0]]
    flat = linear_to_srgb(torch.tensor(0.5 * 0.5 / np.sqrt(2)))
    assert towards > flat + 0.05
    assert away < flat - 0.05


def test_tilted_normals_follow_the_tangent_frame_of_a_turned_square():
    turn = 0.6
    vertices, topology = square()
    tilt = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    posed = camera(rotation=(0.0, turn, 0.0))
    normals = TorchRenderer(topology).surface(vertices, replace(maps(), normals=tilt), posed, 15).normals[0, :, 7, 7]
    right, out = np.array([np.cos(turn), 0, -np.sin(turn)]), np.array([np.sin(turn), 0, np.cos(turn)])
    assert np.allclose(normals.numpy(), 0.6 * right + 0.8 * out)


def test_several_lights_add_up_in_linear_light():
    vertices, topology = sphere(41)
    renderer = TorchRenderer(topology)
    first, second = light((-1.0, 0.0, 1.0), 0.3), light((1.0, 1.0, 0.5), 0.4)
    both = Lighting(
        first.ambient,
        *(torch.cat(x, 1) for x in ((first.directions, second.directions), (first.colours, second.colours))),
    )
    one, two, sum_ = (
        srgb_to_linear(renderer(vertices, maps(0.5, 0.2), camera(), lights, 32).image)
        for lights in (first, second, both)
    )
    assert torch.allclose(one + two, sum_, atol=1e-6)


def test_supersampling_converges_and_keeps_the_edge_bright():
    vertices, topology = square()
    posed = camera(rotation=(0.0, 0.0, 0.3), distance=900.0)
    rendering = TorchRenderer(topology, antialias=4)(vertices, maps(0.5), posed, light(ambient=1.0), 20)
    assert set(rendering.mask.unique().tolist()) == {0.0, 1.0}
    face = rendering.image[:, :1][rendering.mask > 0]
    assert torch.allclose(face, linear_to_srgb(torch.full_like(face, 0.5)), atol=1e-6)
    side = FOCAL * 200 / 900 / 2
    assert rendering.mask.mean().item() == pytest.approx(side**2, rel=0.05)
