"""REALY: the user's copy, its checks, keypoint tables, statistics, and runs on a folder of an analytic face."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from fitdiff.evaluation.benchmark import BenchmarkError, Context
from fitdiff.evaluation.mesh_files import MeshError, read_mesh, write_mesh
from fitdiff.evaluation.photo_meshes import Meshes
from fitdiff.evaluation.realy import measure as measuring
from fitdiff.evaluation.realy.benchmark import Realy
from fitdiff.evaluation.realy.folder import FolderError, RealyFolder
from fitdiff.evaluation.realy.keypoints import N_KEYPOINTS, REGIONS, RIGID_KEYPOINTS, Keypoints, read_template
from fitdiff.evaluation.realy.published import published_rows
from fitdiff.evaluation.realy.tables import by_view, mean_of_means, statistics, summary, tables
from fitdiff.evaluation.results import latex, markdown, tsv
from fitdiff.registry import build, config_of
from fitdiff.types import Topology
from tests.numerics.realy_heads import grid, keypoints_of, regions_of


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of REALY with two people: an analytic face, and the same with a fuller nose; predictions of the first."""
    root, mesh = tmp_path_factory.mktemp("realy"), grid(25)
    keypoints, generator = keypoints_of(mesh), np.random.default_rng(0)
    bump = np.exp(-(mesh.vertices[:, :2] ** 2).sum(1))[:, None] * [0, 0, 0.5]
    for number, vertices in ((1, mesh.vertices), (2, mesh.vertices + bump)):
        for name, region in regions_of(mesh).items():
            lines = [f"v {x} {y} {z} 0.5 0.4 0.3" for x, y, z in vertices]  # with colours, as scans have them
            lines += [f"f {a}//{a} {b}//{b} {c}//{c}" for a, b, c in region.faces + 1]
            path = root / "REALY_scan_region" / str(number) / f"{name}.obj"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines))
        write_mesh(root / "REALY_HIFI3D_keypoints" / f"{number}.obj", keypoints(vertices), np.empty((0, 3), int))
    (root / "data").mkdir()
    (root / "data" / "metrical_scale.txt").write_text("8.0\n10.0\n")
    write_mesh(root / "data" / "grid.obj", mesh.vertices, mesh.faces)
    corner = [np.argwhere(mesh.faces == v[0])[0] for v in keypoints.corners]
    table = [[int(face), float(side == 0), float(side == 1)] for face, side in corner]
    (root / "data" / "grid.txt").write_text(json.dumps(table))
    for name in ("1", "2", "2_left"):
        moved = 3 * mesh.vertices + generator.standard_normal(3)
        write_mesh(root / "mine" / f"{name}.obj", moved, mesh.faces)
    return root


def context(out: Path) -> Context:
    def refuse() -> None:
        raise AssertionError("predictions need no model")

    return Context(refuse, {}, out, Console(quiet=True))


def options(copy: Path, **more: object) -> dict[str, object]:
    return {"path": str(copy), "predictions": str(copy / "mine"), "topology": "grid", "workers": 1} | more


def test_predictions_are_measured_without_a_model(copy: Path, tmp_path: Path) -> None:
    benchmark = build(config_of("benchmark", "realy", **options(copy)), "benchmark")

    found = benchmark(context(tmp_path))

    same, fuller, side = found.rows
    assert [row["name"] for row in found.rows] == ["1", "2", "2_left"]
    assert all(same[f"{name}_mm"] < 0.05 for name in REGIONS)
    assert fuller["nose_mm"] > 0.5 > 0.05 > fuller["cheek_mm"]
    assert side["nose_mm"] == pytest.approx(fuller["nose_mm"], rel=1e-3)
    assert found.summary["nose_mm"] == pytest.approx((same["nose_mm"] + fuller["nose_mm"]) / 2)
    assert found.summary["nose_mm/side"] == side["nose_mm"]
    assert found.summary["missing"] == 0
    assert any("not measured here" in note for note in found.notes)


def test_the_metrical_scale_is_that_of_the_person(copy: Path, tmp_path: Path) -> None:
    other = shutil.copytree(copy, tmp_path / "copy")
    (other / "data" / "metrical_scale.txt").write_text("8.0\n20.0\n")

    once, twice = (Realy(**options(path))(context(tmp_path / path.name / "out")).rows[1] for path in (copy, other))

    assert twice["nose_mm"] == pytest.approx(2 * once["nose_mm"])


