"""Runs that still go, or have ended before their time, neither speak for those that finished nor win."""

import os
import time
from pathlib import Path

import pytest

from fitdiff.report import Run, find_runs
from fitdiff.report.charts import charts
from fitdiff.report.groups import group_runs
from fitdiff.report.runs import TRAINING, Curve, Number
from fitdiff.report.tables import overview
from fitdiff.storage import write_json
from tests.unit.report_runs import training

SHAPE = "diffusion/shape_mm"


def log_of(outputs, name):
    return outputs / "stages" / f"diffusion-{name}" / "log.jsonl"


def evaluated_at(outputs, name, step, shape_mm):
    """Its newest evaluation says `shape_mm`."""
    with log_of(outputs, name).open("a") as file:
        file.write(f'{{"step": {step}, "held_out/shape_mm": {shape_mm}}}\n')


def read(outputs):
    return {run.name: run for run in find_runs(str(outputs)).runs}


def shapes(outputs):
    table = overview(group_runs(find_runs(str(outputs)).runs))
    (column,) = (i for i, column in enumerate(table.columns) if column.name == "shape_mm")
    return {row.cells[0].text: row.cells[column] for row in table.rows}


def test_an_unfinished_seed_is_not_averaged_with_finished_ones(tmp_path):
    for seed in range(3):
        training(tmp_path, f"a-s{seed}", 2.0, seed=seed, finished=seed < 2)
    evaluated_at(tmp_path, "a-s2", 30, 50.0)
    (group,) = group_runs(find_runs(str(tmp_path)).runs)
    estimate = group.estimate(SHAPE)
    assert (estimate.mean, estimate.low, estimate.high, estimate.n) == (2.0, 2.0, 2.0, 2)
    assert estimate.lacking == 1
    assert group.estimate("autoencoder/psnr_diffuse").lacking == 0, "the stage that all share has finished"


def test_the_best_has_finished(tmp_path):
    training(tmp_path, "half", 1.0, finished=False, denoiser__channels=16)
    evaluated_at(tmp_path, "half", 26, 0.5)
    training(tmp_path, "good", 2.0)
    training(tmp_path, "bad", 3.0, denoiser__channels=64)
    cells = shapes(tmp_path)
    assert {name: cell.mark for name, cell in cells.items()} == {"half": "", "good": "best", "bad": ""}
    assert (cells["half"].text, cells["half"].detail) == ("0.5", "so far")
    assert cells["good"].detail == ""


def test_what_a_run_took_is_of_the_seeds_that_finished(tmp_path):
    for seed in range(3):
        training(tmp_path, f"a-s{seed}", 2.0, seed=seed, finished=seed < 2)
    (row,) = overview(group_runs(find_runs(str(tmp_path)).runs)).rows
    assert row.cells[3].value == 160.0


def test_failed_and_running_are_told_apart(tmp_path):
    for name in ("failed", "running", "finished"):
        training(tmp_path, name, 2.0, finished=name == "finished")
    reason = "RuntimeError: CUDA out of memory.\n" + "Tried to allocate 20 GiB. " * 20
    write_json(tmp_path / "failed" / "failed.json", {"reason": reason, "date": "2026-11-23T03:00:00+00:00"})
    hours_ago = time.time() - 3 * 3600
    os.utime(log_of(tmp_path, "running"), (hours_ago, hours_ago))
    for path in tmp_path.glob("stages/autoencoder-*/*.json*"):
        os.utime(path, (hours_ago - 100, hours_ago - 100))
    runs = read(tmp_path)
    assert runs["running"].status == "unfinished: diffusion at step 25 of 40, last written 3.0 h ago"
    assert runs["failed"].status.startswith("failed: RuntimeError: CUDA out of memory. Tried")
    assert len(runs["failed"].status) < 200
    (note,) = runs["failed"].notes
    assert note.startswith("failed at 2026-11-23T03:00:00+00:00, diffusion at step 25 of 40: RuntimeError")
    assert note.endswith("20 GiB.")
    assert (runs["finished"].status, runs["finished"].notes) == ("finished", [])


@pytest.mark.parametrize("text", ["{", "[]", '{"reason": 3}'])
def test_a_damaged_reason_is_a_failure_all_the_same(tmp_path, text):
    folder = training(tmp_path, "run", 2.0, finished=False)
    (folder / "failed.json").write_text(text)
    assert read(tmp_path)["run"].status == "failed: the reason was not recorded"


def test_each_state_of_a_group_is_counted(tmp_path):
    for seed in range(4):
        folder = training(tmp_path, f"a-s{seed}", 2.0, seed=seed, finished=seed == 0)
        if seed == 1:
            write_json(folder / "failed.json", {"reason": "no disk space left", "date": "2026-11-23"})
    (row,) = overview(group_runs(find_runs(str(tmp_path)).runs)).rows
    state = row.cells[2].text
    assert state.startswith("1 of 4 failed: no disk space left; 2 of 4 unfinished: diffusion at step 25")


def run_of(name, steps, seed):
    curves = {"diffusion/loss": Curve(tuple(steps), tuple(float(step + seed) for step in steps), name)}
    config = {"seed": seed}
    numbers = {SHAPE: Number(1.0, name)}
    return Run(name, Path(name), TRAINING, config=config, compared=config, numbers=numbers, curves=curves)


def test_a_seed_that_was_cut_short_is_drawn_but_does_not_cut_the_mean():
    lengths = (100, 96, 3)
    (chart,) = charts(group_runs([run_of(f"a-s{i}", range(1, n + 1), i) for i, n in enumerate(lengths)]))
    (line,) = chart.lines
    assert line.last == "96.5 at step 96", "of the two that came so far, where both have values"
    assert len(line.thin) == 3
    assert not line.band, "two are too few for an interval"
