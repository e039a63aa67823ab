import importlib.util
import json
import re
from contextlib import suppress

import numpy as np
import pytest
from filelock import FileLock, Timeout
from PIL import Image

from fitdiff.registry import ComponentError, build, config_of
from fitdiff.tracker import Artifact, NoTracker, TrackedRun, Tracker, Trackers, build_trackers
from fitdiff.tracker.base import columns, safe_name
from fitdiff.tracker.runs import log_evaluation, model_artifact, show_stage
from fitdiff.training.interruption import InterruptedRun
from fitdiff.training.tracking import show_curves, tracked
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
    broken, well = Broken(), Recorder()
    trackers = Trackers({"broken": broken, "well": well})
    trackers.start(RUN)
    for step in (1, 2):
        trackers.log({"a/loss": 0.5}, step)
    trackers.finish()
    assert [step for _, step in well.of("log")] == [1, 2]
    assert broken.of("finish") == [("failed",)]
    assert well.of("finish") == [("finished",)]
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
    [
        ("trackio", "trackio", "trackio"), ("tensorboard",) * 3,
        *(("mlflow", package, "mlflow-skinny sqlalchemy alembic") for package in ("mlflow", "sqlalchemy", "alembic")),
    ],
)  # fmt: skip
def test_a_missing_package_says_what_to_install(monkeypatch, name, package, install):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked: None if asked == package else find(asked))
    with pytest.raises(ComponentError, match=rf"{package} is missing: pip install {install} .*fitdiff\[trackers\]"):
        build(config_of("tracker", name), "tracker")


@pytest.mark.parametrize("name", ["TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"])
def test_trackio_refuses_to_send_runs_away(monkeypatch, name):
    monkeypatch.setenv(name, "someone/faces")
    with pytest.raises(ComponentError, match=rf"{name} would send runs to a server.*: unset {name}"):
        build(config_of("tracker", "trackio"), "tracker")


def test_an_identifier_is_kept_in_the_folder_with_what_decides_the_result(tmp_path):
    def identifier(folder, decided_by="diffusion-1", name="lambda/off"):
        return TrackedRun(tmp_path / folder, name, {}, decided_by=decided_by).identifier

    first, changed, elsewhere = identifier("a"), identifier("a", "diffusion-2"), identifier("b")
    assert len({first, changed, elsewhere}) == 3
    assert (identifier("a", name="other"), identifier("a", "diffusion-2")) == (first, changed)
    (tmp_path / "a").rename(tmp_path / "moved")
    assert identifier("moved") == first


def test_a_run_is_compared_within_its_experiment(tmp_path):
    run = TrackedRun(tmp_path / "a", "lambda/off-s1", {"seed": 1}, tmp_path, origin={"git": {"commit": "f00"}})
    assert run.compared_with == "lambda"
    assert TrackedRun(tmp_path, "alone", {}).compared_with is None
    assert TrackedRun(tmp_path, "lambda/off", {}, group="mine").compared_with == "mine"
    assert run.settings == {"seed": 1, "origin": {"git": {"commit": "f00"}}}
    assert run.shared("trackio") == (tmp_path / "dashboards" / "trackio").resolve()


def test_names_that_a_dashboard_refuses_are_made_safe():
    for name in ("diffusion/held_out/noise_loss", "autoencoder-1b", "tar_0.1"):
        assert safe_name(name) == name
    odd = ["people/größe", "people/grüße", "people/gr e", "people/gr+e", "x" * 200, "x" * 201]
    assert len({safe_name(name) for name in odd}) == len(odd)
    for name in odd:
        assert re.fullmatch(r"[A-Za-z0-9_./-]{1,120}", safe_name(name))
    assert re.fullmatch(r"evaluation-a_b-[0-9a-f]{6}|evaluation-a_b", Artifact("evaluation-a/b", "evaluation").name)