def test_what_is_measured_is_not_measured_again(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Realy(**options(copy))(context(tmp_path))
    calls = []
    real = measuring.region_errors
    monkeypatch.setattr(measuring, "region_errors", lambda *a: calls.append(1) or real(*a))

    assert Realy(**options(copy))(context(tmp_path)).rows == first.rows
    assert not calls

    (tmp_path / "errors" / "2.json").write_text('{"key": "half a fi')
    assert Realy(**options(copy))(context(tmp_path)).rows == first.rows
    assert len(calls) == 1


def test_processes_give_what_one_gives(copy: Path, tmp_path: Path) -> None:
    one, two = (Realy(**options(copy, workers=n))(context(tmp_path / str(n))) for n in (1, 2))
    assert one.rows == two.rows


def test_the_order_in_which_photos_are_done_changes_nothing() -> None:
    errors = {f"{i}{view}": dict.fromkeys(REGIONS, 1 / i) for i in range(1, 40) for view in ("", "_left")}
    sets, again = by_view(errors), by_view(dict(reversed(errors.items())))
    assert sets == again  # lists: in the same order, too
    assert [photo["nose"] for photo in sets["frontal"]] == [1 / i for i in range(1, 40)]
    assert list(sets) == list(again) == ["frontal", "side"]


def test_a_damaged_prediction_costs_its_own_row(copy: Path, tmp_path: Path) -> None:
    other = shutil.copytree(copy, tmp_path / "copy")
    (other / "mine" / "1.obj").write_text("v 1 2 nan\n")
    write_mesh(other / "mine" / "2.obj", np.eye(3), np.array([[0, 1, 2]]))

    found = Realy(**options(other))(context(tmp_path / "out"))

    assert [row["all_mm"] is None for row in found.rows] == [True, True, False]
    reasons = dict(found.tables["missing"].rows)
    assert "keep the template's vertices" in reasons["2"]
    assert "1.obj" in reasons["1"]
    assert found.summary["missing"] == 2


def test_people_without_a_prediction_are_counted_and_listed(copy: Path, tmp_path: Path) -> None:
    other = shutil.copytree(copy, tmp_path / "copy")
    for name in ("2", "2_left"):
        (other / "mine" / f"{name}.obj").unlink()

    found = Realy(**options(other))(context(tmp_path / "out"))

    assert found.tables["missing"].rows == [["2", "no photo or prediction"]]
    assert "nose_std_mm" not in found.summary  # of one photo


def test_a_checkpoints_fits_use_the_landmarks_of_their_shape_model(copy: Path, tmp_path: Path) -> None:
    other, mesh = shutil.copytree(copy, tmp_path / "copy"), grid(25)
    keypoints = keypoints_of(mesh)
    hidden = torch.zeros(len(mesh.vertices), dtype=torch.bool)
    topology = Topology(
        torch.from_numpy(mesh.faces), torch.zeros(len(mesh.vertices), 2), torch.from_numpy(keypoints.corners[:68]),
        torch.from_numpy(keypoints.weights[:68]).float(), {"inner_mouth": hidden},
    )  # fmt: skip
    for name in ("1", "2"):
        (other / "REALY_image").mkdir(exist_ok=True)
        (other / "REALY_image" / f"{name}.jpg").write_bytes(b"")
    asked: list[str] = []

    class Fitted(Context):
        model = type("Model", (), {"shape_model": type("Shape", (), {"topology": topology})})()

        def meshes(self, photos):  # type: ignore[no-untyped-def]
            asked.extend(photos)
            return Meshes({"1": other / "mine" / "1.obj"}, {"2": "no face"}, topology)

    found = Realy(path=str(other), workers=1)(Fitted(lambda: None, {}, tmp_path / "out", Console(quiet=True)))

    assert asked == ["1", "2"]
    assert found.rows[0]["all_mm"] < 0.1
    assert found.rows[1]["all_mm"] is None
    assert found.tables["missing"].rows == [["2", "no face"]]
    assert any("68-84" in note for note in found.notes)


def test_all_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "REALY_scan_region" / "1").mkdir(parents=True)
    with pytest.raises(FolderError) as error:
        RealyFolder.open(tmp_path)
    for words in ("REALY_HIFI3D_keypoints", "1/nose.obj", "1/cheek.obj", "metrical_scale.txt", "realy3dface.com"):
        assert words in str(error.value)


