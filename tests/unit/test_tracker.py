import importlib.util
import json

import numpy as np
import pytest
from PIL import Image

from fitdiff.registry import ComponentError, build, config_of
from fitdiff.tracker import Artifact, NoTracker, TrackedRun, Tracker, Trackers, build_trackers
from fitdiff.tracker.base import columns, goal, leaves
from fitdiff.tracker.runs import log_evaluation, model_artifact
from fitdiff.training.interruption import InterruptedRun
from fitdiff.training.tracking import show_stage
from tests.smoke.test_configs import composed


class Recorder(Tracker):
    """Keeps what it gets; `known` is what its store has before."""

    def __init__(self, **known):
        self.known, self.calls = {name.replace("__", "/"): step for name, step in known.items()}, []

    def logged(self):
        return self.known

    def __getattribute__(self, name):
        if name.startswith(("log_", "use_", "start", "finish")) or name == "log":
            return lambda *arguments: self.calls.append((name, *arguments))
        return super().__getattribute__(name)

    def of(self, name):
        return [call[1:] for call in self.calls if call[0] == name]


class Broken(Recorder):
    def log(self, scalars, step): ...

    def __getattribute__(self, name):
        if name == "log":
            raise OSError("the disk\nis full")
        return super().__getattribute__(name)


RUN = TrackedRun("folder", "experiment/variant-s0", {"seed": 0})


def test_one_that_fails_is_told_of_once_and_the_others_go_on(capsys):
    well = Recorder()
    trackers = Trackers({"broken": Broken(), "well": well})
    trackers.start(RUN)
    for step in (1, 2):
        trackers.log({"a/loss": 0.5}, step)
    trackers.finish()
    assert [step for _, step in well.of("log")] == [1, 2]
    told = capsys.readouterr().err
    assert told.count("tracker=broken failed and is left out of the rest of this run (OSError: the disk is full)") == 1


def test_a_request_to_stop_is_no_failure():
    class Interrupted(Tracker):
        def log_images(self, images, step):
            raise InterruptedRun

    trackers = Trackers({"interrupted": Interrupted()})
    with pytest.raises(InterruptedRun):
        trackers.log_images({"a/picture": np.zeros((2, 2, 3), np.uint8)}, 1)
    assert trackers


def test_each_store_gets_what_it_lacks():
    full, empty = Recorder(a__loss=3, a__rate=2), Recorder()
    trackers = Trackers({"full": full, "empty": empty})
    trackers.start(RUN)
    for step in (2, 3, 4):
        trackers.log({"a/loss": step / 8, "a/rate": 1.0}, step)
    assert full.of("log") == [({"a/rate": 1.0}, 3), ({"a/loss": 0.5, "a/rate": 1.0}, 4)]
    assert [step for _, step in empty.of("log")] == [2, 3, 4]
    assert trackers.logged() == {"a/loss": 4, "a/rate": 4}


def test_numbers_that_are_not_finite_are_left_out():
    store = Recorder()
    trackers = Trackers({"store": store})
    trackers.start(RUN)
    trackers.log({"a/loss": float("nan"), "a/rate": 0.5, "a/norm": float("-inf")}, 1)
    trackers.log({"a/loss": float("nan")}, 2)
    assert store.of("log") == [({"a/rate": 0.5}, 1)]


def test_none_is_no_tracker():
    assert not Trackers({"none": NoTracker()})
    assert Trackers({"none": NoTracker(), "other": Recorder()})


def test_several_are_chosen_and_set_on_the_command_line():
    config = composed("tracker=[wandb,trackio]", "tracker.wandb.project=mine", "tracker.trackio.group=a")
    assert sorted(config.tracker) == ["trackio", "wandb"]
    chosen = build_trackers(config.tracker).trackers
    assert chosen["wandb"].settings["project"] == "mine"
    assert chosen["trackio"].group == "a"
    assert not build_trackers(composed("tracker=none").tracker)
    with pytest.raises(Exception, match=r"Available options(?s:.*)tensorboard"):
        composed("tracker=comet")


@pytest.mark.parametrize(
    ("name", "package", "install"),
    [("trackio", "trackio", "trackio"), ("mlflow", "mlflow", "mlflow-skinny"), ("tensorboard",) * 3],
)
def test_a_missing_package_says_what_to_install(monkeypatch, name, package, install):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked: None if asked == package else find(asked))
    with pytest.raises(ComponentError, match=rf"{package} is missing: pip install {install} .*fitdiff\[trackers\]"):
        build(config_of("tracker", name), "tracker")


