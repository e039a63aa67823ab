"""Normals and tangents of `geometry`, in which exports and renderers read a normal map."""

import pytest
import torch
import trimesh

from fitdiff.geometry import vertex_normals, vertex_tangents


def test_normals_of_a_sphere_are_its_radii():
    sphere = trimesh.creation.icosphere(subdivisions=4)
    vertices = torch.tensor(sphere.vertices)[None]
    normals = vertex_normals(80 * vertices, torch.tensor(sphere.faces))
    assert ((normals * vertices).sum(-1) > 0.9999).all()


@pytest.mark.parametrize("mirror", [False, True])
def test_frames_of_a_plane_are_its_axes(mirror):
    """A plane turned by a random rotation, u along its x (or against it), v against its y."""
    torch.manual_seed(0)
    x, y = torch.meshgrid(torch.linspace(0, 1, 5), torch.linspace(0, 1, 4), indexing="xy")
    points = torch.stack([x.flatten(), y.flatten(), torch.zeros(20)], 1).double()
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    rotation = rotation * torch.linalg.det(rotation)
    ids = torch.arange(20).view(4, 5)
    a, b, c, d = ids[:-1, :-1], ids[:-1, 1:], ids[1:, 1:], ids[1:, :-1]
    faces = torch.cat([torch.stack(corners, -1).view(-1, 3) for corners in ((a, b, c), (a, c, d))])
    uv = torch.stack([1 - points[:, 0] if mirror else points[:, 0], 1 - points[:, 1]], 1)
    vertices = (100 * points @ rotation.T)[None]
    normals = vertex_normals(vertices, faces)
    tangents = vertex_tangents(vertices, faces, uv, normals)
    sign = -1.0 if mirror else 1.0
    torch.testing.assert_close(normals, rotation[:, 2].expand(1, 20, 3))
    torch.testing.assert_close(tangents[..., :3], sign * rotation[:, 0].expand(1, 20, 3))
    torch.testing.assert_close(tangents[..., 3], torch.full((1, 20), sign, dtype=torch.float64))
    bitangents = torch.linalg.cross(normals, tangents[..., :3]) * tangents[..., 3:]
    torch.testing.assert_close(bitangents, rotation[:, 1].expand(1, 20, 3))


def test_frames_are_differentiable():
    torch.manual_seed(0)
    vertices = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    faces, uv = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 4]]), torch.rand(5, 2, dtype=torch.float64)

    def frames(v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        normals = vertex_normals(v, faces)
        return normals, vertex_tangents(v, faces, uv, normals)[..., :3]

    assert torch.autograd.gradcheck(frames, vertices)


def test_an_item_of_a_batch_equals_the_item_alone():
    torch.manual_seed(0)
    vertices, faces, uv = torch.randn(3, 5, 3), torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 4]]), torch.rand(5, 2)
    normals = vertex_normals(vertices, faces)
    tangents = vertex_tangents(vertices, faces, uv, normals)
    torch.testing.assert_close(tangents[1:2], vertex_tangents(vertices[1:2], faces, uv, normals[1:2]))
