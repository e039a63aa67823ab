"""What must not change a picture, and what must change it in a known way."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fitdiff import geometry
from fitdiff.renderer import TorchRenderer
from fitdiff.renderer.bench import ellipsoid, scene
from fitdiff.types import FaceMaps

SIZE = 40
VERTICES, TOPOLOGY = ellipsoid(18)


def random_scene(seed, batch=3):
    torch.manual_seed(seed)
    vertices, *rest = scene(VERTICES, batch, 8)
    return vertices.detach() + torch.randn(batch, len(VERTICES), 3), *(x.detach() for x in rest)


@pytest.mark.parametrize("antialias", [1, 2])
def test_batch_equals_its_items(antialias):
    inputs = random_scene(0)
    renderer = TorchRenderer(TOPOLOGY, antialias=antialias)
    together = renderer(*inputs, SIZE)
    for i in range(3):
        alone = renderer(*(x[i : i + 1] for x in inputs), SIZE)
        for name in ("image", "mask", "landmarks"):
            assert torch.allclose(getattr(together, name)[i : i + 1], getattr(alone, name), atol=1e-6), name


def test_gradient_of_a_batch_equals_that_of_its_items():
    vertices, maps, camera, lighting = random_scene(1)
    renderer = TorchRenderer(TOPOLOGY)

    def gradient(index):
        leaf = vertices[index].requires_grad_()
        image = renderer(leaf, maps[index], camera[index], lighting[index], SIZE).image
        return torch.autograd.grad(image.square().sum(), leaf)[0]

    together = gradient(slice(None))
    for i in range(3):
        alone = gradient(slice(i, i + 1))
        assert torch.allclose(together[i : i + 1], alone, rtol=1e-3, atol=1e-5)


def test_one_set_of_maps_serves_all():
    vertices, maps, camera, lighting = random_scene(2)
    renderer = TorchRenderer(TOPOLOGY)
    repeated = maps[torch.tensor([1, 1, 1])]
    shared = renderer(vertices, maps[1:2], camera, lighting, SIZE).image
    assert torch.allclose(shared, renderer(vertices, repeated, camera, lighting, SIZE).image, atol=1e-6)


def test_the_order_of_triangles_does_not_matter():
    inputs = random_scene(3)
    shuffled = replace(TOPOLOGY, faces=TOPOLOGY.faces[torch.randperm(len(TOPOLOGY.faces))].roll(1, dims=1))
    first, second = TorchRenderer(TOPOLOGY)(*inputs, SIZE), TorchRenderer(shuffled)(*inputs, SIZE)
    assert torch.equal(first.mask, second.mask)
    assert (first.image - second.image).abs().max() < 1e-4


def centre_of_mass(mask):
    rows, columns = (mask[0, 0] > 0).nonzero(as_tuple=True)
    return columns.double().mean().item(), rows.double().mean().item()


@settings(max_examples=15, deadline=None)
@given(dx=st.floats(5, 30), dy=st.floats(5, 30), seed=st.integers(0, 100))
def test_translation_moves_the_face_right_and_up(dx, dy, seed):
    vertices, maps, camera, lighting = random_scene(seed, 1)
    renderer = TorchRenderer(TOPOLOGY)
    moved = replace(camera, translation=camera.translation + torch.tensor([[dx, dy, 0.0]]))
    before, after = (renderer(vertices, maps, c, lighting, SIZE) for c in (camera, moved))
    (x0, y0), (x1, y1) = centre_of_mass(before.mask), centre_of_mass(after.mask)
    assert x1 > x0
    assert y1 < y0
    assert ((after.landmarks - before.landmarks) > 0).all()


@settings(max_examples=15, deadline=None)
@given(scale=st.floats(0.3, 3), seed=st.integers(0, 100))
def test_a_larger_head_farther_away_looks_the_same(scale, seed):
    vertices, maps, camera, lighting = random_scene(seed, 1)
    renderer = TorchRenderer(TOPOLOGY)
    scaled = replace(camera, translation=camera.translation * scale)
    first, second = (
        renderer(vertices, maps, camera, lighting, SIZE),
        renderer(vertices * scale, maps, scaled, lighting, SIZE),
    )
    same = (first.mask == second.mask)[:, 0]
    assert same.float().mean() > 0.995
    difference = (first.image - second.image).abs().amax(1)[same]
    assert difference.quantile(0.99) < 1e-3


def test_landmarks_lie_on_the_vertices_they_name():
    vertices, maps, camera, lighting = random_scene(4)
    rendering = TorchRenderer(TOPOLOGY)(vertices, maps, camera, lighting, SIZE)
    named = vertices[:, TOPOLOGY.landmark_vertices[:, 0]]
    expected = geometry.project(geometry.to_camera_space(named, camera), camera)
    assert torch.allclose(rendering.landmarks, expected, atol=1e-5)


def test_image_and_mask_agree():
    rendering = TorchRenderer(TOPOLOGY)(*random_scene(5), SIZE)
    assert rendering.image.min() >= 0
    assert rendering.image.max() <= 1
    assert rendering.image.masked_fill(rendering.mask > 0, 0).eq(0).all()
    assert set(rendering.mask.unique().tolist()) == {0.0, 1.0}


def test_background_has_no_gradient_and_an_empty_image_is_fine():
    vertices, maps, camera, lighting = random_scene(6, 2)
    away = replace(camera, translation=camera.translation + torch.tensor([[5000.0, 0, 0]]))
    leaf = vertices.requires_grad_()
    rendering = TorchRenderer(TOPOLOGY)(leaf, maps, away, lighting, SIZE)
    rendering.image.sum().backward()
    assert rendering.mask.eq(0).all()
    assert leaf.grad.eq(0).all()


def test_float64_in_float64_out():
    inputs = [x.double() if isinstance(x, torch.Tensor) else x.map(torch.Tensor.double) for x in random_scene(7, 1)]
    double = TorchRenderer(TOPOLOGY)(*inputs, SIZE)
    single = TorchRenderer(TOPOLOGY)(*random_scene(7, 1), SIZE)
    assert double.image.dtype == double.mask.dtype == double.landmarks.dtype == torch.float64
    assert (double.image - single.image).abs().quantile(0.99) < 1e-4


def test_autocast_and_half_precision_inputs_do_not_blur_the_geometry():
    vertices, maps, camera, lighting = random_scene(9)
    renderer = TorchRenderer(TOPOLOGY)
    expected = renderer(vertices, maps, camera, lighting, SIZE)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(renderer(vertices, maps, camera, lighting, SIZE).image, expected.image)
    coarse = renderer(vertices, maps.map(torch.Tensor.bfloat16), camera, lighting, SIZE)
    assert coarse.image.dtype == torch.float32
    assert torch.equal(coarse.mask, expected.mask)
    assert (coarse.image - expected.image).abs().max() < 0.02


def test_surface_describes_what_the_picture_shows():
    # Ambient light alone shows the albedo: the picture must be the encoded albedo image.
    vertices, maps, camera, lighting = random_scene(8)
    renderer = TorchRenderer(TOPOLOGY)
    flat = replace(lighting, ambient=torch.ones(3, 3), colours=torch.zeros_like(lighting.colours))
    surface = renderer.surface(vertices, maps, camera, SIZE)
    rendering = renderer(vertices, maps, camera, flat, SIZE)
    packed = FaceMaps(surface.diffuse_albedo, surface.specular_albedo, surface.normals).to_images()
    assert torch.allclose(packed["diffuse"], rendering.image, atol=1e-6)
    assert torch.equal(surface.mask, rendering.mask)
    lengths = surface.normals.norm(dim=1, keepdim=True)
    assert torch.allclose(lengths, surface.mask, atol=1e-5)
