"""benchmark=identity and the meshes of photos: real photos through a tiny model; lists of pairs and their mistakes."""

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from rich.console import Console

from fitdiff import FitDiff
from fitdiff.evaluation.benchmark import BenchmarkError, Context
from fitdiff.evaluation.identity_benchmark import Identity
from fitdiff.evaluation.identity_photos import PersonPhoto, all_pairs, find_photos, pair_rows, read_pairs
from fitdiff.evaluation.identity_scores import Embeddings, networks_of
from fitdiff.evaluation.identity_tables import DIFFERENT, FRONTAL, SAME, SCENE, distributions
from fitdiff.evaluation.mesh_files import read_mesh
from fitdiff.evaluation.shipped_photos import SHIPPED
from fitdiff.registry import config_of


@pytest.fixture(scope="module")
def model(tiny_run):
    return FitDiff.load(tiny_run / "model", "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two people, two photos of one of them, and a picture without a face."""
    path = tmp_path_factory.mktemp("people")
    ann, hopper = Image.fromarray(skimage.data.astronaut()), SHIPPED[1].find()
    for person in ("ann", "grace"):
        (path / person).mkdir()
    ann.save(path / "ann" / "1.png")
    ann.crop((60, 0, 420, 360)).save(path / "ann" / "2.png")
    Image.open(hopper).save(path / "grace" / "1.png")
    Image.new("RGB", (64, 64)).save(path / "grace" / "none.png")
    return path


def context_of(model, out):
    choices = {
        "fitting": config_of("fitting", "guided", steps=2, size=96),
        "guidance": {"mse": model.config["guidance"]["mse"]},
    }
    return Context(lambda: model, choices, out, Console(quiet=True), batch=4)


@pytest.fixture(scope="module")
def evaluated(model, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("identity")
    return Identity(path=str(folder))(context_of(model, out)), out


def test_photos_of_one_person_are_alike_and_fits_are_compared_with_them(evaluated):
    evaluation, _ = evaluated
    assert [row["name"] for row in evaluation.rows] == ["ann/1.png", "ann/2.png", "grace/1.png"]
    assert all(-1 <= row[key] <= 1 for row in evaluation.rows for key in ("photo_id", "frontal_to_photo_id"))
    assert evaluation.summary["same_person"] > 0.98 > evaluation.summary["different_people"]
    assert evaluation.summary["photo_id"] == pytest.approx(np.mean([row["photo_id"] for row in evaluation.rows]))
    assert evaluation.summary["not_fitted"] == 1
    notes = " ".join(evaluation.notes)
    assert "Not fitted: grace/none.png: no face" in notes
    assert "No held-out network judged" in notes
    assert [row[4] for row in evaluation.tables["identity"].rows[:4]] == ["2", "1", "3", "3"]  # pairs
    assert [row[2:4] for row in evaluation.tables["verification"].rows] == [["1", "2"]] * 3


def test_fits_are_kept(evaluated, model, folder, monkeypatch):
    first, out = evaluated
    fitted = []
    monkeypatch.setattr("fitdiff.album.album.fit_faces", lambda *a, **k: fitted.append(a))
    again = Identity(path=str(folder))(context_of(model, out))
    assert again.rows == first.rows
    assert fitted == []


def test_a_list_of_pairs_decides_what_is_verified(evaluated, model, folder, tmp_path):
    _, out = evaluated
    (tmp_path / "pairs.txt").write_text(
        "ann/1.png ann/2.png 1\n\nann/1.png\tgrace/1.png\t0\nann/1.png grace/none.png 0\n"
    )
    evaluation = Identity(path=str(folder), pairs=str(tmp_path / "pairs.txt"))(context_of(model, out))
    assert evaluation.tables["verification"].rows[0][2:4] == ["1", "1"]
    assert "1 pairs are left out" in " ".join(evaluation.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png b.png 2", "line 1: got 'a.png b.png 2', expected two photos"),
        ("a.png b.png 1\na.png 1", "line 2"),
        ("a.png c.png 1", "line 1: no photo 'c.png'"),
        (" \n", "is empty"),
    ],
)
def test_a_damaged_list_of_pairs_is_named_by_its_line(tmp_path, text, message):
    (tmp_path / "pairs.txt").write_text(text)
    photos = [PersonPhoto(name, tmp_path / name, name) for name in ("a.png", "b.png")]
    with pytest.raises(BenchmarkError, match=message):
        read_pairs(tmp_path / "pairs.txt", photos)


def test_whose_a_photo_is_its_folder_says(tmp_path):
    for name in ("x.jpg", "y.jpg", "a/1.jpg", "a/2.jpg", "b/c/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    photos = find_photos(tmp_path, tmp_path / "out")
    people = {photo.name: photo.person for photo in photos}
    assert people == {"x.jpg": "x.jpg", "y.jpg": "y.jpg", "a/1.jpg": "a", "a/2.jpg": "a", "b/c/1.jpg": "b/c"}
    pairs = list(all_pairs(photos))
    assert sum(same for *_, same in pairs) == 1
    rows, same, left_out = pair_rows(pairs, {"a/1.jpg": 0, "a/2.jpg": 1, "x.jpg": 2})
    assert sorted(rows) == [(0, 1), (0, 2), (1, 2)]
    assert sum(same) == 1
    assert left_out == 7


def test_a_fit_that_is_its_photo_has_cosine_one_whatever_the_mean():
    rng = np.random.default_rng(0)
    photo, mean = rng.normal(size=(3, 8)) + 5, rng.normal(size=8) + 5
    photos = [PersonPhoto(str(i), None, "ab"[i // 2]) for i in range(3)]
    found = Embeddings(photo, photo, photo[::-1])
    for mean_D in (None, mean):
        scores = distributions(photos, found, None, mean_D)
        np.testing.assert_allclose(scores[SCENE], 1)
        assert (len(scores[SAME]), len(scores[DIFFERENT])) == (1, 2)
        u, v = (photo[0] - (0 if mean_D is None else mean), photo[2] - (0 if mean_D is None else mean))
        expected = u @ v / np.linalg.norm(u) / np.linalg.norm(v)
        assert scores[FRONTAL][0] == pytest.approx(expected)
        assert scores[DIFFERENT][0] == pytest.approx(expected)


def test_the_judge_must_be_another_network_than_the_guide(model):
    assert [network.name for network in networks_of(model, None)] == ["dlib"]
    with pytest.raises(BenchmarkError, match="fits were guided by it"):
        networks_of(model, "dlib")


def test_meshes_are_the_neutral_faces_of_the_fits_in_the_order_of_the_topology(evaluated, model, folder):
    _, out = evaluated
    context = context_of(model, out)
    photos = {name: folder / name for name in ("ann/1.png", "grace/none.png")}
    meshes = context.meshes(photos)
    assert meshes.files == {"ann/1.png": out / "meshes" / "ann" / "1.png.obj"}
    assert "no face" in meshes.failed["grace/none.png"]
    mesh = read_mesh(meshes.files["ann/1.png"])
    z = model.load_faces(out / "fits" / "ann" / "1.png").require_z()
    np.testing.assert_allclose(mesh.vertices, model.vertices(z)[0], atol=1e-4)
    assert np.array_equal(mesh.faces, meshes.topology.faces)
    written = meshes.files["ann/1.png"].stat().st_mtime_ns
    assert context.meshes(photos).files["ann/1.png"].stat().st_mtime_ns == written
    assert torch.equal(z, model.load_faces(out / "fits" / "ann" / "1.png").require_z())
