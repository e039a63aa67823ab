"""evaluate.py as a user calls it: people by fits of unknown scenes, and the same command again."""

import json

from tests.conftest import run

FAST = ["guidance=[id_cos,mse]", "fitting=guided", "fitting.steps=2", "fitting.size=96"]


def test_people_are_fitted_and_the_same_command_fits_nothing_anew(tiny_run, tmp_path):
    command = [
        "evaluate.py", "benchmark=people", "benchmark.n=2", "benchmark.methods=[mean_face,fit]", "batch=2",
        f"checkpoint={tiny_run / 'model'}", f"outputs={tmp_path}", "device=cpu", "factors={mse: 0.5}", *FAST,
    ]  # fmt: skip
    done = run(*command)
    (out,) = (tmp_path / "evaluations").iterdir()
    assert out.name.startswith("people-tiny-")
    assert f"results: {out}" in done.stderr
    results = json.loads((out / "results.json").read_text())
    assert results["config"]["guidance"]["mse"]["weight"] == 5
    assert results["checkpoint"] == str(tiny_run / "model")
    assert len(results["rows"]) == 2
    fitted = [row for row in results["rows"] if row.get("shape_mm") is not None]
    assert len(fitted) == results["summary"]["faces_found"] > 0
    assert all(row["shape_mm"] > 0 and row["mean_face/shape_mm"] > 0 for row in fitted)
    parts = {path: path.stat().st_mtime_ns for path in (out / "parts").iterdir()}
    run(*command)
    assert {path: path.stat().st_mtime_ns for path in (out / "parts").iterdir()} == parts
    again = json.loads((out / "results.json").read_text())
    assert (again["rows"], again["config_hash"]) == (results["rows"], results["config_hash"])
