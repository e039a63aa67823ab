"""Gradients of the renderer against central finite differences in float64."""

from dataclasses import fields, replace

import pytest
import torch

from fitdiff.renderer import TorchRenderer, shading
from fitdiff.renderer.bench import ellipsoid
from fitdiff.types import Camera, FaceMaps, Lighting

SIZE = 9
LIGHT = tuple(f.name for f in fields(Lighting))


def inputs():
    """A coarse ellipsoid, turned, with every kind of input in general position."""
    torch.manual_seed(3)
    vertices, topology = ellipsoid(6)
    double = {"dtype": torch.float64}
    values = {
        "vertices": vertices[None].double(),
        "rotation": torch.tensor([[0.1, 0.25, -0.1]], **double),
        "translation": torch.tensor([[3.0, -4.0, -500.0]], **double),
        "focal": torch.tensor([4.3], **double),
        "principal_point": torch.tensor([[0.02, -0.03]], **double),
        "ambient": torch.tensor([[0.2, 0.25, 0.3]], **double),
        "directions": torch.tensor([[[-1.0, 0.5, 1.5], [0.8, 0.1, 1.0]]], **double),
        "colours": torch.tensor([[[0.3, 0.25, 0.2], [0.1, 0.15, 0.2]]], **double),
        "proximity": torch.tensor([[1 / 300, 0.0]], **double),
        "harmonics": 0.02 * torch.randn(1, 8, 3, **double),
        "reflections": 0.3 * torch.rand(1, 3, 3, 6, **double),
        "maps": 0.4 * torch.randn(1, 9, 5, 5, **double),
        "occlusion": 0.5 + 0.4 * torch.rand(1, 1, 5, 5, **double),
    }
    return topology, values


def render(renderer, values):
    camera = Camera(values["rotation"], values["translation"], values["focal"], values["principal_point"])
    lighting = Lighting(**{name: values[name] for name in LIGHT})
    maps = replace(FaceMaps.from_tensor(values["maps"]), occlusion=values["occlusion"])
    return renderer(values["vertices"], maps, camera, lighting, SIZE)


@pytest.mark.parametrize("name", list(inputs()[1]))
def test_image_and_landmarks(name):
    topology, values = inputs()
    renderer = TorchRenderer(topology, shininess=8.0)

    def function(value):
        rendering = render(renderer, values | {name: value})
        return rendering.image, rendering.landmarks

    assert torch.autograd.gradcheck(function, values[name].requires_grad_(), eps=1e-6, atol=1e-5)


def test_every_input_matters():
    topology, values = inputs()
    values = {name: value.requires_grad_() for name, value in values.items()}
    image = render(TorchRenderer(topology), values).image
    gradients = torch.autograd.grad(image.square().sum(), list(values.values()))
    for name, gradient in zip(values, gradients, strict=True):
        assert gradient.isfinite().all(), name
        assert gradient.abs().max() > 1e-6, name


def test_vertex_frames():
    topology, values = inputs()
    uv = topology.uv.double()
    # Away from the poles, where all corners of a row coincide and a tangent does not exist.
    vertices = (values["vertices"] + torch.randn(36, 3, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: shading.vertex_frames(v, topology.faces, uv), vertices)


def test_surface_images():
    topology, values = inputs()
    camera = Camera(values["rotation"], values["translation"], values["focal"], values["principal_point"])
    renderer = TorchRenderer(topology, antialias=2)

    def function(vertices, packed):
        surface = renderer.surface(vertices, FaceMaps.from_tensor(packed), camera, SIZE)
        return surface.normals, surface.diffuse_albedo, surface.specular_albedo

    arguments = values["vertices"].requires_grad_(), values["maps"].requires_grad_()
    assert torch.autograd.gradcheck(function, arguments, atol=1e-5, fast_mode=True)


def test_a_vertex_on_the_camera_plane_does_not_spoil_the_gradient():
    topology, values = inputs()
    vertices = values["vertices"].clone()
    camera_plane = torch.tensor([0.0, 0.0, 500.0], dtype=torch.float64)
    values |= {"rotation": torch.zeros(1, 3, dtype=torch.float64), "translation": -camera_plane[None]}
    vertices[0, 0] = camera_plane
    values["vertices"] = vertices.requires_grad_()
    render(TorchRenderer(topology), values).image.sum().backward()
    assert vertices.grad.isfinite().all()


def test_degenerate_triangles_and_uv_have_finite_gradients():
    topology, values = inputs()
    vertices = values["vertices"].clone()
    vertices[0, 14] = vertices[0, 15]
    topology.uv[20] = topology.uv[21]
    values["vertices"] = vertices.requires_grad_()
    image = render(TorchRenderer(topology), values).image
    image.sum().backward()
    assert image.isfinite().all()
    assert vertices.grad.isfinite().all()
    assert vertices.grad.abs().max() < 1e3


def test_descent_recovers_the_light():
    # A lit sphere determines its light: a few steps must bring the colour and the direction back.
    topology, values = inputs()
    renderer = TorchRenderer(topology, shininess=8.0)
    target = render(renderer, values).image
    start = {"directions": values["directions"] + 0.4, "colours": values["colours"] * 0.6}
    start = {name: value.detach().requires_grad_() for name, value in start.items()}
    optimiser = torch.optim.Adam(start.values(), 0.02)
    for _ in range(150):
        optimiser.zero_grad()
        loss = (render(renderer, values | start).image - target).square().mean()
        loss.backward()
        optimiser.step()
    assert loss < 1e-6
