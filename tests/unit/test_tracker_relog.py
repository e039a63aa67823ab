import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from fitdiff.storage import CheckpointError
from fitdiff.tracker import Trackers
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
        (folder / "config.json").write_text(f'{{"seed": {stage[-1]}, "name": "any"}}')
        (folder / "result.json").write_text("{}")
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


def test_the_command_shows_what_is_whole(outputs, capsys, monkeypatch):
    (outputs / "broken").mkdir()
    (outputs / "broken" / "results.json").write_text("{}")
    seen = []
    monkeypatch.setattr("fitdiff.tracker.relog.build_trackers", lambda nodes: seen.append(nodes) or Recorder())
    options = Options(f"{outputs}/*", "[tensorboard, wandb]", options={"wandb": {"project": "mine"}})
    show(options, Console(stderr=True, width=1000))
    said = capsys.readouterr().err
    for name, folder in (("ablation/one-s0",) * 2, ("ablation/two-s0",) * 2, ("people-1", "evaluations/people-1")):
        assert f"{name} ({outputs / folder})" in said
    assert f"note: {outputs / 'broken'}: not a whole run (KeyError: 'name')" in said
    assert sorted(seen[0]) == ["tensorboard", "wandb"]
    assert seen[0]["wandb"]["project"] == "mine"


def test_nothing_to_show_is_told(outputs):
    for runs, message in ((f"{outputs}/nothing*", "no folder with stages.json"), (f"{outputs}/broken", "none of 1")):
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
    assert lineage == {"autoencoder-1": [], "diffusion-3": ["autoencoder-1"]}
    assert store.calls[0][0] == "start"
    assert store.calls[-1][0] == "finish"


def test_an_evaluation_is_shown_too(outputs):
    store = Recorder()
    run = relog(outputs / "evaluations" / "people-1", store, [])
    assert (run.name, run.job_type, run.tags) == ("people-1", "evaluate", ("people",))
    assert store.of("log") == [({"people/mm": 2.0}, 0)]


def test_what_a_store_has_is_not_sent_again(outputs):
    store = Recorder(diffusion__loss=5, autoencoder__loss=5)
    relog(outputs / "ablation" / "one-s0", Trackers({"store": store}), ["autoencoder", "diffusion"])
    assert store.of("log") == [({"autoencoder/rate": 2.0}, 10), ({"diffusion/rate": 2.0}, 10)]


@pytest.mark.parametrize(("file", "content"), [("stages.json", "{"), ("results.json", "{}")])
def test_a_broken_run_is_named(tmp_path, file, content):
    (tmp_path / file).write_text(content)
    with pytest.raises(CheckpointError, match=rf"{tmp_path}: not a whole run"):
        relog(tmp_path, Recorder(), [])
