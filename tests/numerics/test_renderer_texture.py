"""Texture filters against 16 x 16 samples a pixel, footprints against neighbouring pixels, levels in closed form."""

import pytest
import torch

from fitdiff.colour import srgb_to_linear
from fitdiff.renderer import TorchRenderer, texture
from fitdiff.renderer.bench import ellipsoid
from fitdiff.types import Camera, FaceMaps, Lighting, Topology

DOUBLE = {"dtype": torch.float64}


def camera(yaw=0.0, distance=600.0, focal=5.0, **options):
    return Camera(
        torch.tensor([[0.0, yaw, 0.0]], **options),
        torch.tensor([[0.0, 0.0, -distance]], **options),
        torch.tensor([focal], **options),
        torch.zeros(1, 2, **options),
    )


def square(half=100.0):
    corners = torch.tensor([[-1.0, 1, 0], [-1, -1, 0], [1, -1, 0], [1, 1, 0]]) * half
    uv = torch.tensor([[0.0, 0], [0, 1], [1, 1], [1, 0]])
    zero = torch.zeros(68, 3, dtype=torch.int64)
    return corners, Topology(torch.tensor([[0, 1, 2], [0, 2, 3]]), uv, zero, torch.ones(68, 3) / 3)


def maps(pattern_3RR):
    plain = torch.zeros_like(pattern_3RR)
    plain[2] = 1
    return FaceMaps(pattern_3RR[None], 0 * pattern_3RR[None], plain[None])


def checks(side, cell=2):
    """Fields of `cell` texels: the finest detail but one that a map can hold."""
    index = torch.arange(side) // cell
    return ((index[:, None] + index) % 2).float().expand(3, -1, -1)


def picture(mesh, pattern, pose, size, **options):
    """Linear colours under ambient light and the pixels that are covered with all their neighbours."""
    vertices, topology = mesh
    light = Lighting(torch.ones(1, 3), torch.zeros(1, 0, 3), torch.zeros(1, 0, 3))
    rendering = TorchRenderer(topology, **options)(vertices[None], maps(pattern), pose, light, size)
    inner = -torch.nn.functional.max_pool2d(-rendering.mask, 3, 1, 1)
    return srgb_to_linear(rendering.image)[0, 0], inner[0, 0] > 0


CASES = {
    "small face": (ellipsoid(60), checks(256), camera(), 96),
    "footprint of 1 to 2 texels": (ellipsoid(60), checks(128), camera(), 112),
    "grazing square": (square(), checks(256), camera(yaw=1.3, distance=500.0), 112),
}


def error(case, **options):
    reference, inner = picture(*CASES[case], texture_filter="none", antialias=16)
    image, _ = picture(*CASES[case], **options)
    return (image - reference)[inner].square().mean().sqrt().item()


@pytest.mark.parametrize("case", list(CASES))
def test_errors_against_sixteen_samples_along_each_axis(case):
    # The figures that the choice of the default rests on; RMS in linear light on a checkered map of 0 and 1.
    errors = {
        "none": error(case, texture_filter="none"),
        "map": error(case, texture_filter="map"),
        "mipmap 1": error(case, texture_filter="mipmap", anisotropy=1),
        "mipmap 2": error(case, texture_filter="mipmap"),
        "map, antialias 2": error(case, texture_filter="map", antialias=2),
    }
    print(case, {name: round(value, 3) for name, value in errors.items()})
    assert errors["map"] <= errors["none"]
    assert errors["mipmap 1"] < 0.5 * errors["none"]
    assert errors["mipmap 2"] < 1.05 * errors["mipmap 1"]
    assert errors["mipmap 2"] < 0.06


def test_mipmaps_do_nothing_where_nothing_is_minified():
    pattern = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    plain, _ = picture(square(), pattern, camera(), 64, texture_filter="none")
    filtered, _ = picture(square(), pattern, camera(), 64, texture_filter="mipmap", anisotropy=1)
    assert torch.allclose(plain, filtered, atol=1e-6)


def test_a_square_minified_by_powers_of_two_shows_the_mean_of_each_block():
    pattern = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    filling = camera(focal=6.0)
    for factor in (2, 4, 8):
        got, _ = picture(square(), pattern, filling, 64 // factor, texture_filter="mipmap", anisotropy=1)
        expected = torch.nn.functional.avg_pool2d(pattern[None], factor)[0, 0]
        assert torch.allclose(got, expected, atol=1e-5)


def test_between_two_levels_lies_their_mean():
    pattern = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0), **DOUBLE)
    uv = torch.rand(2, 50, generator=torch.Generator().manual_seed(1), **DOUBLE)

    def at(texels):
        footprint = torch.eye(2, **DOUBLE)[..., None] * texels / 16
        return texture.look_up_mipmapped(pattern, uv, footprint.expand(2, 2, 50), (50,), 1)

    assert torch.allclose(at(2**1.5), (at(2.0) + at(4.0)) / 2)
    assert torch.allclose(at(0.1), at(1.0))
    assert torch.allclose(at(16.0), pattern.mean((2, 3))[0, :, None].expand(3, 50))
    assert torch.allclose(at(1e9), at(16.0))


