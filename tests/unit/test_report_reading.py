"""Runs are found and read whatever state they are in; what cannot be read is told."""

import json
import math

import pytest

from fitdiff.report import find_runs
from fitdiff.report.runs import flatten, natural, number, read_hydra
from fitdiff.storage import write_json
from tests.unit.report_runs import CONFIG, changed, evaluation, training, write_composed


def names(request):
    return [run.name for run in find_runs(str(request)).runs]


def test_runs_are_found_in_folders_globs_and_lists(tmp_path):
    for name in ("a-s2", "a-s10", "grid/b"):
        training(tmp_path, name, 2.0)
    evaluation(tmp_path, "people", {"x": 1.0})
    everything = ["a-s2", "a-s10", "evaluations/people", "grid/b"]
    assert names(tmp_path) == names(tmp_path / "*") == everything
    assert (
        names(f"[{tmp_path}/a-s2,{tmp_path}/grid]") == names(f"{tmp_path}/a-s2, {tmp_path}/grid") == ["a-s2", "grid/b"]
    )
    assert names(tmp_path / "a-s2" / "stages.json") == names(tmp_path / "a-s2") == ["a-s2"]
    assert names(f"{tmp_path}/a-s2,{tmp_path}/*") == everything, "a run that is named twice is there once"


def test_a_name_with_brackets_and_commas_is_a_name_first(tmp_path):
    training(tmp_path, "[a,b]", 2.0)
    assert names(tmp_path / "[a,b]") == ["[a,b]"]


def test_names_are_as_asked_for_where_outputs_is_a_link_to_another_disk(tmp_path, monkeypatch):
    for name in ("a-s0", "a-s1"):
        training(tmp_path / "big disk" / "outputs" / "exp", name, 2.0)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "outputs").symlink_to(tmp_path / "big disk" / "outputs")
    monkeypatch.chdir(tmp_path / "project")
    assert names("outputs/exp/*") == names("outputs/exp") == ["a-s0", "a-s1"]
    assert names("outputs/exp/a-s1") == ["a-s1"]
    (tmp_path / "project" / "newest").symlink_to(tmp_path / "big disk" / "outputs" / "exp" / "a-s1")
    assert names("newest") == ["newest"]


def test_a_finished_training(tmp_path):
    training(tmp_path, "run", 2.5, seed=3, denoiser__channels=64)
    (run,) = find_runs(str(tmp_path)).runs
    assert (run.status, run.seed, run.seconds) == ("finished", 3, 160.0)
    assert run.numbers["diffusion/shape_mm"].value == 2.5
    assert run.config["denoiser"]["channels"] == 64
    curve = run.curves["diffusion/held_out/shape_mm"]
    assert (curve.steps, curve.values) == ((10, 20, 40), (6.5, 4.5, 3.5))
    assert [picture.caption for picture in run.pictures] == ["step 30", "step 40"], "the newest of each"
    assert run.command == "python train.py name=run seed=3"
    assert run.facts["git"] == "0123456789ab"
    assert run.facts["torch"] == "2.9"
    assert run.facts["diffusion's hash"] == "diffusion-run".partition("-")[2]


def test_an_unfinished_training_shows_its_newest_evaluation(tmp_path):
    folder = training(tmp_path, "run", 2.5, finished=False)
    log = tmp_path / "stages" / "diffusion-run" / "log.jsonl"
    with log.open("a") as file:
        file.write('{"step": 26, "held_out/shape_mm": 4.0}\n{"step": 27, "loss_no')
    (run,) = find_runs(str(folder)).runs
    assert run.status.startswith("unfinished: diffusion at step 26 of 40, last written ")
    assert run.numbers["diffusion/shape_mm"].value == 4.0
    assert not run.numbers["diffusion/shape_mm"].final
    assert not run.notes, "half a line at the end is one that is being written"


def test_what_is_damaged_is_told_and_the_rest_is_shown(tmp_path):
    training(tmp_path, "good", 2.0)
    bad = training(tmp_path, "bad", 2.0)
    log = tmp_path / "stages" / "diffusion-bad" / "log.jsonl"
    log.write_text("garbage\n[1]\n" + log.read_text() + '{"step": 99, "loss_noise": NaN}\n')
    (tmp_path / "stages" / "diffusion-bad" / "result.json").write_text("{")
    (bad / ".hydra" / "config.yaml").write_text("a: [")
    write_json(tmp_path / "lost" / "stages.json", {"diffusion": "../stages/gone"})
    write_json(tmp_path / "empty" / "stages.json", {})
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "results.json").write_text('{"benchmark": ')
    found = find_runs(str(tmp_path))
    runs = {run.name: run for run in found.runs}
    assert set(runs) == {"good", "bad", "lost"}
    assert {problem.where for problem in found.problems} == {"empty", "half"}
    assert any("2 damaged lines" in note for note in runs["bad"].notes)
    assert any("result.json cannot be read" in note for note in runs["bad"].notes)
    assert 99 not in runs["bad"].curves["diffusion/loss_noise"].steps
    assert runs["lost"].notes == ["stage diffusion: its folder gone is missing"]


def test_nothing_there_is_told(tmp_path):
    (problem,) = find_runs(str(tmp_path / "no*")).problems
    assert problem.reason == "nothing there"