def test_a_wrong_mode_is_named():
    with pytest.raises(ComponentError, match=r"tracker.wandb.mode is 'on'; expected auto, online or offline"):
        build(config_of("tracker", "wandb", mode="on"), "tracker")


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("diffusion/held_out/noise_loss", "min"), ("people/shape_mm", "min"), ("realy/nose_mm", "min"),
        ("autoencoder/held_out/psnr_diffuse", "max"), ("identity/cosine", "max"), ("diffusion/learning_rate", None),
    ],
)  # fmt: skip
def test_which_way_a_metric_is_better(name, way):
    assert goal(name) == way


def test_a_run_is_known_by_its_folder_and_compared_within_its_experiment(tmp_path):
    run = TrackedRun(tmp_path / "a", "lambda/off-s1", {"seed": 1}, tmp_path, origin={"git": {"commit": "f00"}})
    assert run.identifier == TrackedRun(tmp_path / "b" / ".." / "a", "other", {}).identifier
    assert run.identifier != TrackedRun(tmp_path / "b", "lambda/off-s1", {}).identifier
    assert run.compared_with == "lambda"
    assert TrackedRun(tmp_path, "alone", {}).compared_with is None
    assert TrackedRun(tmp_path, "lambda/off", {}, group="mine").compared_with == "mine"
    assert run.settings == {"seed": 1, "origin": {"git": {"commit": "f00"}}}
    assert run.shared("trackio") == (tmp_path / "dashboards" / "trackio").resolve()


def test_configs_and_tables_are_flattened():
    assert dict(leaves({"a": {"b": 1, "c": {}}, "d": [1]})) == {"a.b": 1, "a.c": {}, "d": [1]}
    assert columns([{"name": "x", "mm": 1}, {"name": "y", "cosine": 2}]) == ["name", "mm", "cosine"]


def test_an_artifact_is_the_files_of_its_folder(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"abc")
    (tmp_path / ".lock").touch()
    (tmp_path / "step-1").mkdir()
    made = Artifact("stage-1", "checkpoint", tmp_path).describe([Artifact("data-0", "data")])
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert made["files"] == {"weights.safetensors": {"bytes": 3, "sha256": sha256}}
    assert made["uses"] == ["data-0"]
    assert Artifact("data-0", "data").files() == []


def stage_of(folder, run):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"name": run}))
    (folder / "result.json").write_text('{"noise_loss": 0.25}')
    return folder


def test_a_stage_is_made_by_the_run_that_trained_it_and_used_by_others(tmp_path):
    store, data = Recorder(), Artifact("data-0", "data")
    folder = stage_of(tmp_path / "autoencoder-1", "mine")
    for run in ("mine", "other"):
        show_stage(Trackers({"store": store}), folder, run, [data])
    stage = Artifact("autoencoder-1", "checkpoint", folder, {"noise_loss": 0.25})
    assert store.of("log_artifact") == [(stage, [data])]
    assert store.of("use_artifact") == [(stage,)]


def test_what_an_evaluation_found_is_shown(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"weights": {"bytes": 3, "sha256": "0123456789abcdef"}, "versions": {}}')
    out = tmp_path / "people-1"
    out.mkdir()
    Image.new("RGB", (4, 2), (255, 0, 0)).save(out / "faces.png")
    rows = [{"name": "anna", "mm": 1.5}, {"name": "ben", "mm": None}]
    results = {"benchmark": "people", "summary": {"mm": 1.5, "of": "two", "none": None}, "rows": rows}
    (out / "results.json").write_text(json.dumps(results | {"checkpoint": str(model), "config_hash": "ff"}))
    store = Recorder()
    log_evaluation(store, out)
    assert store.of("log") == [({"people/mm": 1.5}, 0)]
    assert store.of("log_table") == [("people/rows", rows)]
    ((pictures, step),) = store.of("log_images")
    assert step == 0
    assert (pictures["people/faces"] == (255, 0, 0)).all()
    assert pictures["people/faces"].shape == (2, 4, 3)
    ((made, uses),) = store.of("log_artifact")
    assert (made.name, made.kind) == ("evaluation-people-1-ff", "evaluation")
    assert uses == [model_artifact(model)]
    assert uses[0].name == "model-0123456789ab"


def test_a_run_of_wandbs_agent_has_the_id_that_the_agent_gave(tmp_path, monkeypatch):
    import wandb

    asked = {}

    def init(**options):
        asked.update(options)
        raise ConnectionError("no server here")

    monkeypatch.setattr(wandb, "init", init)
    run = TrackedRun(tmp_path / "run", "run", {})
    for name, expected in (("agents-own", "agents-own"), ("", run.identifier)):
        monkeypatch.setenv("WANDB_RUN_ID", name)
        with pytest.raises(ConnectionError):
            build(config_of("tracker", "wandb", mode="offline"), "tracker").start(run)
        assert asked["id"] == expected
