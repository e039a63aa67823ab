"""What every registered renderer promises: `renderer=torch` is the reference, the others differ in speed alone."""

import copy
from dataclasses import replace

import pytest
import torch

from fitdiff import registry
from fitdiff.renderer import TorchRenderer
from fitdiff.renderer.bench import ellipsoid, scene
from tests.conftest import built_in

registry.load_plugins()
SIZE = 24
VERTICES, TOPOLOGY = ellipsoid(14)
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")]),
]


def build(name, topology=TOPOLOGY, device="cpu", **options):
    if name == "kaolin" and device == "cpu":
        pytest.skip("kaolin draws on CUDA only")
    try:
        node = registry.config_of("renderer", name, **options)
        return registry.build(node, "renderer", topology=topology).to(device)
    except ImportError as error:
        if name == "kaolin":
            pytest.skip(str(error))
        raise


def inputs(batch=2, resolution=8, device="cpu", dtype=torch.float32):
    torch.manual_seed(0)
    vertices, *records = scene(VERTICES + torch.randn(VERTICES.shape), batch, resolution)
    return [vertices.detach().to(device, dtype), *(r.map(lambda x: x.detach().to(device, dtype)) for r in records)]


def leaves(arguments):
    """The same arguments with gradient, and the list of their tensors."""
    found = []

    def leaf(x):
        found.append(x.clone().requires_grad_())
        return found[-1]

    return [leaf(arguments[0]), *(record.map(leaf) for record in arguments[1:])], found


@pytest.fixture(params=built_in("renderer"))
def name(request):
    return request.param


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("options", [{}, {"antialias": 2}, {"cull_back_faces": False}])
def test_images_are_those_of_torch(name, device, options):
    vertices, maps, camera, lighting = inputs(device=device)
    # Seen from the side, so that triangles hide one another.
    camera = replace(camera, rotation=camera.rotation + torch.tensor([0.0, 1.0, 0.0], device=device))
    arguments = vertices, maps, camera, lighting, SIZE
    renderer = build(name, device=device, **options)
    expected, rendering = TorchRenderer(TOPOLOGY, **options).to(device)(*arguments), renderer(*arguments)
    assert rendering.image.shape == (2, 3, SIZE, SIZE)
    assert rendering.landmarks.shape == (2, 68, 2)
    assert 0.05 < expected.mask.mean() < 0.95
    # kaolin breaks ties of edges and depths in its own way: a few pixels may see a neighbouring triangle.
    differing = (rendering.image - expected.image).abs().amax(1) > 1e-5
    assert differing.float().mean() <= (0.01 if name == "kaolin" else 0)
    assert torch.equal(rendering.landmarks, expected.landmarks)
    assert torch.equal(renderer.surface(vertices, maps, camera, SIZE).mask, rendering.mask)


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_are_those_of_torch(name, device):
    def gradients(renderer):
        arguments, tensors = leaves(inputs(device=device))
        rendering = renderer(*arguments, SIZE)
        loss = rendering.image.square().sum() + rendering.landmarks.square().sum()
        return torch.autograd.grad(loss, tensors)

    expected = gradients(TorchRenderer(TOPOLOGY).to(device))
    for got, wanted in zip(gradients(build(name, device=device)), expected, strict=True):
        assert wanted.abs().max() > 0
        scale = wanted.abs().max()
        # Sums of atomic additions differ in their last bits on CUDA.
        assert (got - wanted).abs().max() <= scale * (0.02 if name == "kaolin" else 1e-4 if device == "cuda" else 0)


