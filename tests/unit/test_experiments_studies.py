"""Studies of training and fitting on made-up run folders: what is read, compared and told."""

import itertools
import json

import pytest
from rich.console import Console

from experiments.ablation import training
from experiments.ablation.grid import composed, evaluated, jobs_of, plain_config
from experiments.lambda_ablation.__main__ import GRID
from experiments.lambda_ablation.__main__ import place as place_of_lambda
from experiments.realy.__main__ import tables as realy_tables
from experiments.single_vs_separate.__main__ import STUDY
from fitdiff.config import config_hash
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
    (folder / "results.json").write_text(json.dumps({"rows": found, "config_hash": config_hash(asked)}))
    return folder


def options_of(tmp_path, **changed):
    return training.Options(outputs=str(tmp_path), n=6, fits=0, **changed)


def people(job, options):
    words = [f"checkpoint={training.checkpoint_of(job)}", f"outputs={options.outputs}", "benchmark.n=6"]
    return plain_config(composed("evaluate", ["benchmark=people", *words, "benchmark.methods=[unguided]"]))


def test_a_grid_that_is_not_trained_says_how(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"6 of 6 runs(.*)python train.py experiment=single_vs_separate"):
        STUDY.write(options_of(tmp_path), Console(quiet=True))


def test_a_study_compares_seeds_and_people(tmp_path, capsys, monkeypatch):
    options = options_of(tmp_path)
    for job, seed in zip(jobs_of("train", ["experiment=single_vs_separate", f"outputs={tmp_path}"]), itertools.count()):
        model = training.checkpoint_of(job)
        model.mkdir(parents=True)
        (model / "config.json").write_text(json.dumps({"weights": {"sha256": str(seed)}}))
        write_result(people(job, options), rows(3.0 if job.values["model"] == "fitdiff" else 3.25))
    monkeypatch.setattr("experiments.ablation.grid.evaluate_what_is_asked", None)  # all is there: nothing is measured
    STUDY.write(options, Console(quiet=True))
    text = capsys.readouterr().out
    assert "3 seeds a variant" in text
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


def test_published_rows_are_marked_and_apart_from_figures_of_other_scans():
    summary = {f"{r}_{s}mm": 1.0 for r in ("nose", "mouth", "forehead", "cheek") for s in ("", "median_", "std_")}
    results = {"ours": {"summary": {**summary, "all_mm": 1.0}}}
    made, _, warning, published = realy_tables(results, made=True)
    assert "published" not in made
    assert "not to be compared" in warning
    assert all("(as published)" in line for line in published.splitlines()[2:])
    together, _ = realy_tables(results, made=False)
    assert [("(as published)" in line) for line in together.splitlines()[2:4]] == [False, True]
