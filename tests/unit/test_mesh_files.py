"""OBJ and PLY as people's tools write them: every vertex in its place, every fault named."""

import numpy as np
import pytest

from fitdiff.evaluation.mesh_files import MeshError, read_mesh, write_mesh

SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.5]], float)


def written(tmp_path, text, name="mesh.obj"):
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("suffix", [".obj", ".ply"])
def test_round_trip_keeps_equal_unused_and_unordered_vertices(tmp_path, suffix):
    vertices = np.concatenate([SQUARE, SQUARE[:1], np.random.default_rng(0).normal(size=(5, 3)) * 100])
    faces = np.array([[8, 0, 1], [3, 3, 4], [2, 1, 0]])
    mesh = read_mesh(write_mesh(tmp_path / f"mesh{suffix}", vertices, faces))
    np.testing.assert_allclose(mesh.vertices, vertices, rtol=1e-7, atol=1e-7)
    np.testing.assert_array_equal(mesh.faces, faces)
    assert mesh.vertices.dtype == np.float64
    assert mesh.faces.dtype == np.int64


def test_colours_are_written_after_positions_and_do_not_disturb_them(tmp_path):
    path = write_mesh(tmp_path / "mesh.obj", SQUARE, [[0, 1, 2]], np.full((4, 3), 0.25))
    assert path.read_text().splitlines()[3] == "v 0 1 0.5 0.2500 0.2500 0.2500"
    np.testing.assert_array_equal(read_mesh(path).vertices, SQUARE)


def test_obj_with_colours_textures_normals_polygons_and_comments(tmp_path):
    text = (
        "# scan\nmtllib a.mtl\no head\nv 0 0 0 0.5 0.5 0.5\n\tv\t1 0 0 1 1 1\nv 1 1 0 0 0 0\nvt 0 0\nvn 0 0 1\n"
        "v 0 1 0.5 0 0 0\nusemtl skin\ns off\nf 1/1/1 2/1/1 3/1/1 4/1/1\nf 1//1 2//1 3//1 # last\nf 1/1 2/1 \\\n3/1\n"
    )
    mesh = read_mesh(written(tmp_path, text))
    np.testing.assert_array_equal(mesh.vertices, SQUARE)
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2], [0, 1, 2]]


def test_texture_seams_do_not_split_vertices(tmp_path):
    text = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0.5\nvt 0 0\nvt 1 1\nf 1/1 2/1 3/1\nf 1/2 3/2 4/2\n"
    np.testing.assert_array_equal(read_mesh(written(tmp_path, text)).vertices, SQUARE)


def test_negative_ids_count_back_from_their_line(tmp_path):
    text = "v 0 0 0\nv 1 0 0\nv 1 1 0\nf -3 -2 -1\nv 0 1 0.5\nf -4 -2 -1\n"
    assert read_mesh(written(tmp_path, text)).faces.tolist() == [[0, 1, 2], [0, 2, 3]]


def test_points_alone_are_a_mesh_without_faces(tmp_path):
    assert read_mesh(written(tmp_path, "v 0 0 0\nv 1 2 3\n")).faces.shape == (0, 3)
    head = "ply\nformat ascii 1.0\nelement vertex 1\n" + "".join(f"property float {axis}\n" for axis in "xyz")
    mesh = read_mesh(written(tmp_path, f"{head}end_header\n1 2 3\n", "points.ply"))
    assert mesh.vertices.tolist() == [[1, 2, 3]]
    assert mesh.faces.shape == (0, 3)


def test_ascii_ply_with_colours_and_a_quad(tmp_path):
    head = "ply\nformat ascii 1.0\nelement vertex 4\n" + "".join(f"property float {axis}\n" for axis in "xyz")
    colours = "".join(f"property uchar {name}\n" for name in ("red", "green", "blue"))
    rows = "".join(f"{x} {y} {z} 9 8 7\n" for x, y, z in SQUARE)
    text = f"{head}{colours}element face 1\nproperty list uchar int vertex_indices\nend_header\n{rows}4 0 1 2 3\n"
    mesh = read_mesh(written(tmp_path, text, "mesh.ply"))
    np.testing.assert_array_equal(mesh.vertices, SQUARE)
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing\n", "no line starts with 'v'"),
        ("v 0 0 0\nv 1 x 0\n", "line 2 is b'v 1 x 0'"),
        ("v 0 0 0\nv 1 0\n", "line 2 .* three numbers"),
        ("v 0 0 0\nv nan 0 0\n", "vertex 1 of 2"),
        ("v 0 0 0\nf 1 1\n", "line 2 .* at least three"),
        ("v 0 0 0\nf 1 1 a/b\n", "line 2 .* at least three"),
        ("v 0 0 0\nf 1 1 2\n", "line 2 .* there are 1 vertices"),
        ("v 0 0 0\nf 0 1 1\n", "line 2 .* there are 1 vertices"),
    ],
)
def test_faults_of_an_obj_name_file_and_line(tmp_path, text, message):
    with pytest.raises(MeshError, match=rf"mesh\.obj: .*{message}"):
        read_mesh(written(tmp_path, text))


def test_other_faults(tmp_path):
    with pytest.raises(MeshError, match="cannot be read: No such file"):
        read_mesh(tmp_path / "gone.obj")
    with pytest.raises(MeshError, match=r"got a \.stl, expected one of \.obj, \.ply"):
        read_mesh(tmp_path / "mesh.stl")
    path = write_mesh(tmp_path / "mesh.ply", SQUARE, [[0, 1, 2]])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(MeshError, match=r"cannot be read as PLY .* write it again, as triangles"):
        read_mesh(path)
    with pytest.raises(MeshError, match=r"face 0 .* of only 4"):
        write_mesh(tmp_path / "bad.obj", SQUARE, [[0, 1, 4]])
    assert not (tmp_path / "bad.obj").exists()
