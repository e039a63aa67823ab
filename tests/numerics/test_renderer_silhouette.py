"""Outlines: soft coverage against exact areas, its gradient against differences of a supersampled hard mask."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf

from fitdiff.colour import srgb_to_linear
from fitdiff.renderer import TorchRenderer
from fitdiff.renderer.bench import ellipsoid
from fitdiff.renderer.silhouette import opposite_faces
from fitdiff.types import Camera, FaceMaps, Lighting, Topology

DOUBLE = {"dtype": torch.float64}
SIZE, FINE = 48, 16
LIGHT = Lighting(torch.ones(1, 3, **DOUBLE), torch.zeros(1, 0, 3, **DOUBLE), torch.zeros(1, 0, 3, **DOUBLE))


def maps(value=0.5):
    plane = torch.ones(1, 3, 4, 4, **DOUBLE)
    return FaceMaps(value * plane, 0 * plane, plane * torch.tensor([0.0, 0, 1]).view(1, 3, 1, 1))


def camera(translation=(3.0, -5.0, -500.0), rotation=(0.1, 0.5, 0.2), focal=4.0):
    values = [torch.tensor([x], **DOUBLE) for x in (rotation, translation, focal)]
    return Camera(*values, torch.tensor([[0.02, 0.03]], **DOUBLE))


def flat(corners, faces):
    corners = torch.tensor(corners, **DOUBLE)
    uv, zero = torch.zeros(len(corners), 2), torch.zeros(68, 3, dtype=torch.int64)
    return corners[None], Topology(torch.tensor(faces), uv, zero, torch.ones(68, 3) / 3)


def weights(size):
    """A smooth image without symmetry: a loss on the mask that any motion changes."""
    x = (torch.arange(size, **DOUBLE) + 0.5) / size * 2 - 1
    return 1 + 1.5 * x + 2 * x[:, None] + 3 * x * x[:, None] + 0.5 * torch.sin(4 * x)


def soft_loss(topology, vertices, pose):
    mask = TorchRenderer(topology, silhouette=True)(vertices, maps(), pose, LIGHT, SIZE).mask
    return (mask * nnf.avg_pool2d(weights(SIZE * FINE)[None, None], FINE)).sum()


def hard_loss(topology, vertices, pose):
    mask = TorchRenderer(topology)(vertices, maps(), pose, LIGHT, SIZE * FINE).mask
    return (mask * weights(SIZE * FINE)).sum() / FINE**2


@pytest.mark.parametrize("side", [12, 60])
@pytest.mark.parametrize("parameter", ["x", "y", "z", "scale", "focal", "rotation", "shape"])
def test_gradient_is_that_of_the_supersampled_hard_mask(side, parameter):
    # On a coarse mesh and on one whose triangles are smaller than the pixels.
    vertices, topology = ellipsoid(side)
    vertices = vertices[None].double()
    bulge = torch.stack([(vertices[..., 1] / 60 + 0.7).sin(), 0 * vertices[..., 0], 0 * vertices[..., 0]], -1)

    def scene(value):
        shift = {"x": (1.0, 0, 0), "y": (0, 1.0, 0), "z": (0, 0, 3.0)}.get(parameter)
        pose, mesh = camera(), vertices
        if shift is not None:
            pose = replace(pose, translation=pose.translation + value * torch.tensor([shift], **DOUBLE))
        elif parameter == "focal":
            pose = replace(pose, focal=pose.focal + 0.02 * value)
        elif parameter == "rotation":
            pose = replace(pose, rotation=pose.rotation + value * torch.tensor([[0.0, 0.03, 0.0]], **DOUBLE))
        elif parameter == "scale":
            mesh = vertices * (1 + 0.01 * value)
        else:
            mesh = vertices + bulge * value
        return topology, mesh, pose

    value = torch.zeros((), **DOUBLE, requires_grad=True)
    (gradient,) = torch.autograd.grad(soft_loss(*scene(value)), value)
    with torch.no_grad():
        expected = (hard_loss(*scene(2.0)) - hard_loss(*scene(-2.0))) / 4
    assert abs(expected) > 0.5
    assert gradient.item() == pytest.approx(expected.item(), rel=0.1)


def test_gradcheck():
    # The poles of the grid are many vertices at one place: apart, so that no two edges compete for one crossing.
    vertices, topology = ellipsoid(6)
    vertices = vertices + torch.randn(vertices.shape, generator=torch.Generator().manual_seed(0))
    renderer = TorchRenderer(topology, silhouette=True)

    def function(vertices, translation):
        pose = replace(camera(), translation=translation)
        rendering = renderer(vertices, maps(), pose, LIGHT, 9)
        return rendering.image, rendering.mask

    arguments = vertices[None].double().requires_grad_(), camera().translation.requires_grad_()
    assert torch.autograd.gradcheck(function, arguments, atol=1e-5, fast_mode=True)


@pytest.mark.parametrize("roll", [0.0, 0.2, 0.6, np.pi / 4])
def test_coverage_of_a_turned_square_is_its_area(roll):
    vertices, topology = flat([[-60, 60, 0], [-60, -60, 0], [60, -60, 0], [60, 60, 0]], [[0, 1, 2], [0, 2, 3]])
    pose = camera(rotation=(0.0, 0.0, roll))
    expected = (120 * 4 / 500 / 2 * SIZE) ** 2
    mask = TorchRenderer(topology, silhouette=True)(vertices, maps(), pose, LIGHT, SIZE).mask
    # Exact but for the corners, where both directions meet.
    assert mask.sum().item() == pytest.approx(expected, rel=0.005)
    assert mask.min() >= 0
    assert mask.max() <= 1


def test_the_inside_is_that_of_the_hard_picture_and_edges_have_the_colour_of_the_face():
    vertices, topology = ellipsoid(30)
    arguments = vertices[None].double(), maps(), camera(), LIGHT, SIZE
    soft, hard = TorchRenderer(topology, silhouette=True)(*arguments), TorchRenderer(topology)(*arguments)
    inside = soft.mask == 1
    assert inside.sum() > 300
    assert torch.equal(soft.image * inside, hard.image * inside)
    partly = (soft.mask > 0.01).expand_as(soft.image)
    assert torch.allclose(srgb_to_linear(soft.image)[partly], torch.tensor(0.5, **DOUBLE), atol=1e-6)
    assert ((soft.mask > 0) & (soft.mask < 1)).sum() > 50


def test_an_outline_before_the_face_itself_has_a_gradient():
    # A bright square before a dark one: moving it moves the colours although the mask stays as it is.
    near = [[-40, 50, 60], [-40, -50, 60], [40, -50, 60], [40, 50, 60]]
    far = [[-200, 200, 0], [-200, -200, 0], [200, -200, 0], [200, 200, 0]]
    vertices, topology = flat(near + far, [[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    topology.uv[:4] = torch.tensor([0.01, 0.5])
    topology.uv[4:] = torch.tensor([0.99, 0.5])
    texture = maps()
    texture.diffuse_albedo[..., 2:] = 0.1

    def loss(shift, size, **options):
        moved = vertices + shift * torch.tensor([1.0, 0, 0], **DOUBLE) * (vertices[..., 2:] > 0)
        pose = camera(rotation=(0.0, 0.0, 0.3))
        image = TorchRenderer(topology, **options)(moved, texture, pose, LIGHT, size).image
        return (srgb_to_linear(image)[0, 0] * weights(size)).sum() * (SIZE / size) ** 2

    shift = torch.zeros((), **DOUBLE, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(shift, SIZE, silhouette=True), shift)
    with torch.no_grad():
        expected = (loss(2.0, SIZE * FINE) - loss(-2.0, SIZE * FINE)) / 4
    assert abs(expected) > 0.2
    assert gradient.item() == pytest.approx(expected.item(), rel=0.1)


def test_a_seam_is_no_outline():
    # Two halves that touch without sharing vertices, tilted in depth.
    left = [[-80, 80, 40], [-80, -80, 40], [0, -80, 0], [0, 80, 0]]
    right = [[0, 80, 0], [0, -80, 0], [80, -80, -40], [80, 80, -40]]
    vertices, topology = flat(left + right, [[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    topology.uv[4:] = 1.0
    texture = maps()
    texture.diffuse_albedo[..., 2:] = 0.1
    pose = camera(rotation=(0.0, 0.0, 0.0), focal=8.0)
    soft, hard = (TorchRenderer(topology, silhouette=s)(vertices, texture, pose, LIGHT, 40) for s in (True, False))
    middle = (slice(None), slice(None), slice(8, -8), slice(8, -8))
    assert torch.equal(soft.image[middle], hard.image[middle])


def test_coverage_is_near_the_true_one():
    # The true one by 16 x 16 samples a pixel; means over the pixels that it says are covered in part.
    vertices, topology = ellipsoid(30)
    arguments = vertices[None].double(), maps(), camera(), LIGHT
    fine = nnf.avg_pool2d(TorchRenderer(topology)(*arguments, SIZE * FINE).mask, FINE)
    partly = (fine > 0) & (fine < 1)
    hard, soft, softer = (
        (TorchRenderer(topology, **options)(*arguments, SIZE).mask - fine)[partly].abs().mean().item()
        for options in ({}, {"silhouette": True}, {"silhouette": True, "antialias": 2})
    )
    assert soft < 0.3 * hard
    assert softer < 0.7 * soft


def test_opposite_faces_of_a_tetrahedron_and_of_a_border():
    faces = torch.tensor([[0, 1, 2], [0, 3, 1], [1, 3, 2], [0, 2, 3]])
    for face, row in zip(faces.tolist(), opposite_faces(faces).tolist(), strict=True):
        for corner, other in enumerate(row):
            edge = {face[corner], face[(corner + 1) % 3]}
            assert edge < set(faces[other].tolist())
            assert faces[other].tolist() != face
    assert opposite_faces(faces[:2]).tolist() == [[1, -1, -1], [-1, -1, 0]]


def test_no_face_in_the_picture():
    vertices, topology = ellipsoid(8)
    pose = camera(translation=(5000.0, 0.0, -500.0))
    leaf = vertices[None].double().requires_grad_()
    rendering = TorchRenderer(topology, silhouette=True)(leaf, maps(), pose, LIGHT, 16)
    rendering.mask.sum().backward()
    assert not rendering.mask.any()
    assert not leaf.grad.any()
