"""Codes and meshes that people bring, in every format, size and pose."""

import json

import numpy as np
import pytest
import torch
import trimesh
from folder_people import ToyShape

from fitdiff.data.folder.shapes import best_pose, count_vertices, encode_mesh, mesh_sizes, read_shape, read_vertices
from fitdiff.geometry import rotation_matrix

MODEL = ToyShape()


@pytest.fixture
def code() -> torch.Tensor:
    return torch.randn(1, 6, generator=torch.Generator().manual_seed(3))


def posed(vertices: torch.Tensor, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    turn = rotation_matrix(torch.tensor([[0.3, -0.5, 0.2]]))[0]
    return scale * vertices @ turn.T + torch.tensor([10.0, -20.0, 300.0]), turn


def test_best_pose_undoes_a_similarity(code):
    face = MODEL(code)[0]
    moved, turn = posed(face, 0.01)
    rotation, scale, shift = best_pose(moved, face, "similarity")
    torch.testing.assert_close(rotation, turn.T, atol=1e-5, rtol=0)
    assert scale.item() == pytest.approx(100, rel=1e-5)
    torch.testing.assert_close(scale * moved @ rotation.T + shift, face, atol=1e-2, rtol=0)


def test_best_pose_never_mirrors():
    cloud = torch.randn(50, 3)
    rotation, _, _ = best_pose(cloud * torch.tensor([-1.0, 1.0, 1.0]), cloud, "similarity")
    assert torch.linalg.det(rotation).item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("align", "scale"), [("similarity", 0.01), ("rigid", 1.0)])
def test_a_posed_mesh_gives_its_code(code, align, scale):
    moved, turn = posed(MODEL(code)[0], scale)
    read, rotation, residual = encode_mesh(moved, MODEL, align)
    torch.testing.assert_close(read, code[0], atol=1e-3, rtol=0)
    assert residual < 1e-2
    torch.testing.assert_close(rotation, turn.T, atol=1e-4, rtol=0)


def test_an_aligned_mesh_gives_its_code_exactly(code):
    read, rotation, residual = encode_mesh(MODEL(code)[0], MODEL, "none")
    torch.testing.assert_close(read, code[0], atol=1e-4, rtol=0)
    assert residual < 1e-3
    assert torch.equal(rotation, torch.eye(3))


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".npz"])
def test_formats_keep_the_order_of_vertices(tmp_path, code, suffix):
    vertices, path = MODEL(code)[0], tmp_path / f"mesh{suffix}"
    if suffix == ".npz":
        np.savez(path, vertices=vertices.numpy())
    else:
        mesh = trimesh.Trimesh(vertices.numpy(), MODEL.topology.faces.numpy(), process=False)
        path.write_bytes(
            trimesh.exchange.export.export_mesh(mesh, None, suffix[1:]) if suffix == ".ply" else _obj(mesh)
        )
    torch.testing.assert_close(read_vertices(path), vertices, atol=1e-4, rtol=0)
    assert count_vertices(path) == 144
    read, _ = read_shape(path, MODEL, "none")
    torch.testing.assert_close(read, code[0], atol=1e-3, rtol=0)


def _obj(mesh: trimesh.Trimesh) -> bytes:
    """With colours after the positions and texture coordinates in another order, as other tools write them."""
    lines = ["# a comment", "mtllib mesh.mtl", *(f"v {x} {y} {z} 0.5 0.5 0.5" for x, y, z in mesh.vertices)]
    lines += ["vt 0 0", "vt 1 0", "vt 1 1", "vn 0 0 1"]
    return "\n".join([*lines, *(f"f {a + 1}/3/1 {b + 1}/1/1 {c + 1}/2/1" for a, b, c in mesh.faces)]).encode()


def test_meshes_of_the_models_own_files_where_the_texture_has_seams(tmp_path, code):
    """The model leaves out the last two vertices of its files; a mesh from its own tools has them."""

    class Seamed(ToyShape):
        file_vertices = torch.arange(144)
        n_file_vertices = 146

    model, path = Seamed(), tmp_path / "mesh.npz"
    own = torch.cat([model(code)[0], torch.zeros(2, 3)])
    np.savez(path, vertices=own.numpy())
    torch.testing.assert_close(read_shape(path, model, "similarity")[0], code[0], atol=1e-3, rtol=0)
    assert mesh_sizes(model) == (144, 146)
    assert mesh_sizes(MODEL) == (144,)


def test_faults_are_named(tmp_path, code):
    path = tmp_path / "shape.json"
    for text, fault in (
        ('{"identity": [1, 2]}', "got 2 numbers"),
        ('{"code": [1, 2]}', "got none under 'identity'"),
        ('{"identity": [1, 2, 3, 4, 5, NaN]}', "finite"),
        ('{"identity": [1, 2, 3, 4, 5, null]}', "list of finite numbers"),
        ('{"identity": [1, 2, 3, 4, 5, "a"]}', "list of finite numbers"),
        ('{"identity": [[1], [2], [3], [4], [5], [6, 7]]}', "list of finite numbers"),
        ('{"identity": [1, 2, 3, 4, 5, 1' + "0" * 400 + "]}", "list of finite numbers"),
        ('{"identity": [1, 2,', "Expecting"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"shape\.json: .*{fault}"):
            read_shape(path, MODEL, "none")
    path.write_text(json.dumps({"identity": code[0].tolist(), "licence": "mine"}))
    assert torch.equal(read_shape(path, MODEL, "none")[0], code[0])
    np.savez(tmp_path / "mesh.npz", vertices=np.zeros((5, 3), np.float32))
    with pytest.raises(ValueError, match=r"mesh\.npz: has 5 vertices, the shape model 144"):
        read_shape(tmp_path / "mesh.npz", MODEL, "similarity")


def test_a_shuffled_mesh_is_refused(tmp_path, code):
    shuffled = MODEL(code)[0][torch.randperm(144, generator=torch.Generator().manual_seed(0))]
    np.savez(tmp_path / "mesh.npz", vertices=shuffled.numpy())
    with pytest.raises(ValueError, match="the model's own vertices in their order"):
        read_shape(tmp_path / "mesh.npz", MODEL, "similarity")


def test_nothing_is_unpickled(tmp_path):
    np.savez(tmp_path / "mesh.npz", vertices=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="pickle"):
        read_shape(tmp_path / "mesh.npz", MODEL, "none")
