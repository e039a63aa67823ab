"""Environment maps against brute-force integrals over their texels, and the files that hold them."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from fitdiff.colour import srgb_to_linear
from fitdiff.renderer import TorchRenderer, environment, lights
from fitdiff.renderer.bench import ellipsoid
from fitdiff.types import Camera, FaceMaps, Lighting
from tests.conftest import write_exr

DOUBLE = {"dtype": torch.float64}


def texel_directions(height):
    """(3, H, 2H), written out again in numpy from the text of `lights`."""
    directions = np.empty((3, height, 2 * height))
    for row in range(height):
        elevation = np.pi * (0.5 - (row + 0.5) / height)
        for column in range(2 * height):
            azimuth = 2 * np.pi * (0.5 - (column + 0.5) / (2 * height))
            level = np.cos(elevation)
            directions[:, row, column] = np.sin(azimuth) * level, np.sin(elevation), np.cos(azimuth) * level
    return directions


def smooth_map(height=48, seed=0):
    """A lopsided sky: a few broad lobes of different colours, never negative."""
    rng = np.random.default_rng(seed)
    directions = texel_directions(height)
    centres, colours = rng.normal(size=(4, 3)), rng.uniform(0.1, 1, (4, 3))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    lobes = np.exp(3 * (np.einsum("lc,chw->lhw", centres, directions) - 1))
    return torch.from_numpy(np.einsum("lc,lhw->chw", colours, lobes))[None]


def integrate(radiance_3HW, kernel_HW):
    """Sum radiance * kernel over the sphere, with sin(polar angle) for the solid angles: (3,)."""
    height = radiance_3HW.shape[1]
    polar = np.pi * (np.arange(height) + 0.5) / height
    weights = np.sin(polar)[:, None] * (np.pi / height) ** 2
    return (radiance_3HW.numpy() * kernel_HW * weights).sum((1, 2))


def received(lighting, normals_3P):
    ambient = lighting.ambient.t().expand(3, normals_3P.shape[1])
    return lights.from_surroundings(ambient, lighting.harmonics, normals_3P, (normals_3P.shape[1],))


def random_directions(n, seed=0):
    return lights.unit(torch.randn(3, n, generator=torch.Generator().manual_seed(seed), **DOUBLE), 0)


def test_uniform_surroundings_are_ambient_light_and_a_constant_map():
    colour = torch.tensor([0.3, 0.5, 0.9], **DOUBLE).view(1, 3, 1, 1)
    lighting = environment.environment_lighting(colour.expand(1, 3, 20, 40), reflection_height=6)
    assert torch.allclose(lighting.ambient, colour[:, :, 0, 0])
    # Midpoints integrate the harmonics over a row's band to second order only.
    assert lighting.harmonics.abs().max() < 5e-3
    assert torch.allclose(lighting.reflections, colour.expand(1, 3, 6, 12))
    assert lighting.directions.shape == lighting.colours.shape == (1, 0, 3)


def test_received_light_is_the_integral_over_the_hemisphere():
    radiance, normals = smooth_map(), random_directions(12)
    got = received(environment.environment_lighting(radiance), normals)
    directions = texel_directions(48)
    for normal, light in zip(normals.t().numpy(), got.t(), strict=True):
        cosine = np.maximum(np.tensordot(normal, directions, 1), 0)
        assert np.allclose(light, integrate(radiance[0], cosine) / np.pi, rtol=0.03, atol=1e-3)


@pytest.mark.parametrize("shininess", [4.0, 30.0])
def test_reflections_are_the_mean_under_the_lobe(shininess):
    radiance, mirror = smooth_map(), random_directions(10)
    lighting = environment.environment_lighting(radiance, shininess=shininess, reflection_height=24)
    got = lights.reflected(lighting.reflections, mirror, (10,))

    directions = texel_directions(48)
    for normal, light in zip(mirror.t().numpy(), got.t(), strict=True):
        # The eye looks along the normal, and so the mirror direction is the normal, too.
        half = directions + normal[:, None, None]
        half /= np.linalg.norm(half, axis=0)
        lobe = np.maximum(np.tensordot(normal, half, 1), 0) ** shininess
        kernel = lobe * np.maximum(np.tensordot(normal, directions, 1), 0)
        expected = integrate(radiance[0], kernel) / integrate(torch.ones(3, 48, 96), kernel)
        assert np.allclose(light, expected, rtol=0.01)


def test_a_lamp_in_the_map_lights_the_side_where_it_stands():
    # Asymmetric: the middle of the top left quarter is half up, and half ahead towards the subject's left.
    radiance = torch.zeros(1, 3, 32, 64, **DOUBLE)
    radiance[:, :, 8, 24] = 100
    towards = torch.from_numpy(texel_directions(32)[:, 8, 24])
    assert towards.sign().tolist() == [1, 1, 1]
    lighting = environment.environment_lighting(radiance)
    order_1 = lighting.harmonics[0, :3, 0]
    assert torch.allclose(lights.unit(order_1[[2, 0, 1]], 0), towards)
    # Orders 0 to 2 of a lamp are in proportion to 0.375 + 2 c + 1.875 c^2 at an angle of cosine c: cut off at c = -1/2.
    across = lights.unit(torch.linalg.cross(towards, random_directions(1)[:, 0]), 0)
    cosines = torch.tensor([1.0, 0.3, -0.5, -1.0], **DOUBLE)
    normals = cosines * towards[:, None] + (1 - cosines**2).sqrt() * across[:, None]
    expected = lighting.ambient[0, 0] * (0.375 + 2 * cosines + 1.875 * cosines**2).clamp_min(0)
    assert torch.allclose(received(lighting, normals)[0], expected, atol=1e-4)
    brightest = lighting.reflections[0, 0].max()
    assert lights.reflected(lighting.reflections, towards[:, None], (1,))[0, 0] > 0.98 * brightest


def test_a_quarter_turn_rolls_the_map():
    radiance = smooth_map(32)
    turn = torch.tensor([[0, np.pi / 2, 0]], **DOUBLE)
    turned = environment.environment_lighting(radiance, rotation_B3=turn)
    # From ahead (the middle) to the subject's left (a quarter from the left).
    rolled = environment.environment_lighting(radiance.roll(-16, 3))
    for name in ("ambient", "harmonics", "reflections"):
        assert torch.allclose(getattr(turned, name), getattr(rolled, name), atol=1e-10), name


def test_turning_surroundings_and_normals_together_changes_nothing():
    radiance, axis_angle = smooth_map(), torch.tensor([[0.4, -1.1, 0.7]], **DOUBLE)
    matrix = torch.from_numpy(Rotation.from_rotvec(axis_angle[0].numpy()).as_matrix())
    still = environment.environment_lighting(radiance)
    turned = environment.environment_lighting(radiance, rotation_B3=axis_angle)
    normals = random_directions(20)
    assert torch.allclose(received(turned, matrix @ normals), received(still, normals), atol=1e-10)
    first, second = (
        lights.reflected(lighting.reflections, directions, (20,))
        for lighting, directions in ((turned, matrix @ normals), (still, normals))
    )
    assert torch.allclose(first, second, rtol=0.02)


def test_shrinking_first_hardly_matters():
    radiance = smooth_map(128)
    small = environment.filter_by_lobe(environment.shrink(radiance, 64), torch.eye(3, **DOUBLE)[None], 30.0, 8)
    exact = environment.filter_by_lobe(radiance, torch.eye(3, **DOUBLE)[None], 30.0, 8)
    assert torch.allclose(small, exact, rtol=1e-3)


def test_gradients():
    radiance = smooth_map(6).requires_grad_()
    turn = torch.tensor([[0.2, 0.5, -0.3]], **DOUBLE, requires_grad=True)

    def function(radiance, turn):
        lighting = environment.environment_lighting(radiance, rotation_B3=turn, reflection_height=2)
        return lighting.ambient, lighting.harmonics, lighting.reflections

    assert torch.autograd.gradcheck(function, (radiance, turn))


def view(half=80.0):
    """A finely tessellated sphere before the camera, white, with normal maps that do nothing."""
    vertices, topology = ellipsoid(81, (half,) * 3)
    camera = Camera(
        torch.zeros(1, 3, **DOUBLE),
        torch.tensor([[10.0, -5.0, -500.0]], **DOUBLE),
        torch.tensor([4.5], **DOUBLE),
        torch.zeros(1, 2, **DOUBLE),
    )
    return topology, vertices[None].double(), camera


def white(specular, diffuse=1.0):
    plane = torch.ones(1, 3, 4, 4, **DOUBLE)
    return FaceMaps(diffuse * plane, specular * plane, plane * torch.tensor([0.0, 0, 1]).view(1, 3, 1, 1))


def test_white_furnace():
    # White and matt in uniform surroundings of radiance 0.6: a uniform 0.6, and the sphere cannot be told apart.
    topology, vertices, camera = view()
    lighting = environment.environment_lighting(torch.full((1, 3, 64, 128), 0.6, **DOUBLE))
    rendering = TorchRenderer(topology)(vertices, white(0.0), camera, lighting, 48)
    linear = srgb_to_linear(rendering.image)[rendering.mask.expand(-1, 3, -1, -1) > 0]
    assert linear.min() > 0.599
    assert linear.max() < 0.601
    # Shiny and black: never more than F0 of it, all of F0 in the middle.
    shiny = TorchRenderer(topology)(vertices, white(1.0, 0.0), camera, lighting, 48)
    linear = srgb_to_linear(shiny.image)
    assert linear.max().item() == pytest.approx(0.08 * 0.6, rel=2e-3)


def test_a_small_bright_patch_of_the_map_reflects_as_a_lamp_does():
    height, row, column, brightness = 64, 24, 58, 900.0
    radiance = torch.zeros(1, 3, height, 2 * height, **DOUBLE)
    radiance[:, :, row, column] = brightness
    direction = torch.from_numpy(texel_directions(height)[:, row, column])
    solid_angle = (np.pi / height) ** 2 * np.cos(np.arcsin(direction[1].item()))
    irradiance = torch.full((1, 1, 3), brightness * solid_angle / np.pi, **DOUBLE)
    topology, vertices, camera = view()
    lamp = Lighting(torch.zeros(1, 3, **DOUBLE), direction.view(1, 1, 3), irradiance)
    patch = environment.environment_lighting(radiance, reflection_height=64)
    first, second = (
        srgb_to_linear(TorchRenderer(topology)(vertices, white(1.0, 0.0), camera, lighting, 64).image)[0, 0]
        for lighting in (lamp, patch)
    )
    # The split-sum approximation takes the lobe for round, which it is at normal incidence only.
    assert second.max().item() == pytest.approx(first.max().item(), rel=0.1)
    assert second.sum().item() == pytest.approx(first.sum().item(), rel=0.2)
    peak, other = (np.array(np.unravel_index(x.argmax().item(), x.shape)) for x in (first, second))
    assert np.abs(peak - other).max() <= 1


def test_files_of_radiance_are_linear_and_pictures_are_not(tmp_path):
    image = np.random.default_rng(0).exponential(2.0, (16, 32, 3)).astype(np.float32)
    assert cv2.imwrite(str(tmp_path / "sky.hdr"), image[..., ::-1])
    write_exr(tmp_path / "sky.exr", {"RGB": image})
    coarse, exact = (environment.load_environment(tmp_path / f"sky.{kind}") for kind in ("hdr", "exr"))
    assert exact.shape == (1, 3, 16, 32)
    np.testing.assert_array_equal(exact[0].permute(1, 2, 0).numpy(), image)
    # Radiance keeps a byte of mantissa, of at least 128, for the largest channel; the others share its exponent.
    error = (coarse - exact).abs()[0]
    assert (error <= exact[0].amax(0) / 127).all()
    Image.new("RGB", (8, 4), (128, 0, 255)).save(tmp_path / "sky.png")
    expected = srgb_to_linear(torch.tensor([128.0, 0, 255]) / 255)
    assert torch.allclose(environment.load_environment(tmp_path / "sky.png")[0, :, 2, 3], expected)


def test_bad_files_are_named(tmp_path):
    write_exr(tmp_path / "square.exr", {"RGB": np.ones((4, 4, 3), np.float32)})
    write_exr(tmp_path / "negative.exr", {"RGB": -np.ones((4, 8, 3), np.float32)})
    write_exr(tmp_path / "endless.exr", {"RGB": np.full((4, 8, 3), np.inf, np.float32)})
    (tmp_path / "not.hdr").write_bytes(b"P6 nonsense")
    for name, message in (
        ("square.exr", r"\(H, 2H\)"),
        ("negative.exr", "not be negative"),
        ("endless.exr", "not finite"),
        ("not.hdr", "cannot be read"),
    ):
        with pytest.raises(ValueError, match=f"{name}.*{message}"):
            environment.load_environment(tmp_path / name)
    with pytest.raises(ValueError, match="4 x 4"):
        environment.environment_lighting(torch.ones(1, 3, 4, 4))
