"""`benchmark=now` on a small folder in NoW's layout: what it needs, what it finds, and what it goes on from."""

import io
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from fitdiff.evaluation.benchmark import BenchmarkError, Context
from fitdiff.evaluation.mesh_files import write_mesh
from fitdiff.evaluation.now import benchmark as now_benchmark
from fitdiff.evaluation.now import scores as now_scores
from fitdiff.evaluation.now.alignment import IBUG
from fitdiff.evaluation.now.benchmark import Now
from fitdiff.evaluation.now.folder import (
    NowError,
    NowFileError,
    NowFolder,
    find_prediction,
    read_landmarks,
    read_picked_points,
    write_landmarks,
)
from fitdiff.evaluation.now.scores import cumulative, pooled
from fitdiff.evaluation.now.synthetic import write_picked_points
from fitdiff.evaluation.photo_meshes import Meshes
from fitdiff.registry import ComponentError, build, config_of
from fitdiff.types import Topology
from tests.numerics.now_heads import head, seven, somewhere

VERTICES, FACES = head()
POINTS = seven(VERTICES)
KEYS = ["ann/multiview_neutral/IMG_1", "ann/selfie/IMG_2", "bob/selfie/IMG_1"]
OFFSET = 0.7
"""mm by which the vertices of every scan lie beside the head, outwards and inwards by turns."""


@pytest.fixture
def folder(tmp_path):
    """Two subjects, three images, scans with colours and a degenerate triangle."""
    path = tmp_path / "now"
    for seed, subject in enumerate(("ann", "bob")):
        place, unit = somewhere(seed), VERTICES / np.linalg.norm(VERTICES, axis=1, keepdims=True)
        sign = np.random.default_rng(seed).choice([-1.0, 1.0], (len(VERTICES), 1))
        faces = np.concatenate([FACES, [[5, 5, 5], [1, 2, 1]]])
        scan = path / "scans" / subject / "scan.obj"
        write_mesh(scan, place(VERTICES + OFFSET * sign * unit), faces, np.full_like(VERTICES, 0.5))
        write_picked_points(path / "scans_lmks_onlypp" / subject / "scan.pp", place(POINTS))
    for key in KEYS:
        photo = path / "iphone_pictures" / f"{key}.jpg"
        photo.parent.mkdir(parents=True, exist_ok=True)
        photo.write_bytes(b"photo")
    (path / "imagepathsvalidation.txt").write_text("".join(f"NoW/{key}.jpg\n" for key in KEYS) + "\n")
    return path


@pytest.fixture
def predictions(tmp_path):
    """The head itself for every image, in metres, somewhere else, as OBJ with .npy and PLY with .txt."""
    path = tmp_path / "predictions"
    for seed, key in enumerate(KEYS):
        place = somewhere(10 + seed, 1e-3)
        write_mesh(path / f"{key}.{'ply' if seed else 'obj'}", place(VERTICES), FACES)
        if seed:
            np.savetxt(path / f"{key}.txt", place(POINTS))
        else:
            write_landmarks(path / f"{key}.npy", place(POINTS))
    return path


def context(out) -> Context:
    def no_model():
        raise AssertionError("predictions need no model")

    return Context(no_model, {}, out, Console(file=io.StringIO()))


def test_figures_by_challenge_and_all_together(folder, predictions, tmp_path):
    found = Now(path=str(folder), predictions=str(predictions), workers=1)(context(tmp_path / "out"))
    assert [row["name"] for row in found.rows] == KEYS
    # Moved along the rays from the head's middle, so by a little less along the normals.
    assert found.summary["median_mm"] == pytest.approx(OFFSET, rel=0.1)
    assert found.summary["images"] == 3
    assert found.summary["missing"] == 0
    table = found.tables["now"]
    assert [row[0] for row in table.rows] == ["multiview_neutral", "selfie", "all"]
    assert [row[4] for row in table.rows] == ["1", "2", "3"]
    assert found.rows[0]["scale"] == pytest.approx(1000, rel=1e-2)
    shares = [float(row[-1]) for row in found.tables["cumulative"].rows]
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert found.pictures["cumulative"].axes[0].get_xlim() == (0, 8)