def test_the_columns_of_a_table():
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
        show_stage(Trackers({"store": store}), folder, run, [data], None)
    stage = Artifact("autoencoder-1", "checkpoint", folder, {"noise_loss": 0.25})
    assert store.of("log_artifact") == [(stage, [data])]
    assert store.of("use_artifact") == [(stage,)]


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [(None, "finished", None), (OSError("the disk is full"), "failed", "OSError: the disk is full"),
     (InterruptedRun(), "stopped", None)],
)  # fmt: skip
def test_how_a_run_ended_is_told(tmp_path, error, status, reason):
    store, failed = Recorder(), tmp_path / "failed.json"
    failed.write_text("{}")  # of the session before
    with suppress(OSError, InterruptedRun), tracked(Trackers({"store": store}), TrackedRun(tmp_path, "run", {})):
        assert not failed.exists()
        if error:
            raise error
    assert store.of("finish") == [(status,)]
    assert (json.loads(failed.read_text())["reason"] if failed.exists() else None) == reason


def test_a_finished_stage_tells_what_a_kill_lost(tmp_path, capsys):
    folder = stage_of(tmp_path / "autoencoder-1", "mine")
    (folder / "log.jsonl").write_text('{"step": 5, "loss": 0.5}\n{"step": 10, "loss": 0.25}\n')
    for run, expected in (("other", []), ("mine", [({"autoencoder/loss": 0.25}, 10)])):
        store = Recorder(autoencoder__loss=5)
        trackers = Trackers({"store": store})
        trackers.start(RUN)
        show_curves(trackers, folder, "autoencoder", run)
        assert store.of("log") == expected
    (folder / "log.jsonl").write_text("damaged\n")
    show_curves(trackers, folder, "autoencoder", "mine")  # no reason to end a training that is done
    assert "line 1 is damaged" in capsys.readouterr().err


def test_what_an_evaluation_found_is_shown(tmp_path, capsys):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"weights": {"bytes": 3, "sha256": "0123456789abcdef"}, "versions": {}}')
    out = tmp_path / "people-1"
    out.mkdir()
    Image.new("RGB", (4, 2), (255, 0, 0)).save(out / "faces.png")
    (out / "cut.png").write_bytes((out / "faces.png").read_bytes()[:40])
    rows = [{"name": "anna", "mm": 1.5}, {"name": "ben", "mm": None}]
    results = {"benchmark": "people", "summary": {"mm": 1.5, "of": "two", "none": None}, "rows": rows}
    (out / "results.json").write_text(json.dumps(results | {"checkpoint": str(model), "config_hash": "ff"}))
    store = Recorder()
    log_evaluation(store, out)
    assert store.of("log") == [({"people/mm": 1.5}, 0)]
    assert store.of("log_table") == [("people/rows", rows)]
    ((pictures, step),) = store.of("log_images")
    assert step == 0
    assert sorted(pictures) == ["people/faces"]
    assert f"{out / 'cut.png'} is left out" in " ".join(capsys.readouterr().err.split())
    assert (pictures["people/faces"] == (255, 0, 0)).all()
    assert pictures["people/faces"].shape == (2, 4, 3)
    ((made, uses),) = store.of("log_artifact")
    assert (made.name, made.kind) == ("evaluation-people-1-ff", "evaluation")
    assert uses == [model_artifact(model)]
    assert uses[0].name == "model-0123456789ab"


def test_of_runs_that_start_together_one_makes_mlflows_store(tmp_path, monkeypatch):
    """What the database and its experiment are made under: two at once would each find a store that is half made."""
    from mlflow import tracking

    alone = FileLock(tmp_path / "dashboards" / "mlflow" / ".lock", timeout=0)

    class Client:
        def __init__(self, **_):
            with pytest.raises(Timeout):
                alone.acquire()

        def get_experiment_by_name(self, _):
            with pytest.raises(Timeout):
                alone.acquire()

        def create_experiment(self, *_):
            with pytest.raises(Timeout):
                alone.acquire()
            return "0"

        def search_runs(self, *_):
            alone.acquire()
            raise ConnectionError("enough seen")

    monkeypatch.setattr(tracking, "MlflowClient", Client)
    with pytest.raises(ConnectionError):
        build(config_of("tracker", "mlflow"), "tracker").start(TrackedRun(tmp_path / "run", "run", {}))
