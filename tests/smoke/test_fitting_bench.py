"""experiments/fitting end to end on a model that has learnt nothing."""

import json

from tests.conftest import ROOT, run

FAST = "guidance=[id_cos,mse] fitting=guided fitting.steps=2 fitting.size=96"


def test_the_bench_fits_scores_and_goes_on(tiny_run, tmp_path):
    command = [
        "-m", "experiments.fitting.bench", f"run={tiny_run}", f"out={tmp_path}", "n=2", "batch=2", "photos=false",
        f"preset={FAST}", "methods=[mean face,landmarks,guided without mse]", "device=cpu",
    ]  # fmt: skip
    readme = (ROOT / "experiments" / "fitting" / "README.md").read_text()
    run(*command)
    table, results = (tmp_path / "unknown" / name for name in ("table.md", "results.json"))
    scores = json.loads(results.read_text())["scores"]
    assert list(scores) == ["mean face", "landmarks", "guided", "guided without mse"]
    for row in scores.values():
        assert all(value > 0 for value in row["shape_mm"] + row["true_landmarks"] + row["diffuse_db"])
        assert all(-1 <= value <= 1 for value in row["novel_id"] + row["photo_id"])
    # What has no photo's skin to go by is the mean: the classical fit changes shape alone.
    assert scores["mean face"]["diffuse_db"] == scores["landmarks"]["diffuse_db"]
    assert scores["mean face"]["shape_mm"] != scores["landmarks"]["shape_mm"]
    assert "guided against" in table.read_text()
    assert (tmp_path / "unknown" / "people.jpg").stat().st_size > 1000
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "fits").iterdir()}
    run(*command)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "fits").iterdir()} == stored
    assert json.loads(results.read_text())["scores"] == scores
    assert (ROOT / "experiments" / "fitting" / "README.md").read_text() == readme


def test_what_is_given_is_not_wrong(tiny_run, tmp_path):
    given = '[nothing,"whole scene and landmarks",shape]'
    run(
        "-m", "experiments.fitting.oracle", f"run={tiny_run}", f"out={tmp_path}", "n=1", f"preset={FAST}",
        f"given={given}",
    )  # fmt: skip
    results = json.loads((tmp_path / "oracle.json").read_text())
    assert results["shape"]["shape_mm"][0] < 1e-3 < results["nothing"]["shape_mm"][0]
    assert results["whole scene and landmarks"]["light_degrees"][0] < 0.05
    assert results["whole scene and landmarks"]["light_stops"][0] < 1e-3 < results["nothing"]["light_stops"][0]