def test_results_of_other_programs_are_passed_over(tmp_path):
    write_json(tmp_path / "album" / "results.json", [{"photo": "a.jpg"}])
    write_json(tmp_path / "table" / "results.json", {"methods": {}})
    found = find_runs(str(tmp_path))
    assert not found.runs
    assert not found.problems


def test_an_evaluation(tmp_path):
    evaluation(tmp_path, "people", {"x": 1.0, "y": None}, seed=1)
    (run,) = find_runs(str(tmp_path)).runs
    assert (run.kind, run.seconds, run.numbers["shape_mm"].value) == ("people", 12.0, 1.0)
    assert [row["name"] for row in run.rows] == ["x", "y"]
    assert run.facts["config hash"] == "c0ffee"
    assert run.facts["date"] == "2026-11-23"
    assert [picture.name for picture in run.pictures] == ["sheet"]
    assert run.sheets[0].rows[1] == ["FitDiff (published)", "1.2"]
    assert "one photo had no face" in run.notes
    assert run.command == "python evaluate.py name=people"


def test_a_checkpoint_is_known_by_how_it_was_trained(tmp_path):
    training(tmp_path, "wide-s0", 2.0, denoiser__channels=64)
    evaluation(tmp_path, "people", {"x": 1.0}, checkpoint="wide-s0/model")
    evaluation(tmp_path, "other", {"x": 1.0}, checkpoint="elsewhere/model")
    runs = {run.name: run for run in find_runs(str(tmp_path / "evaluations")).runs}
    assert runs["people"].compared["checkpoint"]["denoiser"]["channels"] == 64
    assert runs["other"].compared["checkpoint"] == "elsewhere/model"


def test_a_checkpoint_is_looked_for_among_the_evaluations_own_folders_first(tmp_path, monkeypatch):
    for project, channels in (("theirs", 16), ("ours", 64)):
        training(tmp_path / project, "a", 2.0, denoiser__channels=channels)
    evaluation(tmp_path / "ours", "people", {"x": 1.0}, checkpoint="a/model")
    monkeypatch.chdir(tmp_path / "theirs")
    (run,) = find_runs(str(tmp_path / "ours" / "evaluations")).runs
    assert run.compared["checkpoint"]["denoiser"]["channels"] == 64


def test_a_checkpoint_that_was_trained_again_since_says_nothing_of_an_evaluation(tmp_path):
    sealed, other = ({"bytes": 1, "sha256": letter * 64} for letter in "ab")
    folder = training(tmp_path, "a", 2.0)
    write_json(folder / "model" / "config.json", {"weights": sealed})
    evaluation(tmp_path, "same", {"x": 1.0}, checkpoint="a/model", weights=sealed)
    evaluation(tmp_path, "since", {"x": 1.0}, checkpoint="a/model", weights=other)
    runs = {run.name: run for run in find_runs(str(tmp_path / "evaluations")).runs}
    assert runs["same"].compared["checkpoint"]["denoiser"]["channels"] == 32
    assert runs["since"].compared["checkpoint"] == "a/model"
    assert runs["since"].compared["weights"] == other


def test_what_is_cut_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("fitdiff.report.evaluation_run.LINES", 10)
    folder = evaluation(tmp_path, "people", {"x": 1.0})
    for name, lines in (("long", 12), ("whole", 10)):
        (folder / f"{name}.tsv").write_text("name\tmm\n" + "a\t1\n" * lines)
    (run,) = find_runs(str(tmp_path)).runs
    assert [len(sheet.rows) for sheet in run.sheets if sheet.name in ("long", "whole")] == [10, 10]
    assert [note for note in run.notes if "tsv" in note] == ["long.tsv has 12 lines, of which the first 10 are shown"]


def test_the_config_of_a_run_of_a_grid_is_found_under_multirun(tmp_path):
    run = training(tmp_path, "grid/a-s1", 2.0)
    (run / ".hydra").rename(tmp_path / "moved")
    job = tmp_path / "multirun" / "grid" / "a-s1" / "4"
    write_composed(job, changed(CONFIG, seed=7), ["experiment=grid", "seed=7"], mode="RunMode.MULTIRUN")
    (read,) = find_runs(str(run)).runs
    assert read.seed == 7
    assert read.command == "python train.py experiment=grid seed=7 hydra.mode=RUN"


def test_a_strangers_config_runs_no_resolver(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    config = {"seed": 4, "again": "${seed}", "stolen": "${oc.env:SECRET}", "through": "${stolen}"}
    write_composed(tmp_path, config, ["photo=my photo.jpg"], job="fit")
    read, command = read_hydra(tmp_path)
    assert read["again"] == 4
    assert "hunter2" not in json.dumps(read)
    assert read["stolen"] == "${oc.env:SECRET}"
    assert command == "python fit.py 'photo=my photo.jpg'"


@pytest.mark.parametrize(
    ("value", "expected"), [(1, 1.0), (True, None), ("1", None), (math.nan, None), (10**400, None)]
)
def test_numbers(value, expected):
    assert number(value) == expected


def test_flatten_and_natural():
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}
    assert sorted(["s10", "s2", "s"], key=natural) == ["s", "s2", "s10"]