@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_equals_its_items_alone(name, device):
    arguments = inputs(3, device=device)
    renderer = build(name, device=device)
    together = renderer(*arguments, SIZE)
    for i in range(3):
        alone = renderer(*(x[i : i + 1] for x in arguments), SIZE)
        assert torch.equal(together.mask[i : i + 1], alone.mask)
        assert torch.allclose(together.image[i : i + 1], alone.image, atol=1e-6)
        assert torch.allclose(together.landmarks[i : i + 1], alone.landmarks, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_the_same_call_gives_the_same_bits(name, device):
    renderer = build(name, device=device)
    first, second = (renderer(*inputs(device=device), SIZE) for _ in range(2))
    assert torch.equal(first.image, second.image)


@pytest.mark.parametrize("device", DEVICES)
def test_one_set_of_maps_serves_a_batch(name, device):
    vertices, maps, camera, lighting = inputs(3, device=device)
    renderer = build(name, device=device)
    shared = renderer(vertices, maps[:1], camera, lighting, SIZE).image
    repeated = renderer(vertices, maps[torch.zeros(3, dtype=torch.long, device=device)], camera, lighting, SIZE).image
    assert torch.allclose(shared, repeated, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_are_drawn_in_single_precision(name, device, dtype):
    coarse = inputs(device=device, dtype=dtype)
    exact = [coarse[0].float(), *(record.map(torch.Tensor.float) for record in coarse[1:])]
    renderer = build(name, device=device)
    rendering = renderer(*coarse, SIZE)
    assert rendering.image.dtype == torch.float32
    assert torch.equal(rendering.image, renderer(*exact, SIZE).image)


@pytest.mark.parametrize("device", DEVICES)
def test_an_empty_image_is_black_and_has_no_gradient(name, device):
    vertices, maps, camera, lighting = inputs(device=device)
    away = replace(camera, translation=camera.translation + torch.tensor([5000.0, 0, 0], device=device))
    arguments, tensors = leaves([vertices, maps, away, lighting])
    rendering = build(name, device=device)(*arguments, SIZE)
    assert not rendering.mask.any()
    assert not rendering.image.any()
    assert not any(gradient.any() for gradient in torch.autograd.grad(rendering.image.sum(), tensors))


@pytest.mark.parametrize("device", DEVICES)
def test_some_images_of_a_batch_may_be_empty(name, device):
    vertices, maps, camera, lighting = inputs(3, device=device)
    aside = torch.tensor([[5000.0, 0, 0], [0, 0, 0], [0, 5000, 0]], device=device)
    moved = replace(camera, translation=camera.translation + aside)
    renderer = build(name, device=device)
    rendering = renderer(vertices, maps, moved, lighting, SIZE)
    assert rendering.mask.flatten(1).any(1).tolist() == [False, True, False]
    alone = renderer(vertices[1:2], maps[1:2], moved[1:2], lighting[1:2], SIZE)
    assert torch.allclose(rendering.image[1:2], alone.image, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_renderers_of_different_topologies_do_not_disturb_each_other(name, device):
    other_vertices, other_topology = ellipsoid(9)
    vertices, *rest = inputs(device=device)
    few = other_vertices.to(device).repeat(2, 1, 1)
    one, two = build(name, device=device), build(name, other_topology, device)
    expected = one(vertices, *rest, SIZE).image
    others = two(few, *rest, SIZE).image
    assert torch.equal(one(vertices, *rest, SIZE).image, expected)
    assert torch.equal(two(few, *rest, SIZE).image, others)
    reference = TorchRenderer(other_topology).to(device)(few, *rest, SIZE).image
    assert (others - reference).abs().amax(1).gt(1e-5).float().mean() <= (0.01 if name == "kaolin" else 0)


def test_options_and_shininess_are_those_of_torch(name):
    reference = registry.config_of("renderer", "torch")
    assert registry.config_of("renderer", name) == reference | {
        "_target_": registry.config_of("renderer", name)["_target_"]
    }
    assert build(name, shininess=12.0).shininess == 12.0


def test_it_has_no_weights_and_can_be_copied(name):
    renderer = build(name)
    assert not list(renderer.parameters())
    assert not renderer.state_dict()
    arguments = inputs()
    assert torch.equal(copy.deepcopy(renderer)(*arguments, SIZE).image, renderer(*arguments, SIZE).image)


def test_buffers_move_with_the_module(name):
    assert {buffer.device.type for buffer in build(name).to("meta").buffers()} == {"meta"}


def test_wrong_sizes_are_named(name):
    vertices, maps, camera, lighting = inputs(3)
    renderer = build(name)
    with pytest.raises(ValueError, match="got 195 vertices, the topology has 196"):
        renderer(vertices[:, :-1], maps, camera, lighting, SIZE)
    with pytest.raises(ValueError, match="2 sets of maps for 3 faces"):
        renderer(vertices, maps[:2], camera, lighting, SIZE)