def test_metrical_counts_the_size(folder, predictions, tmp_path):
    now = Now(path=str(folder), predictions=str(predictions), metrical=True, unit="m", workers=1)
    found = now(context(tmp_path / "right"))
    assert found.summary["median_mm"] == pytest.approx(OFFSET, rel=0.1)
    assert found.rows[0]["scale"] == 1000
    assert "their size counts (1 unit is 1000 mm)" in found.notes[0]
    write_mesh(predictions / f"{KEYS[0]}.obj", VERTICES * 1.15e-3, FACES)
    write_landmarks(predictions / f"{KEYS[0]}.npy", POINTS * 1.15e-3)
    assert now(context(tmp_path / "large")).rows[0]["mean_mm"] > 1.5 * found.rows[0]["mean_mm"]


def test_missing_and_damaged_predictions_are_listed_and_not_scored(folder, predictions, tmp_path):
    (predictions / f"{KEYS[0]}.obj").unlink()
    (predictions / f"{KEYS[1]}.txt").write_text("1 2 3\n")
    found = Now(path=str(folder), predictions=str(predictions), workers=1)(context(tmp_path / "out"))
    assert found.summary["missing"] == 2
    assert [row["median_mm"] is None for row in found.rows] == [True, True, False]
    reasons = dict(found.tables["missing"].rows)
    assert "no mesh" in reasons[KEYS[0]]
    assert "shape (1, 3), expected (7, 3)" in reasons[KEYS[1]]
    alone = Now(path=str(folder), predictions=str(predictions), workers=1)(context(tmp_path / "again"))
    assert found.summary["median_mm"] == alone.summary["median_mm"] == found.rows[2]["median_mm"]
    for key in KEYS[1:]:
        (predictions / f"{key}.ply").unlink()
    with pytest.raises(BenchmarkError, match="none of 3 images has a prediction"):
        Now(path=str(folder), predictions=str(predictions), workers=1)(context(tmp_path / "out"))


