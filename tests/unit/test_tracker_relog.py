import json
import shutil

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from fitdiff.storage import CheckpointError
from fitdiff.tracker import TrackedRun, Trackers
from fitdiff.tracker.relog import Options, relog, show
from tests.unit.test_tracker import Recorder


@pytest.fixture
def outputs(tmp_path):
    """Two finished trainings of an experiment that share the autoencoder, and an evaluation."""
    for stage in ("autoencoder-1", "diffusion-2", "diffusion-3"):
        folder = tmp_path / "stages" / stage
        (folder / "previews").mkdir(parents=True)
        lines = [{"step": 5, "loss": 0.5}, {"step": 10, "loss": None, "rate": 2.0}]
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        for step in (5, 10):
            Image.new("RGB", (2, 2), (step, 0, 0)).save(folder / "previews" / f"all-samples-{step:08d}.png")
        name = "ablation/two-s0" if stage == "diffusion-3" else "ablation/one-s0"
        (folder / "config.json").write_text(json.dumps({"seed": int(stage[-1]), "name": name, "data": {"n": 8}}))
        (folder / "result.json").write_text("{}")
        (folder / "step-10").mkdir()
        (folder / "step-10" / "state.json").write_text('{"provenance": {"data": "0a"}}')
    for name, last in (("one-s0", "diffusion-2"), ("two-s0", "diffusion-3")):
        folder = tmp_path / "ablation" / name
        folder.mkdir(parents=True)
        stages = {"autoencoder": "../../stages/autoencoder-1", "diffusion": f"../../stages/{last}"}
        (folder / "stages.json").write_text(json.dumps(stages))
    folder = tmp_path / "evaluations" / "people-1"
    folder.mkdir(parents=True)
    results = {"benchmark": "people", "name": "people-1", "config": {"seed": 0}, "summary": {"mm": 2.0}, "rows": []}
    (folder / "results.json").write_text(json.dumps(results))
    return tmp_path


FOLDERS_OF_OTHERS = [
    ("cut", "results.json", '{"benchmark": "people"}'), ("empty", "stages.json", "{}"), ("half", "stages.json", "{"),
    ("album", "results.json", "[]"), ("other", "results.json", '{"accuracy": 1}'),
]  # fmt: skip


def test_the_command_shows_what_is_whole(outputs, capsys, monkeypatch):
    for name, file, content in FOLDERS_OF_OTHERS:
        (outputs / name).mkdir()
        (outputs / name / file).write_text(content)
    seen = []
    monkeypatch.setattr("fitdiff.tracker.relog.build_trackers", lambda nodes: seen.append(nodes) or Recorder())
    options = Options(f"{outputs}/*", "[tensorboard, wandb]", options={"wandb": {"project": "mine"}})
    show(options, Console(stderr=True, width=1000))
    said = capsys.readouterr().err
    for name, folder in (("ablation/one-s0",) * 2, ("ablation/two-s0",) * 2, ("people-1", "evaluations/people-1")):
        assert f"{name} ({outputs / folder})" in said
    for name, reason in (
        ("cut", "KeyError: 'name'"),
        ("empty", "IndexError"),
        ("half", "RunError: stages.json cannot"),
    ):
        assert f"note: {outputs / name}: not a whole run ({reason}" in said
    assert said.count("note: ") == 3, "an album and another program's folder are nothing to tell of"
    assert sorted(seen[0]) == ["tensorboard", "wandb"]
    assert seen[0]["wandb"]["project"] == "mine"


def test_nothing_to_show_is_told(outputs):
    for runs, message in (
        (f"{outputs}/nothing*", "no folder with stages.json"),
        (f"{outputs}/broken", "none of 1 runs could be shown"),
    ):
        (outputs / "broken").mkdir(exist_ok=True)
        (outputs / "broken" / "results.json").write_text("{}")
        with pytest.raises(ValueError, match=message):
            show(Options(runs, "none"), Console())


def test_a_training_is_shown_from_its_own_files(outputs):
    store = Recorder()
    run = relog(outputs / "ablation" / "two-s0", store, ["diffusion"])
    assert (run.name, run.compared_with, run.config["seed"]) == ("ablation/two-s0", "ablation", 3)
    assert run.shared("trackio").parent == outputs.resolve() / "dashboards"
    assert store.of("log") == [({"diffusion/loss": 0.5}, 5), ({"diffusion/rate": 2.0}, 10)]
    pictures = store.of("log_images")
    assert [step for _, step in pictures] == [5, 10]
    for images, step in pictures:
        np.testing.assert_array_equal(images["diffusion/all-samples"], np.full((2, 2, 3), (step, 0, 0)))
    lineage = {made.name: [used.name for used in uses] for made, uses in store.of("log_artifact")}
    assert lineage == {"diffusion-3": ["data-0a", "autoencoder-1"]}
    assert [used.name for (used,) in store.of("use_artifact")] == ["autoencoder-1"], "another run has trained it"
    assert store.calls[0][0] == "start"
    assert store.calls[-1] == ("finish", "finished")