def test_a_missing_folder_template_or_photo_says_what_to_do(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"not a folder.*given out by its authors"):
        RealyFolder.open(tmp_path / "nowhere")
    folder = RealyFolder.open(copy)
    with pytest.raises(FolderError, match=r"FLAME.*here are grid"):
        folder.template("FLAME")
    with pytest.raises(FolderError, match=r"benchmark\.images=DIR"):
        folder.photos(None)
    with pytest.raises(FolderError, match="no photos named"):
        folder.photos("data")
    with pytest.raises(FolderError, match=r"lacks mine/1\.obj, the photos to fit"):
        folder.photos("mine/1.obj")


def test_photos_may_lie_beside_the_user(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "2.jpg").write_bytes(b"")
    assert list(RealyFolder.open(copy).photos("photos")) == ["2"]


def test_a_prediction_that_cannot_be_opened_costs_its_own_row(copy: Path, tmp_path: Path) -> None:
    other = shutil.copytree(copy, tmp_path / "copy")
    (other / "mine" / "1.obj").unlink()
    (other / "mine" / "1.obj").symlink_to("nowhere.obj")

    found = Realy(**options(other))(context(tmp_path / "out"))

    assert "1.obj: cannot be read" in dict(found.tables["missing"].rows)["1"]
    assert [row["all_mm"] is None for row in found.rows] == [True, False, False]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"path": "???"}, "realy.synthetic"),
        ({"topology": None}, "benchmark.topology"),
        ({"workers": 0}, "workers=0"),
        ({"predictions": "/nowhere"}, "is no folder"),
    ],
)
def test_wrong_options_are_refused_before_any_work(copy: Path, tmp_path: Path, more: dict, message: str) -> None:
    with pytest.raises((ValueError, BenchmarkError), match=message):
        Realy(**options(copy, **more))(context(tmp_path))


def test_a_template_gives_barycentric_keypoints(copy: Path, tmp_path: Path) -> None:
    mesh, table = tmp_path / "t.obj", tmp_path / "t.txt"
    write_mesh(mesh, np.array([[0, 0, 0], [4, 0, 0], [0, 8, 0.0]]), np.array([[0, 1, 2]]))
    table.write_text(json.dumps([[0, 0.5, 0.25]] * N_KEYPOINTS))

    keypoints = read_template(mesh, table)

    np.testing.assert_allclose(keypoints(read_mesh(mesh).vertices), np.tile([1, 2, 0.0], (85, 1)))
    assert keypoints.unknown == ""
    for text, message in (("[[0, 1, 0]]", r"85 x"), (json.dumps([[7, 0, 0]] * 85), "another topology"), ("{", "read")):
        table.write_text(text)
        with pytest.raises(MeshError, match=message):
            read_template(mesh, table)


def test_the_keypoints_of_each_region_are_as_many_as_the_benchmark_has() -> None:
    assert {name: len(set(ids)) for name, ids in RIGID_KEYPOINTS.items()} == {
        "nose": 11, "mouth": 14, "forehead": 22, "cheek": 27,
    }  # fmt: skip


def test_unknown_keypoints_are_told_as_runs() -> None:
    weights = np.ones((85, 3))
    weights[[3, 70, 71, 72, 84]] = np.nan
    assert Keypoints(np.zeros((85, 3), int), weights, 1).unknown == "3, 70-72, 84"


def test_statistics_are_those_of_numpy() -> None:
    errors = {str(i): {name: float(i + k) for k, name in enumerate(REGIONS)} for i in (1, 2, 6)}
    sets = by_view(errors)
    assert statistics(sets["frontal"])["mouth"] == pytest.approx((4, 3, np.std([2, 3, 7], ddof=1)))
    assert mean_of_means(sets["frontal"]) == pytest.approx(np.mean([3, 4, 5, 6]))
    assert summary(sets)["all_mm"] == pytest.approx(4.5)


def test_published_rows_stand_beside_ours_and_are_marked() -> None:
    ours = tables("mine", by_view({"1": dict.fromkeys(REGIONS, 1.5)}), published=True)
    assert len(published_rows()) == 16
    assert {len(line) for line in published_rows()} == {14}
    for table in ours.values():
        assert {len(line) for line in (*table.rows, *table.published)} == {len(table.header)}
        for text in (markdown(table), tsv(table), latex(table)):
            assert text.index("mine") < text.index("HiFace-f")
            assert text.count("as published") >= 16


@pytest.mark.parametrize("line", [x for x in published_rows() if x[0] != "PSL"], ids=lambda line: line[0])
def test_published_means_agree_with_the_published_mean_of_all(line: list[str]) -> None:
    """Guards the copying. Not so for PSL: the paper prints its nose's mean again as its mouth's."""
    means = np.mean([float(x) for x in line[1:13:3]])
    assert means == pytest.approx(float(line[13]), abs=0.02)