def test_goes_on_from_what_is_there_and_measures_changed_files_anew(folder, predictions, tmp_path, monkeypatch):
    measured = []
    real = now_scores.score
    monkeypatch.setattr(now_scores, "score", lambda *given: measured.append(1) or real(*given))
    now = Now(path=str(folder), predictions=str(predictions), workers=1)
    first = now(context(tmp_path / "out"))
    damaged = next((tmp_path / "out" / "distances").rglob("*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    again = now(context(tmp_path / "out"))
    assert len(measured) == 3 + 1
    assert again.rows == first.rows
    write_mesh(predictions / f"{KEYS[2]}.ply", head(nose=25.0)[0], FACES)
    write_landmarks(predictions / f"{KEYS[2]}.npy", POINTS)
    changed = now(context(tmp_path / "out"))
    assert len(measured) == 5
    assert changed.rows[2]["mean_mm"] > first.rows[2]["mean_mm"] + 0.03
    Now(path=str(folder), predictions=str(predictions), metrical=True, workers=1)(context(tmp_path / "out"))
    assert len(measured) == 8


def _elsewhere(sent):
    function, job = pickle.loads(sent)
    return pickle.loads(pickle.dumps(function(*job)))


def test_processes_change_nothing(folder, predictions, tmp_path, monkeypatch):
    """Threads stand in for processes, which take long to start; what they get and give is pickled all the same."""

    class Pool(ThreadPoolExecutor):
        def submit(self, function, *job):
            sent = pickle.dumps((function, job))
            return super().submit(_elsewhere, sent)

    monkeypatch.setattr(now_scores, "worker_processes", lambda n, start: Pool(n))

    def rows(n):
        return Now(path=str(folder), predictions=str(predictions), workers=n)(context(tmp_path / str(n))).rows

    assert rows(2) == rows(1)


def fitted(model_context, folder, tmp_path, failed):
    """Stands in for fits: the head as `Context.meshes` would write it."""
    landmarks = torch.zeros(68, 3, dtype=torch.int64)
    landmarks[list(IBUG), 0] = torch.tensor([int(np.argmin(np.linalg.norm(VERTICES - p, axis=1))) for p in POINTS])
    topology = Topology(
        torch.from_numpy(FACES), torch.zeros(len(VERTICES), 2), landmarks, torch.tensor([[1.0, 0, 0]]).repeat(68, 1)
    )

    def meshes(photos):
        paths = {key: model_context.out / "meshes" / f"{key}.obj" for key in photos if key not in failed}
        return Meshes({key: write_mesh(path, VERTICES, FACES) for key, path in paths.items()}, failed, topology)

    model_context.meshes = meshes
    return model_context


def test_fits_get_their_landmarks_and_failed_photos_their_reason(folder, tmp_path):
    asked = fitted(context(tmp_path / "out"), folder, tmp_path, {KEYS[1]: "no face was found"})
    found = Now(path=str(folder), workers=1)(asked)
    assert found.summary["images"] == 2
    assert found.tables["missing"].rows == [[KEYS[1], "no face was found"]]
    np.testing.assert_allclose(read_landmarks(tmp_path / "out" / "meshes" / f"{KEYS[0]}.npy"), POINTS, atol=1e-5)
    assert found.rows[0]["scale"] == pytest.approx(1, abs=0.01)


def test_a_mesh_of_an_earlier_run_does_not_stand_in_for_a_photo_that_fails_now(folder, tmp_path):
    Now(path=str(folder), workers=1)(fitted(context(tmp_path / "out"), folder, tmp_path, {}))
    asked = fitted(context(tmp_path / "out"), folder, tmp_path, {KEYS[0]: "no face was found"})
    found = Now(path=str(folder), workers=1)(asked)
    assert found.tables["missing"].rows == [[KEYS[0], "no face was found"]]
    assert found.rows[0]["median_mm"] is None
    # Its challenge has no other image: the table says so, rather than leave it out.
    assert found.tables["now"].rows[0] == ["multiview_neutral", "", "", "", "0", "1"]
    with pytest.raises(BenchmarkError, match="of ann/multiview_neutral/IMG_1: no face"):
        Now(path=str(folder), workers=1)(
            fitted(context(tmp_path / "out"), folder, tmp_path, dict.fromkeys(KEYS, "no face"))
        )


def test_submission_is_a_folder_of_meshes_and_landmarks_and_needs_no_scans(folder, tmp_path):
    (folder / "scans").rename(tmp_path / "kept by the organisers")
    (folder / "imagepathsvalidation.txt").rename(folder / "imagepathstest.txt")
    asked = fitted(context(tmp_path / "out"), folder, tmp_path, {KEYS[1]: "no face was found"})
    found = Now(path=str(folder), submission=True)(asked)
    submission = tmp_path / "out" / "submission"
    files = sorted(str(path.relative_to(submission)) for path in submission.rglob("*.*"))
    assert files == sorted(f"{key}{suffix}" for key in (KEYS[0], KEYS[2]) for suffix in (".obj", ".npy"))
    assert np.load(submission / f"{KEYS[0]}.npy").shape == (7, 3)
    assert [row["written"] for row in found.rows] == [1, 0, 1]
    assert found.summary == {"images": 3, "missing": 1}
    assert str(submission) in found.notes[0]


def test_everything_that_is_missing_is_named_at_once(folder):
    (folder / "scans" / "ann" / "scan.obj").unlink()
    (folder / "scans" / "bob" / ".hidden.obj").write_text("left by a Mac")
    (folder / "scans_lmks_onlypp" / "bob" / "scan.pp").unlink()
    (folder / "iphone_pictures" / f"{KEYS[2]}.jpg").unlink()
    with pytest.raises(NowError) as caught:
        NowFolder.open(folder)
    for part in (
        f"1 photos are missing ({KEYS[2]}.jpg)",
        "*.obj are missing (ann)",
        "*.pp are missing (bob)",
        "register",
    ):
        assert part in str(caught.value)
    assert NowFolder.open(folder, scans=False, photos=False).subjects == ("ann", "bob")


def test_a_list_may_lie_beside_the_user(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few.txt").write_text(f"{KEYS[2]}.jpg\n")
    assert NowFolder.open(folder, "few.txt").subjects == ("bob",)


def test_two_scans_of_a_subject_are_told(folder):
    (folder / "scans" / "ann" / "other.obj").write_text("v 0 0 0\n")
    with pytest.raises(NowError, match=r"more than one \*\.obj in \['scans/ann'\]"):
        NowFolder.open(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no images"),
        ("selfie/IMG_1.jpg\n", "expected <subject>/<challenge>/<image>"),
        ("../selfie/IMG_1.jpg\n", "expected <subject>/<challenge>/<image>"),
        ("ann/selfie/a.jpg\nann/selfie/a.png\n", "share a prediction's name"),
    ],
)
def test_lists_that_are_none(folder, text, message):
    (folder / "imagepathsvalidation.txt").write_text(text)
    with pytest.raises(NowError, match=message):
        NowFolder.open(folder)


def test_folder_that_is_none_says_where_one_applies(tmp_path):
    with pytest.raises(NowError, match=r"which is no folder.*register on the benchmark's site"):
        NowFolder.open(tmp_path / "gone")
    with pytest.raises(NowError, match=r"has no imagepathsvalidation\.txt"):
        NowFolder.open(tmp_path)


def test_a_damaged_scan_ends_the_benchmark(folder, predictions, tmp_path):
    (folder / "scans" / "bob" / "scan.obj").write_text("v 1 2\n")
    now = Now(path=str(folder), predictions=str(predictions), workers=1)
    with pytest.raises(NowError, match=r"bob.*scan\.obj: line 1 .* Copy it again"):
        now(context(tmp_path / "out"))
    write_mesh(folder / "scans" / "bob" / "scan.obj", VERTICES + 1e4, FACES)
    with pytest.raises(NowError, match=r"none of 2562 vertices is near the landmarks"):
        now(context(tmp_path / "out"))


def test_picked_points_that_were_not_picked_do_not_count(tmp_path):
    path = tmp_path / "scan.pp"
    write_picked_points(path, POINTS)
    np.testing.assert_array_equal(read_picked_points(path), POINTS)
    path.write_text(path.read_text().replace('active="1"', 'active="0"', 1))
    with pytest.raises(NowFileError, match=r"shape \(6, 3\), expected \(7, 3\)"):
        read_picked_points(path)
    path.write_text("no XML")
    with pytest.raises(NowFileError, match="cannot be read as MeshLab's picked points"):
        read_picked_points(path)


def test_landmark_files(tmp_path):
    np.savetxt(tmp_path / "a.txt", POINTS, delimiter=",")
    np.testing.assert_allclose(read_landmarks(tmp_path / "a.txt"), POINTS)
    np.save(tmp_path / "b.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(NowFileError, match=r"b\.npy: cannot be read as numbers"):
        read_landmarks(tmp_path / "b.npy")
    with pytest.raises(NowFileError, match="no mesh"):
        find_prediction(tmp_path, "a")
    write_mesh(tmp_path / "c.obj", VERTICES, FACES)
    with pytest.raises(NowFileError, match=r"no landmarks \(c with \.npy or \.txt\)"):
        find_prediction(tmp_path, "c")


def test_pooled_counts_every_vertex_once():
    groups = [np.array([1, 1, 1, 1], np.float32), np.array([5], np.float32)]
    assert pooled(groups) == {"median": 1, "mean": pytest.approx(9 / 5), "std": pytest.approx(1.6)}
    assert pooled([]) == {"median": None, "mean": None, "std": None}
    np.testing.assert_array_equal(cumulative(groups, np.array([0.5, 1, 4.9, 5])), [0, 80, 80, 100])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs benchmark.path=DIR"),
        ({"path": "x", "unit": "inch"}, "benchmark.unit='inch': give one of mm, cm, m"),
        ({"path": "x", "submission": True, "predictions": "y"}, "leave benchmark.predictions out"),
        ({"path": "x", "workers": 0}, "benchmark.workers=0"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(ComponentError, match=message):
        build(config_of("benchmark", "now", **options), "benchmark")


def test_predictions_folder_that_is_none(folder, tmp_path):
    with pytest.raises(BenchmarkError, match=r"benchmark\.predictions=.* is no folder"):
        Now(path=str(folder), predictions=str(tmp_path / "gone"))(context(tmp_path / "out"))


def test_alignments_that_did_not_settle_are_told():
    score = now_scores.Score(np.ones(3, np.float32), 1.0, True)
    assert now_benchmark._unconverged({"a": score}) == []
    assert (
        "of 1 images did not settle: b"
        in now_benchmark._unconverged({"a": score, "b": replace(score, converged=False)})[0]
    )
