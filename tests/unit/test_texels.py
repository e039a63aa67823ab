"""Texels of a card that is seen from one side: which region they are in, which the camera sees."""

import pytest
import torch

from fitdiff.evaluation.texels import Texels
from fitdiff.renderer import TorchRenderer
from fitdiff.types import Camera, Topology


@pytest.fixture
def cards():
    """Two squares of 40 mm, left and right half of UV space; the right one looks away from +z."""
    square = torch.tensor([[-1.0, -1.0, 0.0], [1.0, -1.0, 0.0], [1.0, 1.0, 0.0], [-1.0, 1.0, 0.0]]) * 20
    vertices = torch.cat([square - torch.tensor([25.0, 0, 0]), square + torch.tensor([25.0, 0, 0])])
    uv = torch.tensor([[0.0, 1.0], [0.5, 1.0], [0.5, 0.0], [0.0, 0.0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 6, 5], [4, 7, 6]])
    regions = {name: torch.arange(8) < 4 if name == "nose" else torch.zeros(8, dtype=torch.bool) for name in ("nose", "mouth")}  # fmt: skip # noqa: E501
    corners = torch.zeros(68, 3, dtype=torch.int64)
    uvs = torch.cat([uv, uv + torch.tensor([0.5, 0.0])])
    return vertices[None], Topology(faces, uvs, corners, torch.full((68, 3), 1 / 3), regions)


def camera(yaw):
    return Camera(
        torch.tensor([[0.0, yaw, 0.0]]), torch.tensor([[0.0, 0.0, -300.0]]), torch.ones(1) * 4, torch.zeros(1, 2)
    )


def test_only_what_faces_the_camera_is_visible(cards):
    vertices, topology = cards
    texels = Texels(topology, 16)
    renderer = TorchRenderer(topology)
    front = texels.visible(renderer, vertices, camera(0.0))[0]
    assert front[:, :8].all()
    assert not front[:, 8:].any()
    behind = texels.visible(renderer, vertices, camera(torch.pi))[0]
    assert not behind[:, :8].any()
    assert behind[:, 8:].all()


def test_texels_of_a_region(cards):
    texels = Texels(cards[1], 16)
    assert texels.of_regions(["nose"])[:, :8].all()
    assert not texels.of_regions(["nose"])[:, 8:].any()
    assert not texels.of_regions(["mouth"]).any()
