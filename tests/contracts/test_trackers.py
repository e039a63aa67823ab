"""What every registered tracker promises, read back by its own reader; a new tracker needs one in `tracker_stores`."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tracker_stores
import trimesh

from fitdiff import registry
from fitdiff.tracker import Artifact, TrackedRun, build_trackers
from fitdiff.training.log import Log
from tests.conftest import ROOT
from tests.killed_tracking import SCALARS, STEPS, log_until, tracked

registry.load_plugins()
TRACKERS = [name for name in registry.names("tracker") if name != "none"]
PICTURE = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
ROWS = [{"name": "anna", "mm": 1.5}, {"name": "ben", "mm": 2.25, "cosine": 0.5}]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """One folder of runs for all tests, since a process has one store of Trackio."""
    return tmp_path_factory.mktemp("outputs")


def opened(name, run):
    trackers = build_trackers({name: registry.config_of("tracker", name)})
    trackers.start(run)
    assert list(trackers.trackers) == [name], "it failed"
    return trackers


def test_every_tracker_has_a_reader():
    assert sorted(tracker_stores.READERS) == TRACKERS


@pytest.mark.parametrize("name", TRACKERS)
def test_what_is_logged_is_in_the_store(name, outputs, tmp_path):
    run = TrackedRun(
        outputs / "lambda" / name, f"lambda/{name}", {"seed": 7, "stage": {"rate": 0.125}}, outputs, "train",
        tags=("laptop",), origin={"git": {"commit": "abc123", "changes": None}},
    )  # fmt: skip
    trimesh.creation.box().export(tmp_path / "box.glb")
    folder = tmp_path / "stage"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"weights")
    data, stage = Artifact("data-0a", "data", about={"n": 20}), Artifact("autoencoder-1b", "checkpoint", folder)

    trackers = opened(name, run)
    trackers.log({"diffusion/loss": 0.5, "diffusion/rate": 0.25}, 10)
    trackers.log({"autoencoder/loss": 4.0}, 10)
    trackers.log({"diffusion/loss": 0.125}, 20)
    trackers.log({"diffusion/loss": float("inf"), "autoencoder/loss": float("nan")}, 30)
    trackers.log_images({"diffusion/samples": PICTURE}, 10)
    trackers.log_images({"diffusion/samples": 255 - PICTURE}, 20)
    trackers.log_mesh("model/sample", tmp_path / "box.glb", 0)
    trackers.log_table("people/rows", ROWS)
    trackers.log_artifact(stage, [data])
    trackers.use_artifact(Artifact("model-2c", "model", folder))
    trackers.finish()
    assert list(trackers.trackers) == [name], "it failed"

    store = tracker_stores.READERS[name](run)
    assert store.scalars["diffusion/loss"] == [(10, 0.5), (20, 0.125)]
    assert store.scalars["diffusion/rate"] == [(10, 0.25)]
    assert store.scalars["autoencoder/loss"] == [(10, 4.0)]
    assert [step for step, _ in store.images["diffusion/samples"]] == [10, 20]
    np.testing.assert_array_equal(store.images["diffusion/samples"][0][1], PICTURE)
    np.testing.assert_array_equal(store.images["diffusion/samples"][1][1], 255 - PICTURE)
    box = trimesh.load(tmp_path / "box.glb", force="mesh", process=False)
    size = len(box.vertices) if name == "tensorboard" else (tmp_path / "box.glb").stat().st_size
    assert store.meshes == {"model/sample": size}
    assert [row["name"] for row in store.tables["people/rows"]] == ["anna", "ben"]
    assert [float(row["mm"]) for row in store.tables["people/rows"]] == [1.5, 2.25]
    assert [row["cosine"] for row in store.tables["people/rows"]] in ([None, 0.5], ["", "0.5"])
    assert store.artifacts == {"autoencoder-1b": ["data-0a"]}
    assert store.used >= {"model-2c"}
    assert store.group == "lambda"
    for fact in ("0.125", "abc123"):
        assert fact in store.config


@pytest.mark.parametrize("name", TRACKERS)
def test_a_run_that_continues_has_every_step_once(name, outputs):
    run = TrackedRun(outputs / f"{name}-continued", f"{name}-continued", {"seed": 1}, outputs)
    for steps in ((1, 2, 3), (2, 3, 4)):  # the second session starts at the checkpoint after step 1
        trackers = opened(name, run)
        for step in steps:
            trackers.log({"toy/loss": 1 / step}, step)
            trackers.log_images({"toy/picture": PICTURE + np.uint8(step)}, step)
        trackers.finish()
    store = tracker_stores.READERS[name](run)
    assert [step for step, _ in store.scalars["toy/loss"]] == [1, 2, 3, 4]
    np.testing.assert_allclose([value for _, value in store.scalars["toy/loss"]], [1, 1 / 2, 1 / 3, 1 / 4], rtol=1e-6)
    assert [step for step, _ in store.images["toy/picture"]] == [1, 2, 3, 4]


@pytest.mark.parametrize("name", TRACKERS)
def test_another_config_of_one_name_is_another_run(name, outputs):
    """As a training with another learning rate, or an evaluation that ran again: fewer steps, or the same one."""
    runs = [
        TrackedRun(outputs / f"{name}-changed", f"{name}-changed", {"rate": rate}, outputs, decided_by=f"stage-{rate}")
        for rate in (0.5, 0.25)
    ]
    for run in runs:
        trackers = opened(name, run)
        for step in range(int(8 * run.config["rate"])):
            trackers.log({"toy/loss": run.config["rate"]}, step)
        trackers.finish()
    for run in runs:
        store = tracker_stores.READERS[name](run)
        assert store.scalars["toy/loss"] == [(step, run.config["rate"]) for step in range(int(8 * run.config["rate"]))]
        assert str(run.config["rate"]) in store.config


@pytest.mark.parametrize("name", TRACKERS)
def test_folders_of_one_name_in_one_store_are_two_runs(name, outputs):
    runs = [TrackedRun(outputs / part / f"{name}-twin", f"{name}-twin", {}, outputs) for part in ("a", "b")]
    for value in (1.0, 2.0):
        for index, run in enumerate(runs):
            trackers = opened(name, run)
            trackers.log({"toy/loss": value + index}, int(value))
            trackers.finish()
    for index, run in enumerate(runs):
        assert tracker_stores.READERS[name](run).scalars["toy/loss"] == [(1, 1.0 + index), (2, 2.0 + index)]


@pytest.mark.parametrize("name", TRACKERS)
def test_any_name_will_do(name, outputs):
    odd = f"{name} größe+1"
    run = TrackedRun(outputs / odd, odd, {}, outputs, group=odd, tags=(odd,))
    made = Artifact(f"evaluation-{odd}", "evaluation", about={"mm": 1})
    trackers = opened(name, run)
    trackers.log({"people/größe+mm": 0.5}, 0)
    trackers.log_images({"people/größe+1": PICTURE}, 0)
    trackers.log_table("people/größe+1", ROWS)
    trackers.log_artifact(made, [Artifact("model größe+1", "model")])
    trackers.finish()
    assert list(trackers.trackers) == [name], "it failed"
    store = tracker_stores.READERS[name](run)
    assert [points for key, points in store.scalars.items() if key.startswith("people/gr_e_mm")] == [[(0, 0.5)]]
    assert [len(pictures) for key, pictures in store.images.items() if key.startswith("people/gr_e_1")] == [1]
    assert [len(rows) for key, rows in store.tables.items() if key.startswith("people/gr_e_1")] == [2]
    assert list(store.artifacts) == [made.name]


@pytest.mark.parametrize("name", TRACKERS)
def test_one_that_failed_is_not_in_the_way_of_the_next_run(name, outputs):
    runs = [TrackedRun(outputs / f"{name}-{part}", f"{name}-{part}", {}, outputs) for part in ("fails", "next")]
    trackers = opened(name, runs[0])
    trackers.log({"toy/loss": 1.0}, 1)
    trackers.log_mesh("toy/mesh", outputs / "missing.glb", 1)
    assert not trackers, "it has not failed"
    trackers = opened(name, runs[1])
    trackers.log({"toy/loss": 2.0}, 1)
    trackers.finish()
    stores = [tracker_stores.READERS[name](run) for run in runs]
    assert [store.scalars["toy/loss"] for store in stores] == [[(1, 1.0)], [(1, 2.0)]]
    assert [store.failed for store in stores] in ([True, False], [None, None])


@pytest.mark.parametrize("name", TRACKERS)
def test_a_run_that_was_stopped_is_not_shown_as_finished_until_it_is(name, outputs):
    run = TrackedRun(outputs / f"{name}-stopped", f"{name}-stopped", {}, outputs)
    for end, failed in (("stopped", True), ("finished", False)):
        trackers = opened(name, run)
        trackers.log({"toy/loss": 1.0}, 1)
        trackers.finish(end)
        assert tracker_stores.READERS[name](run).failed in (failed, None)


@pytest.fixture(scope="module")
def killed(outputs):
    """A process that logs to all trackers at once, and is killed while it does."""
    # Else the process would use the service of this one's W&B, which outlives the kill, and has the run open.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_SERVICE")}
    command = [sys.executable, "-m", "tests.killed_tracking", str(outputs), *TRACKERS]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    return outputs


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("name", TRACKERS)
def test_after_a_kill_every_step_is_there_once(name, killed):
    run = tracked(killed)
    trackers = opened(name, run)
    log_until(STEPS, Log(run.folder / f"{name}.jsonl", 8, "toy", trackers), first=9)
    trackers.finish()
    store = tracker_stores.READERS[name](run)
    assert store.scalars["toy/loss"] == [(step, SCALARS[step]) for step in range(1, STEPS + 1)]
