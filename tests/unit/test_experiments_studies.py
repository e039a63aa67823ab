"""Studies of training and fitting on made-up run folders: what is read, compared and told."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from experiments.ablation import fitting, training
from experiments.ablation.charts import difference_chart
from experiments.ablation.facts import origin
from experiments.ablation.grid import composed, evaluated, jobs_of, plain_config
from experiments.ablation.trained import refuse_other_settings
from experiments.lambda_ablation.__main__ import GRID
from experiments.lambda_ablation.__main__ import place as place_of_lambda
from experiments.loss_ablation.__main__ import STUDY as LOSSES
from experiments.realy import __main__ as realy
from experiments.single_vs_separate.__main__ import STUDY
from experiments.timing import __main__ as timing
from fitdiff.command import parse
from fitdiff.config import config_hash, plain
from fitdiff.evaluation.command import place_of, settings

NAMES = "abcdef"


def rows(shape, identity=0.5):
    return [
        {"name": name, "shape_mm": shape + k, "frontal_id_centred": identity, "novel_id_centred": identity,
         "diffuse_db": 20.0} for k, name in enumerate(NAMES)
    ]  # fmt: skip


def write_result(config, found):
    asked = settings(config)
    _, folder = place_of(config, asked)
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"rows": found, **origin_of(2), "config_hash": config_hash(asked)}))
    return folder


def origin_of(day, git=None):
    return {"config_hash": str(day), "date": f"2026-01-0{day}T00:00:00+00:00", "provenance": {"git": git}}


def write_run(job, steps=500):
    """The files of a run that say how it was trained."""
    run, config = Path(job.config.outputs) / job.config.name, plain(job.config)
    for folder in (run / "model", run / "stage"):
        folder.mkdir(parents=True, exist_ok=True)
    config["stage"]["diffusion"]["steps"] = steps
    (run / "stage" / "config.json").write_text(json.dumps({**config, "name": "whose run came first"}))
    (run / "stages.json").write_text(json.dumps({"diffusion": "stage"}))
    (run / "model" / "config.json").write_text(json.dumps({"weights": {"sha256": job.config.name}}))


def options_of(tmp_path, *changed):
    return parse([f"outputs={tmp_path}", "n=6", "fits=0", *changed], training.Options)


def people(job, options):
    words = [f"checkpoint={training.checkpoint_of(job)}", f"outputs={options.outputs}", "benchmark.n=6"]
    return plain_config(composed("evaluate", ["benchmark=people", *words, "benchmark.methods=[unguided]"]))


def test_a_grid_that_is_not_trained_says_how(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"6 of 6 runs(.*)python train.py experiment=single_vs_separate"):
        STUDY.write(options_of(tmp_path), Console(quiet=True))


def test_a_study_compares_seeds_and_people(tmp_path, capsys, monkeypatch):
    options = options_of(tmp_path)
    for job in jobs_of("train", ["experiment=single_vs_separate", f"outputs={tmp_path}"]):
        write_run(job)
        write_result(people(job, options), rows(3.0 if job.values["model"] == "fitdiff" else 3.25))
    monkeypatch.setattr("experiments.ablation.grid.evaluate_what_is_asked", None)  # all is there: nothing is measured
    STUDY.write(options, Console(quiet=True))
    text = capsys.readouterr().out
    assert "3 seeds a variant" in text
    assert text.startswith("Measured: 2026-01-02. Settings: ")
    (line,) = (line for line in text.splitlines() if line.startswith("| separate | level"))
    assert "behind +0.25 (+0.25 to +0.25)" in line
    assert (tmp_path / "experiments" / "single_vs_separate" / "table.md").read_text() in text
    assert (tmp_path / "experiments" / "single_vs_separate" / "samples.png").exists()


def test_a_result_is_found_under_any_name_and_never_taken_for_another(tmp_path, monkeypatch):
    words = ["benchmark=people", f"outputs={tmp_path}", f"checkpoint={tmp_path}/run/model"]
    one, other = (composed("evaluate", [*words, f"seed={seed}"]) for seed in (0, 1))
    folder = write_result(plain_config(one), rows(1.0))
    digits = folder.name.rpartition("-")[2]
    folder.rename(folder.with_name(f"people-elsewhere-{digits}"))
    monkeypatch.setattr("experiments.ablation.grid.evaluate_what_is_asked", lambda *_: pytest.fail("measured again"))
    assert evaluated(one, Console(quiet=True))["rows"] == rows(1.0)
    asked = []
    monkeypatch.setattr(
        "experiments.ablation.grid.evaluate_what_is_asked", lambda c, _: asked.append(c) or write_result(c, rows(2.0))
    )
    assert evaluated(other, Console(quiet=True))["rows"] == rows(2.0)
    assert asked == [plain_config(other)]


def test_every_lambda_has_a_curve_through_the_preset():
    places = [place_of_lambda(job) for job in jobs_of("evaluate", ["experiment=lambda_ablation"])]
    assert sum(place.label == GRID.baseline for place in places) == 1
    for term in ("id_cos", "id_per", "mse", "landmarks", "vgg"):
        assert sorted(place.setting for place in places if term in place.curves) == [0, 0.316, 1, 3.16]


def realy_result(errors):
    figures = {f"{r}_{s}mm": errors[0] for r in realy.REGIONS for s in ("", "median_", "std_")}
    rows = [{"name": str(i + 1), **dict.fromkeys(realy.METRICS, error)} for i, error in enumerate(errors)]
    return {"summary": {**figures, "all_mm": errors[0]}, "rows": [*rows, {**rows[0], "name": "1_left", "all_mm": 1e9}]}


def test_systems_are_compared_on_the_same_people_of_realy():
    results = {
        "the true shape": realy_result([0.0, 0.0, 0.0]),
        realy.BASELINE: realy_result([1.0, 2.0, 6.0]),
        "mean face": realy_result([2.0, 3.0, 7.0]),
    }
    table = realy.paired(results)
    assert table.count("behind +1.00 (+1.00 to +1.00)") == len(realy.METRICS), "an error more is worse"
    assert "true shape" not in table


def test_a_half_made_folder_of_people_is_made_whole(tmp_path, monkeypatch):
    options, made = parse([f"outputs={tmp_path}", "n=2"], realy.Options), []
    monkeypatch.setattr(realy.synthetic, "write_folder", lambda asked, console: made.append(asked.out))
    (tmp_path / "realy-synthetic-2" / "predictions").mkdir(parents=True)
    folder = realy.synthetic_folder(options, Console(quiet=True))
    assert made == [str(folder)]
    (folder / "synthetic.json").touch()
    realy.synthetic_folder(options, Console(quiet=True))
    assert len(made) == 1


def test_published_rows_are_marked_and_apart_from_figures_of_other_scans():
    made, _, _, warning, published = realy.tables({realy.BASELINE: realy_result([1.0, 2.0])}, made=True)
    assert "published" not in made
    assert "not to be compared" in warning
    assert all("(as published)" in line for line in published.splitlines()[2:])
    together, *_ = realy.tables({realy.BASELINE: realy_result([1.0, 2.0])}, made=False)
    assert [("(as published)" in line) for line in together.splitlines()[2:4]] == [False, True]


def test_runs_of_other_budgets_are_never_mixed(tmp_path):
    jobs = jobs_of("train", ["experiment=single_vs_separate", f"outputs={tmp_path}"])
    for job in jobs:
        write_run(job)
    refuse_other_settings(jobs)
    write_run(jobs[-1], steps=2200)
    with pytest.raises(ValueError, match=r"fitdiff_separate-s2(.*)diffusion.steps: checkpoint 2200, this run 500"):
        refuse_other_settings(jobs)
    for job in jobs:
        write_run(job, steps=2200)
    assert len(STUDY.trained(options_of(tmp_path, "overrides=[stage.diffusion.steps=2200]"))) == len(jobs)
    with pytest.raises(ValueError, match="single_vs_separate/fitdiff-s0"):
        refuse_other_settings(jobs)
    (tmp_path / jobs[0].config.name / "stages.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"fitdiff-s0: expected stages.json(.*)stages folder"):
        refuse_other_settings(jobs)


def test_the_budget_of_the_runs_is_told(tmp_path):
    options = options_of(tmp_path, "overrides=[stage.diffusion.steps=2200]")
    told = STUDY.facts(options, {"samples": {"single": [origin_of(1)]}})
    assert "`python train.py experiment=single_vs_separate stage.diffusion.steps=2200`" in told
    assert "n=6 fits=0 overrides=[stage.diffusion.steps=2200] publish=true`" in told
    assert str(tmp_path) not in told


def test_losses_are_compared_seed_by_seed():
    """Seeds differ by far more than losses do, and each seed by the same: pairing shows it, in table and rings."""
    seeds, people = np.array([[0.0], [5.0], [-4.0]]), np.random.default_rng(0).normal(0, 1, (1, 20))
    scores = {name: {m: seeds + people + by for m in training.METRICS} for name, by in (("all", 0), ("less", -0.1))}
    assert "behind -0.10 (-0.10 to -0.10)" in LOSSES.section("samples", scores)
    assert "level -0.10 (" in STUDY.section("samples", {"single": scores["all"], "separate": scores["less"]})
    figure = difference_chart(scores, "all", training.METRICS, LOSSES.by_seed)
    (rings,) = (line for line in figure.axes[0].lines if line.get_fillstyle() == "none")
    assert list(rings.get_xdata()) == pytest.approx([-0.1, -0.1, -0.1])


def test_the_date_is_the_results_own_and_several_commits_are_told():
    first, second = {"commit": "a" * 40, "changes": None}, {"commit": "b" * 40, "changes": "123"}
    same = origin([origin_of(1, first), origin_of(3, first), origin_of(2, first)])
    assert same.startswith("Measured: 2026-01-03. ")
    assert "commits" not in same
    several = origin([origin_of(1, first), origin_of(2, second), origin_of(1)])
    assert several.endswith("several commits: aaaaaaa, bbbbbbb with changes, unknown.")


def test_the_command_and_the_checkpoint_of_fits_are_told(tmp_path):
    options = parse([f"checkpoint={tmp_path}/mine/model", f"outputs={tmp_path}", "n=8"], fitting.Options)
    told = fitting.facts("lambda_ablation", options, [origin_of(1)])
    assert "`python -m experiments.lambda_ablation checkpoint=mine/model n=8 publish=true`" in told
    assert "of the checkpoint mine/model." in told
    assert str(tmp_path) not in told


def test_the_command_of_a_timing_is_the_one_that_was_given():
    words = ["device=cpu", "steps=[10,25]", "batch=[4,1,8]", "size=[224,112]"]
    once, twice = (
        timing.facts(parse([*words, f"repeats={repeats}"], timing.Options), torch.device("cpu")) for repeats in (1, 2)
    )
    assert f"`python -m experiments.timing {' '.join(words)} repeats=1 publish=true`" in once
    assert once.partition("Settings: ")[2][:12] != twice.partition("Settings: ")[2][:12]
