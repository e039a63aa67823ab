"""Readers of other people's face models: nothing is run, what is wrong is named, numbers keep their meaning."""

import io
import os
import pickle
import subprocess
import sys

import face_files
import numpy as np
import pytest
import torch
from scipy import sparse

from fitdiff import registry
from fitdiff.shape_model import (
    FaceBasis,
    Flame,
    LinearFaceModel,
    ModelFileError,
    complete,
    convert,
    face_basis,
    flame,
    gnm,
    hifi3d,
    ict_facekit,
)
from fitdiff.shape_model.inert_pickle import read_pickle
from fitdiff.shape_model.model_files import read_landmarks, read_mat, read_obj, read_obj_vertices

BROUGHT = ("flame", "bfm", "ict_facekit", "gnm", "hifi3d", "pca_npz")


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setattr(complete, "cache_folder", lambda: folder)
        yield folder


# ---------------------------------------------------------------- pickles


class Evil:
    """Runs a command in whoever unpickles it."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_pickle_is_refused_by_name_and_not_run(tmp_path, protocol):
    marker, path = tmp_path / "ran", tmp_path / "generic_model.pkl"
    path.write_bytes(pickle.dumps({"v_template": Evil(marker)}, protocol))
    with pytest.raises(ModelFileError, match=r"generic_model\.pkl: the pickle asks for \w+\.system"):
        Flame(path=str(path))
    assert not marker.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"c__builtin__\ngetattr\n(cnumpy\nndarray\nS'dump'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"csubprocess\nPopen\n.",
        b"cposix\nsystem\n(S'true'\ntR.",
        b"cchumpy.ch\nos\n.",
    ],
)
def test_every_other_name_is_refused(tmp_path, program):
    (tmp_path / "x.pkl").write_bytes(program)
    with pytest.raises(ModelFileError, match="which no known face model needs"):
        read_pickle(tmp_path / "x.pkl")


def test_a_pickle_cannot_alter_the_reader(tmp_path):
    """BUILD sets attributes of any object: of a function that is handed out, they must not stay."""
    program = b"c_codecs\nencode\n(N}S'evil'\nI1\nstb(dS'a'\nI1\ns."
    (tmp_path / "x.pkl").write_bytes(program)
    read_pickle(tmp_path / "x.pkl")
    from fitdiff.shape_model import inert_pickle

    assert not hasattr(inert_pickle._encode, "evil")


@pytest.mark.parametrize("damage", [b"", b"not a pickle", b"\x80\x02}q\x00."[:-1]])
def test_a_damaged_pickle_is_named(tmp_path, damage):
    (tmp_path / "x.pkl").write_bytes(damage)
    with pytest.raises(ModelFileError, match=r"x\.pkl: damaged, or not a pickle"):
        read_pickle(tmp_path / "x.pkl")


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_a_pickle_are_read_exactly(tmp_path, protocol):
    rng = np.random.default_rng(0)
    arrays = {
        "double": rng.normal(size=(3, 4)),
        "fortran": np.asfortranarray(rng.normal(size=(3, 4)).astype(np.float32)),
        "big_endian": np.arange(5, dtype=">i4"),
        "unsigned": np.arange(6, dtype=np.uint32).reshape(2, 3),
        "scalar": np.float64(2.5),
    }
    rows = sparse.random(5, 7, 0.4, "csr", random_state=0)
    chumpy = face_files.chumpy(arrays["double"])
    path = tmp_path / "x.pkl"
    path.write_bytes(
        pickle.dumps({**arrays, "chumpy": chumpy, "csr": rows, "csc": rows.tocsc(), "text": "lbs"}, protocol)
    )
    read = read_pickle(path)
    for name, array in {**arrays, "chumpy": arrays["double"]}.items():
        assert np.array_equal(read[name], array), name
    assert np.array_equal(read["csr"].toarray(), rows.toarray())
    assert np.array_equal(read["csc"].toarray(), rows.toarray())
    assert read["text"] == "lbs"


@pytest.mark.parametrize("kind", ["csc", "csr"])
@pytest.mark.parametrize("row", [5_000_000, -1])
def test_a_sparse_matrix_of_a_pickle_must_stay_within_its_shape(tmp_path, kind, row):
    matrix = sparse.eye(4).asformat(kind)
    matrix.indices[1] = row
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"J_regressor": matrix}))
    with pytest.raises(ModelFileError, match=r"x\.pkl: damaged.*indices"):
        read_pickle(tmp_path / "x.pkl")


def test_a_sparse_matrix_of_a_matlab_file_must_stay_within_its_shape(tmp_path):
    from scipy.io import savemat

    matrix = sparse.eye(4).tocsc()
    savemat(tmp_path / "whole.mat", {"a": matrix})
    assert np.array_equal(read_mat(tmp_path / "whole.mat")["a"].toarray(), np.eye(4))
    matrix.indices[1] = 5_000_000
    savemat(tmp_path / "x.mat", {"a": matrix})
    with pytest.raises(ModelFileError, match=r"x\.mat: cannot be read as a MATLAB file: .*indices"):
        read_mat(tmp_path / "x.mat")


def test_chumpy_is_not_imported(tmp_path):
    path = face_files.write("flame", tmp_path)
    code = (
        f"from fitdiff.shape_model.flame import read; import sys; read({str(path)!r}); print('chumpy' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


# ---------------------------------------------------------------- what is missing or wrong


@pytest.mark.parametrize("name", BROUGHT)
def test_a_missing_file_names_itself_its_licence_and_its_source(name, tmp_path):
    for path in ({}, {"path": str(tmp_path / "nowhere")}):
        with pytest.raises(ModelFileError, match=rf"shape_model={name} needs .*Licence: .*Get it from ") as error:
            registry.build(registry.config_of("shape_model", name, **path), "shape_model")
        assert ("nowhere" in str(error.value)) == bool(path)
    expected = {"flame": "CC-BY-4.0", "bfm": "Basel", "ict_facekit": "MIT", "gnm": "Apache-2.0", "hifi3d": "research"}
    assert expected.get(name, "") in str(error.value)


@pytest.mark.parametrize(
    ("name", "file"),
    [("flame", "x.npz"), ("gnm", "x.npz"), ("hifi3d", "x.mat"), ("bfm", "x.mat"), ("pca_npz", "x.npz")],
)
def test_another_file_is_told_by_what_it_lacks(name, file, tmp_path):
    from scipy.io import savemat

    (np.savez if file.endswith("npz") else lambda path, **a: savemat(path, a))(tmp_path / file, other=np.zeros(3))
    with pytest.raises(ModelFileError, match="lacks"):
        registry.build(registry.config_of("shape_model", name, path=str(tmp_path / file)), "shape_model")


@pytest.mark.parametrize("file", ["x.mat", "x.h5", "x.txt"])
def test_a_file_of_another_format_is_named(file, tmp_path):
    (tmp_path / file).write_bytes(b"nothing of the kind" * 20)
    with pytest.raises(ModelFileError, match=rf"x\.{file[2:]}"):
        registry.build(registry.config_of("shape_model", "bfm", path=str(tmp_path / file)), "shape_model")


def test_ict_facekit_wants_the_folder(tmp_path):
    with pytest.raises(ModelFileError, match="no generic_neutral_mesh"):
        ict_facekit.read(tmp_path)
    folder = face_files.write("ict_facekit", tmp_path)
    (folder / "jawOpen.obj").write_text("v 0 0 0\n")
    with pytest.raises(ModelFileError, match=r"jawOpen\.obj has 1 vertices"):
        ict_facekit.read(folder)


def test_a_wrong_unit_is_found(tmp_path):
    path = face_files.write("gnm", tmp_path)
    arrays = dict(np.load(path))
    scaled = {name: arrays[name] * 0.1 for name in ("template_vertex_positions", "vertex_identity_basis")}
    np.savez(path, **arrays | scaled)
    with pytest.raises(ModelFileError, match=r"expected 75 to 170|check unit and axes"):
        registry.build(registry.config_of("shape_model", "gnm", path=str(path)), "shape_model")


def test_settings_out_of_range_are_refused(tmp_path):
    path = str(face_files.write("hifi3d", tmp_path))
    for setting, value in (("n_identity", 4), ("n_identity", 0), ("n_expression", 5)):
        with pytest.raises(ValueError, match=rf"shape_model.{setting} is {value}, but this model has"):
            registry.build(registry.config_of("shape_model", "hifi3d", path=path, **{setting: value}), "shape_model")


# ---------------------------------------------------------------- pca_npz and the converter


def toy(**changes):
    """A basis of one triangle."""
    arrays = {
        "mean": np.eye(3), "faces": [[0, 1, 2]], "identity_basis": np.ones((2, 3, 3)),
        "expression_basis": np.ones((2, 3, 3)), "expression_names": ("jawOpen", "expression_000"),
        "expression_range": [[0, 1], [-3, 3]],
    }  # fmt: skip
    return FaceBasis(**arrays | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": np.zeros((3, 2))}, r"mean has shape \(3, 2\), expected \(any, 3\)"),
        ({"identity_basis": np.zeros((2, 4, 3))}, r"identity_basis has shape \(2, 4, 3\), expected \(any, 3, 3\)"),
        ({"faces": [[0, 1, 3]]}, "faces names vertices 0 to 3, but the mean has 3"),
        ({"mean": np.full((3, 3), np.nan)}, "mean holds values that are not finite"),
        ({"expression_names": ("a",)}, r"expression_basis has shape \(2, 3, 3\), expected \(1, 3, 3\)"),
        ({"regions": {"nose": np.zeros(2, bool)}}, r"region.nose has shape \(2,\), expected \(3\)"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(changes, message):
    with pytest.raises(ModelFileError, match=message):
        toy(**changes)


def test_a_saved_basis_is_read_as_it_was(tmp_path):
    texts = {"source": "a source", "licence": "a licence"}
    basis = toy(regions={"nose": np.array([True, False, True])}, file_vertices=[4, 0, 2], n_file_vertices=5, **texts)
    read = face_basis.load(face_basis.save(basis, tmp_path / "x.npz"))
    for name, value in vars(basis).items():
        same = np.array_equal(getattr(read, name), value) if isinstance(value, np.ndarray) else None
        assert same in (None, True), name
    for name in ("expression_names", "source", "licence", "n_file_vertices"):
        assert getattr(read, name) == getattr(basis, name)
    assert np.array_equal(read.regions["nose"], basis.regions["nose"])


def test_a_pca_npz_with_objects_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", fitdiff_pca=1, mean=np.array([{}], dtype=object))
    with pytest.raises(ModelFileError, match="npz of plain arrays"):
        face_basis.load(tmp_path / "x.npz")


@pytest.mark.parametrize("damage", ["no zip", "half", "flipped"])
def test_a_damaged_npz_is_named(tmp_path, damage):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, a=np.random.default_rng(0).normal(size=500))
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(
        {
            "no zip": b"PK\x03\x04" + b"0" * 100,
            "half": whole[:middle],
            "flipped": whole[:middle]
            + bytes(255 - byte for byte in whole[middle : middle + 50])
            + whole[middle + 50 :],
        }[damage]
    )
    with pytest.raises(ModelFileError, match=r"x\.npz: cannot be read as an npz of plain arrays: \S"):
        face_basis.read_npz(path)


def test_flames_texture_file_is_named_when_it_lacks_coordinates(tmp_path):
    path = face_files.write("flame", tmp_path)
    np.savez(tmp_path / "FLAME_texture.npz", vt=np.zeros((3, 2)))
    with pytest.raises(ModelFileError, match=r"FLAME_texture\.npz: cannot be read .*ft"):
        flame.read(path)


def test_a_newer_layout_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", fitdiff_pca=2, mean=0, faces=0, identity_basis=0)
    with pytest.raises(ModelFileError, match="layout 2, but this version reads 1"):
        face_basis.load(tmp_path / "x.npz")


@pytest.mark.parametrize("kind", ["flame", "bfm_2017", "ict_facekit"])
def test_a_converted_model_is_the_model(kind, tmp_path):
    name, path, out = kind.split("_20")[0], face_files.write(kind, tmp_path), tmp_path / "model.npz"
    assert "licence: " in convert.convert(name, str(path), str(out))
    first = registry.build(registry.config_of("shape_model", name, path=str(path)), "shape_model")
    second = registry.build(registry.config_of("shape_model", "pca_npz", path=str(out)), "shape_model")
    code, weights = torch.randn(2, first.n_identity), torch.rand(2, first.n_expression)
    # A seam may split in another order, so vertices are compared through the triangles.
    ours, theirs = (m(code, weights)[:, m.topology.faces] for m in (first, second))
    assert torch.allclose(ours, theirs, atol=1e-3)
    assert torch.allclose(first.topology.uv[first.topology.faces], second.topology.uv[second.topology.faces], atol=1e-6)
    assert first.expression_names == second.expression_names
    assert first.n_file_vertices == second.n_file_vertices == len(face_files.truth().mean)
    own = torch.from_numpy(face_files.truth().mean).float()[second.file_vertices]
    assert torch.allclose(own - own.mean(0), second.mean - second.mean.mean(0), atol=1e-2), "the file's vertices"


def test_landmarks_can_be_given_by_hand(tmp_path):
    path, marks = face_files.write("hifi3d", tmp_path), tmp_path / "marks.txt"
    truth = face_files.truth()
    # Not the nearest vertex to each landmark but the next one, so that these cannot be found.
    ids = [int(((truth.mean - mark) ** 2).sum(1).argsort()[1]) for mark in truth.landmarks]
    marks.write_text("\n".join(map(str, ids)))
    convert.convert("hifi3d", str(path), str(tmp_path / "x.npz"), str(marks))
    basis = face_basis.load(tmp_path / "x.npz")
    given = truth.mean[ids]
    assert np.allclose(basis.landmarks() - basis.landmarks().mean(0), given - given.mean(0), atol=1e-2)


@pytest.mark.parametrize("content", ["1 2\n" * 68, "1\n" * 67, "one\n" * 68])
def test_other_landmark_files_are_refused(content, tmp_path):
    (tmp_path / "marks.txt").write_text(content)
    with pytest.raises(ModelFileError, match=r"marks\.txt"):
        read_landmarks(tmp_path / "marks.txt")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "shape_model"),
        (["shape_model=flame", "path=nowhere", "out=x"], "error: shape_model=flame needs"),
        (["shape_model=smpl", "path=x", "out=x"], "expected one of bfm, flame"),
    ],
)
def test_the_converter_says_what_is_wrong(words, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["convert", *words])
    with pytest.raises(SystemExit) as ended:
        convert.main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


# ---------------------------------------------------------------- what the numbers mean


def test_components_of_both_signs_become_two_actions():
    marks = {"landmark_vertices": np.zeros((68, 3)), "landmark_weights": np.full((68, 3), 1 / 3)}
    model = LinearFaceModel(toy(uv=np.eye(3)[:, :2], **marks))
    assert model.expression_names == ("jawOpen", "expression_000", "expression_000_negative")
    moved = model(torch.zeros(3, 2), torch.eye(3)) - model.mean
    assert torch.allclose(moved[:, 0, 0], torch.tensor([1.0, 3.0, -3.0]))


def test_an_incomplete_basis_is_refused():
    with pytest.raises(ModelFileError, match="lacks UVs or landmarks"):
        LinearFaceModel(toy())


@pytest.mark.parametrize(("kind", "reader"), [("gnm", gnm), ("hifi3d", hifi3d), ("ict_facekit", ict_facekit)])
def test_own_units_become_millimetres(kind, reader, tmp_path):
    basis, _ = reader.read(face_files.write(kind, tmp_path))
    truth = face_files.truth()
    assert np.allclose(basis.mean, truth.mean, atol=1e-3)
    assert np.allclose(np.linalg.norm(basis.identity_basis, axis=(1, 2)).sum(), np.linalg.norm(truth.identity, axis=(1, 2)).sum(), rtol=1e-3)  # fmt: skip # noqa: E501
    assert np.allclose(basis.expression_basis[0], truth.expression[np.linalg.norm(truth.expression, axis=(1, 2)).argmax() if kind == "gnm" else 0], atol=2e-3)  # fmt: skip # noqa: E501


def test_bfm_2017_adds_both_means(tmp_path):
    from fitdiff.shape_model import bfm

    basis, _ = bfm.read(face_files.write("bfm_2017", tmp_path))
    assert np.allclose(basis.mean, face_files.truth().mean, atol=1e-4)
    assert np.allclose(basis.identity_basis, face_files.truth().identity, atol=1e-4)


def test_flames_jaw_turns_about_its_joint(tmp_path):
    basis, _ = flame.read(face_files.write("flame", tmp_path))
    truth = face_files.truth()
    assert basis.expression_names[0] == "jawOpen"
    moved = basis.expression_basis[0]
    chin = truth.mean[:, 1] < truth.landmarks[66, 1]
    assert np.abs(moved[~chin]).max() == 0
    assert moved[chin][:, 1].min() < -15, "the chin goes down"
    joint = truth.mean[face_files.jaw_hinge(truth)].mean(0)
    before, after = truth.mean[chin] - joint, truth.mean[chin] + moved[chin] - joint
    assert np.allclose(np.linalg.norm(before, axis=1), np.linalg.norm(after, axis=1), atol=1e-2), "a rotation"


def test_flames_landmark_file_is_used(tmp_path):
    path, truth = face_files.write("flame", tmp_path), face_files.truth()
    rng = np.random.default_rng(0)
    triangles, weights = rng.integers(0, len(truth.faces), 68), rng.dirichlet([1, 1, 1], 68)
    embedding = {"full_lmk_faces_idx": triangles[None], "full_lmk_bary_coords": weights[None]}
    stream = io.BytesIO()
    np.save(stream, np.array(embedding, dtype=object), allow_pickle=True)
    (tmp_path / "landmark_embedding.npy").write_bytes(stream.getvalue())
    basis, _ = flame.read(path)
    expected = (truth.mean[truth.faces[triangles]] * weights[..., None]).sum(1)
    assert np.allclose(basis.landmarks(), expected, atol=1e-3)


def test_matlab_7_3_is_read_like_older_files(tmp_path):
    import h5py
    from scipy.io import savemat

    array = np.arange(6.0).reshape(2, 3)
    savemat(tmp_path / "old.mat", {"a": array})
    with h5py.File(tmp_path / "new.mat", "w", userblock_size=512) as file:
        file["a"] = array.T
    with open(tmp_path / "new.mat", "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124, b" ") + b"\x00\x02IM")
    assert np.array_equal(read_mat(tmp_path / "old.mat")["a"], read_mat(tmp_path / "new.mat")["a"])


def test_an_obj_file_is_read(tmp_path):
    path = tmp_path / "x.obj"
    path.write_text(
        "# x\nv 0 0 0\nv 1 0 0\nv 1 1 0.5\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nvn 0 0 1\n"
        "usemtl a\nf 1/1/1 2/2/1 3/3/1 4/4/1\nusemtl b\nf 4 3 2\n"
    )
    mesh = read_obj(path)
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3], [3, 2, 1]]
    assert mesh.uv_faces.tolist() == [[0, 1, 2], [0, 2, 3], [-1, -1, -1]]
    assert [mesh.materials[m] for m in mesh.material] == ["a", "a", "b"]
    assert np.array_equal(read_obj_vertices(path), mesh.vertices.astype(np.float32))


def test_people_are_made_of_the_embedded_face_only(tmp_path):
    from fitdiff.data.people import People

    path = str(face_files.write("hifi3d", tmp_path))
    model = registry.build(registry.config_of("shape_model", "hifi3d", path=path), "shape_model")
    with pytest.raises(ValueError, match=r"data=people makes people of shape_model=anny_face.* got Hifi3d"):
        People(model, None, None, 64, "x", cache=str(tmp_path))
