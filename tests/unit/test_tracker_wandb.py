"""W&B's tracker: when it is online, what it asks W&B for, and what it finds there."""

import numpy as np
import pytest

from fitdiff.registry import ComponentError, build, config_of
from fitdiff.tracker import Artifact, TrackedRun, build_trackers


def test_a_wrong_mode_is_named():
    with pytest.raises(ComponentError, match=r"tracker.wandb.mode is 'on'; expected auto, online or offline"):
        build(config_of("tracker", "wandb", mode="on"), "tracker")


@pytest.mark.parametrize(
    ("environment", "hosts", "mode"),
    [
        ({}, "", "offline"),
        ({}, "machine api.wandb.ai login user password key", "online"),
        ({}, "machine faces.example login user password key", "offline"),
        ({"WANDB_BASE_URL": "https://faces.example"}, "machine faces.example login user password key", "online"),
        ({"WANDB_BASE_URL": "https://faces.example"}, "machine api.wandb.ai login user password key", "offline"),
        ({"WANDB_API_KEY": "key"}, "", "online"),
        ({"WANDB_API_KEY": "key", "WANDB_MODE": "offline"}, "", "offline"),
        ({"WANDB_API_KEY": "key", "WANDB_MODE": "dryrun"}, "", "offline"),
        ({"WANDB_API_KEY": "key", "WANDB_MODE": "disabled"}, "", "disabled"),
        ({"WANDB_MODE": "online"}, "", "online"),
    ],
)
def test_nothing_is_uploaded_unasked(tmp_path, monkeypatch, environment, hosts, mode):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "netrc").write_text(hosts)
    for name, value in {"NETRC": str(tmp_path / "netrc"), **environment}.items():
        monkeypatch.setenv(name, value)
    assert build(config_of("tracker", "wandb"), "tracker").mode == mode


def test_a_netrc_that_cannot_be_read_holds_no_key(tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path))  # a folder: even root cannot read it
    assert build(config_of("tracker", "wandb"), "tracker").mode == "offline"


def test_wandb_keeps_the_best_of_what_can_be_better(tmp_path):
    tracker = build(config_of("tracker", "wandb", mode="offline"), "tracker")
    tracker.start(TrackedRun(tmp_path / "run", "run", {}))
    for step, value in ((1, 0.5), (2, 0.25), (3, 0.75)):
        names = ("a/loss", "a/psnr_diffuse", "a/learning_rate", "a/psnr_diffuse_mean_face")
        tracker.log(dict.fromkeys(names, value), step)
    best = {name: value for name, value in dict(tracker.run.summary).items() if name.startswith("best/")}
    tracker.finish()
    assert best == {"best/a/loss": 0.25, "best/a/psnr_diffuse": 0.75}


def test_wandb_knows_online_how_far_each_name_had_come(tmp_path, monkeypatch):
    """What the summary of a run that goes on says; a stage's newest step is not that of all its names."""
    import wandb

    class Server:
        def __init__(self, summary):
            self.summary, self.step = summary, 7

        def define_metric(self, *_, **__): ...

        def log(self, *_, **__): ...

    summary = {}
    monkeypatch.setattr(wandb, "init", lambda **_: Server(summary))
    for _ in range(2):
        tracker = build(config_of("tracker", "wandb", mode="online"), "tracker")
        tracker.start(TrackedRun(tmp_path / "run", "run", {}))
        before = tracker.logged()
        tracker.log({"diffusion/held_out/noise_loss": 0.5}, 50)
        tracker.log({"diffusion/loss": 0.5}, 100)
    assert before == {"diffusion/held_out/noise_loss": 50, "diffusion/loss": 100}


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


def test_wandb_can_be_switched_off_by_its_own_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    trackers = build_trackers({"wandb": config_of("tracker", "wandb")})
    trackers.start(TrackedRun(tmp_path / "run", "run", {}))
    trackers.log({"a/loss": 1.0}, 1)
    trackers.log_images({"a/picture": np.zeros((4, 4, 3), np.uint8)}, 1)
    trackers.log_table("a/rows", [{"mm": 1}])
    trackers.log_artifact(Artifact("model-1", "model"), [Artifact("data-1", "data")])
    trackers.finish()
    assert trackers, "it failed"
    assert not (tmp_path / "run" / "wandb").exists()