def test_an_evaluation_is_shown_too(outputs):
    store = Recorder()
    run = relog(outputs / "evaluations" / "people-1", store, [])
    assert (run.name, run.job_type, run.tags) == ("people-1", "evaluate", ("people",))
    assert store.of("log") == [({"people/mm": 2.0}, 0)]


def test_what_a_store_has_is_not_sent_again(outputs):
    store = Recorder(diffusion__loss=5, autoencoder__loss=5)
    relog(outputs / "ablation" / "one-s0", Trackers({"store": store}), ["autoencoder", "diffusion"])
    assert store.of("log") == [({"autoencoder/rate": 2.0}, 10), ({"diffusion/rate": 2.0}, 10)]


def test_a_training_that_is_not_done_has_its_own_config_and_stays_open(outputs):
    folder = outputs / "ablation" / "two-s0"
    (outputs / "stages" / "diffusion-3" / "result.json").unlink()
    (outputs / "stages" / "diffusion-3" / "config.json").unlink()
    for failed, status in ((False, "running"), (True, "failed")):
        if failed:
            (folder / "failed.json").write_text("{}")
        store = Recorder()
        assert relog(folder, store, []).config == {}, "the config that is left is that of another run"
        assert store.of("finish") == [(status,)]
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text("seed: 3\n")
    (folder / ".hydra" / "hydra.yaml").write_text(
        "hydra: {runtime: {choices: {experiment: lambda, model: fitdiff, scale: '${oc.env:HOME}', seed: x}}}"
    )
    run = relog(folder, Recorder(), [])
    assert run.config == {"seed": 3}
    assert (run.compared_with, run.tags) == ("lambda", ("lambda", "fitdiff", "${oc.env:HOME}"))


def test_a_shown_training_is_the_one_that_was_tracked(outputs):
    """Its result is decided by its last stage: with another, it is another run."""
    folder = outputs / "ablation" / "two-s0"
    tracked = TrackedRun(folder, "ablation/two-s0", {}, decided_by="diffusion-3").identifier
    assert relog(folder, Recorder(), []).identifier == tracked
    (folder / "stages.json").write_text('{"diffusion": "../../stages/diffusion-2"}')
    assert relog(folder, Recorder(), []).identifier != tracked


def test_an_evaluation_that_ran_again_is_another_run(outputs):
    folder = outputs / "evaluations" / "people-1"
    results = json.loads((folder / "results.json").read_text())
    seen = set()
    for date in ("2026-11-22", "2026-11-23", "2026-11-23"):
        (folder / "results.json").write_text(json.dumps(results | {"date": date}))
        seen.add(relog(folder, Recorder(), []).identifier)
    assert len(seen) == 2


def test_the_store_is_that_of_all_runs(outputs):
    trial = outputs / "evaluations" / "lambda" / "trial-0"
    shutil.copytree(outputs / "evaluations" / "people-1", trial)
    (outputs / "stages").rename(outputs / "large")
    (outputs / "stages").symlink_to(outputs / "large")
    for folder in (trial, outputs / "ablation" / "one-s0"):
        assert relog(folder, Recorder(), []).shared("trackio") == (outputs / "dashboards" / "trackio").resolve()
    assert relog(outputs / "ablation" / "one-s0", Recorder(), []).compared_with == "ablation"


def test_one_damaged_picture_is_left_out_alone(outputs):
    (outputs / "stages" / "diffusion-3" / "previews" / "all-samples-00000005.png").write_bytes(b"\x89PNG")
    store = Recorder()
    relog(outputs / "ablation" / "two-s0", Trackers({"store": store}), ["diffusion"])
    assert [step for _, step in store.of("log_images")] == [10]


def test_what_no_dashboard_took_is_not_told_as_shown(outputs, capsys, monkeypatch):
    class Full(Recorder):
        def __getattribute__(self, name):
            if name == "start":
                raise OSError("the disk is full")
            return super().__getattribute__(name)

    monkeypatch.setattr("fitdiff.tracker.relog.build_trackers", lambda _: Trackers({"full": Full()}))
    with pytest.raises(ValueError, match="none of 3 runs could be shown"):
        show(Options(f"{outputs}/*", "wandb"), Console(stderr=True))


@pytest.mark.parametrize(("file", "content"), [("stages.json", "{"), ("results.json", '{"benchmark": "people"}')])
def test_a_broken_run_is_named(tmp_path, file, content):
    (tmp_path / file).write_text(content)
    with pytest.raises(CheckpointError, match=rf"{tmp_path}: not a whole run"):
        relog(tmp_path, Recorder(), [])
