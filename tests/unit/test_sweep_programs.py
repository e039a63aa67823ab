"""Where entry points leave their metrics, and what is said of those that have none."""

import json
import math

import pytest

from fitdiff.sweep.programs import MetricError, decisive, program_of
from fitdiff.sweep.spec import SweepError

TRAIN, EVALUATE = program_of("train.py"), program_of("somewhere/evaluate.py")
LOSS = "diffusion/held_out/noise_loss"


def test_a_trained_run_has_the_metric_that_its_trackers_got(tiny_run):
    metrics = json.loads((tiny_run / "metrics.json").read_text())
    assert TRAIN.result(tiny_run, LOSS) == metrics["diffusion"]["noise_loss"]
    assert TRAIN.curve(tiny_run, LOSS)[-1] == metrics["diffusion"]["noise_loss"]
    assert not TRAIN.prepares(tiny_run)
    with pytest.raises(MetricError, match=r"diffusion has no nois; it has noise_loss, "):
        TRAIN.result(tiny_run, "diffusion/held_out/nois")


def test_a_run_prepares_until_its_last_stage_begins(tmp_path):
    assert TRAIN.prepares(tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stages.json").write_text('{"autoencoder": "../a", "diffusion": "../d"}')
    assert TRAIN.prepares(tmp_path / "run")
    assert TRAIN.curve(tmp_path / "run", LOSS) == []
    (tmp_path / "d").mkdir()
    assert not TRAIN.prepares(tmp_path / "run")
    (tmp_path / "d" / "log.jsonl").write_text('{"step": 1, "held_out/noise_loss": null}\n{"step": 1, "loss": 2}\n')
    assert [math.isnan(value) for value in TRAIN.curve(tmp_path / "run", LOSS)] == [True]


def test_an_evaluation_has_its_summary(tmp_path):
    folder = EVALUATE.folder(tmp_path, "lambda/trial-0")
    with pytest.raises(MetricError, match="summary has no people/shape_mm; it has nothing"):
        EVALUATE.result(folder, "people/shape_mm")
    folder.mkdir(parents=True)
    summary = {"shape_mm": 2.5, "seconds": None}
    (folder / "results.json").write_text(json.dumps({"benchmark": "people", "summary": summary}))
    assert EVALUATE.result(folder, "people/shape_mm") == EVALUATE.result(folder, "shape_mm") == 2.5
    with pytest.raises(MetricError, match="seconds is None, which is no number"):
        EVALUATE.result(folder, "people/seconds")


def test_what_is_forgotten_is_what_could_be_taken_for_a_new_trials(tmp_path):
    for program, gone in ((TRAIN, {"metrics.json", "stages.json"}), (EVALUATE, {"results.json"})):
        folder = tmp_path / program.result_file(tmp_path).stem
        folder.mkdir()
        for name in ("metrics.json", "stages.json", "results.json"):
            (folder / name).write_text("{}")
        program.forget(folder)
        program.forget(folder)  # nothing left
        assert {path.name for path in folder.iterdir()} == {"metrics.json", "stages.json", "results.json"} - gone


def test_what_decides_results():
    words = ["scale=base", "hydra/launcher=ray", "hydra.job.x=1", "~tracker", "device=cpu", "data.batch=2", "name=a"]
    assert decisive("train.py", [*words, "batch=4"]) == ["scale=base", "data.batch=2", "batch=4"]
    assert decisive("evaluate.py", [*words, "batch=4"]) == ["scale=base", "data.batch=2"]


def test_other_programs_are_refused():
    with pytest.raises(SweepError, match=r"got fit.py, expected one of train\.py, evaluate\.py"):
        program_of("fit.py")