def test_footprints_are_the_differences_between_neighbouring_pixels():
    # Ramps as albedos show the UVs themselves: two neighbours of one plane differ by the footprint.
    size = 40
    vertices, topology = square()
    vertices = vertices.double()
    ramp = ((torch.arange(512) + 0.5) / 512).double()
    pattern = torch.stack([ramp.expand(512, -1), ramp[:, None].expand(-1, 512), torch.zeros(512, 512, **DOUBLE)])
    pose = camera(yaw=1.0, distance=600.0, focal=4.5, **DOUBLE)
    seen = {}

    class Spy(TorchRenderer):
        def visibility(self, vertices_BV3, camera, size):
            seen["vertices"], seen["triangle"] = vertices_BV3, super().visibility(vertices_BV3, camera, size)
            return seen["triangle"]

    surface = Spy(topology, texture_filter="none").surface(vertices[None], maps(pattern), pose, size)
    fragments = texture.Fragments.from_visibility(seen["triangle"])
    uv = surface.diffuse_albedo[0, :2].flatten(1)[:, fragments.pixel]
    depth = surface_depth(uv, pose)
    got = texture.footprints(seen["vertices"], topology.uv, topology.faces, pose, fragments, uv, depth)
    images = fragments.to_images(got.flatten(0, 1))[0].view(2, 2, size, size)
    inner = -torch.nn.functional.max_pool2d(-surface.mask, 5, 1, 2)[0, 0] > 0
    assert inner.sum() > 150
    places = surface.diffuse_albedo[0, :2]
    for axis, dimension in ((0, -1), (1, -2)):
        central = (places.roll(-1, dimension) - places.roll(1, dimension)) / 2
        assert torch.allclose(images[:, axis][:, inner], central[:, inner], rtol=0.02, atol=1e-5)


def surface_depth(uv_2P, pose):
    """-z of the square's points at the given uv, turned about y."""
    yaw, distance = pose.rotation[0, 1], -pose.translation[0, 2]
    return distance + (uv_2P[0] * 200 - 100) * yaw.sin()


def test_every_texel_is_reached():
    for options, reached in (({"texture_filter": "map"}, 1.0), ({"texture_filter": "mipmap"}, 1.0), ({"texture_filter": "none"}, 0.25)):  # fmt: skip # noqa: E501
        pattern = torch.rand(3, 64, 64).requires_grad_()
        picture(square(), pattern, camera(focal=6.0), 16, **options)[0].sum().backward()
        assert (pattern.grad[0] != 0).double().mean() == pytest.approx(reached)


def test_gradients_of_mipmapped_look_ups():
    torch.manual_seed(0)
    pattern = torch.rand(2, 3, 8, 8, **DOUBLE, requires_grad=True)
    uv = (0.1 + 0.8 * torch.rand(2, 9, **DOUBLE)).requires_grad_()
    footprint = 0.3 * torch.randn(2, 2, 9, **DOUBLE)

    def function(pattern, uv):
        return texture.look_up_mipmapped(pattern, uv, footprint, (4, 5), 2)

    assert torch.autograd.gradcheck(function, (pattern, uv))


def test_each_image_looks_into_its_own_map():
    torch.manual_seed(0)
    pattern, uv, footprint = torch.rand(3, 2, 8, 8), torch.rand(2, 9), 0.3 * torch.randn(2, 2, 9)
    together = texture.look_up_mipmapped(pattern, uv, footprint, (4, 0, 5), 2)
    first = texture.look_up_mipmapped(pattern[:1], uv[:, :4], footprint[..., :4], (4,), 2)
    last = texture.look_up_mipmapped(pattern[2:], uv[:, 4:], footprint[..., 4:], (5,), 2)
    assert torch.allclose(together, torch.cat([first, last], 1))
    shared = texture.look_up_mipmapped(pattern[:1], uv, footprint, (4, 0, 5), 2)
    assert torch.allclose(shared[:, :4], first)


@pytest.mark.parametrize(("option", "value"), [("texture_filter", "cubic"), ("anisotropy", 0)])
def test_bad_options_are_named(option, value):
    with pytest.raises(ValueError, match=f"{option} is"):
        TorchRenderer(square()[1], **{option: value})
