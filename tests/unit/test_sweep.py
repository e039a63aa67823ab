"""Sweeps of a small program with a known optimum: what runs, what is pruned, what a kill leaves, what is told."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import yaml
from rich.console import Console

from fitdiff.sweep import summary
from fitdiff.sweep.__main__ import Options, main
from fitdiff.sweep.spec import SweepError, read_spec
from fitdiff.sweep.study import SweepStudy
from tests.conftest import ROOT

PROGRAM = ROOT / "tests" / "sweep_program" / "train.py"


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Write a sweep file and run it; gives what was said and `sweep.json`."""
    monkeypatch.chdir(ROOT)

    def run(values=(1, 2, 3), early=None, seeds=None, **options):
        said = io.StringIO()
        asked = {"file": str(write(tmp_path, values, early, seeds)), "outputs": str(tmp_path), "poll": 0.01} | options
        main(Options(**asked), Console(file=said, soft_wrap=True))
        return said.getvalue(), json.loads((tmp_path / "sweeps" / "quick" / "sweep.json").read_text())

    return run


def write(folder, values, early=None, seeds=None):
    source = {
        "program": str(PROGRAM),
        "method": "grid",
        "metric": {"name": "diffusion/held_out/loss", "goal": "minimize"},
        "command": ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"],
        "parameters": {"x": {"values": list(values)}} | ({"seed": {"values": seeds}} if seeds else {}),
    }
    (folder / "quick.yaml").write_text(yaml.safe_dump(source | ({"early_terminate": early} if early else {})))
    return folder / "quick.yaml"


def states(found):
    return {trial["overrides"]["x"]: trial["state"] for trial in found["trials"]}


def starts(folder, name="quick"):
    """From how many steps each trial's process began, each time."""
    return {path.parent.name: path.read_text().split() for path in (folder / name).glob("*/starts")}


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_grid_is_run_whole_and_the_best_is_named_as_a_command(sweep, tmp_path, jobs):
    said, found = sweep(jobs=jobs)
    assert states(found) == {"1": "done", "2": "done", "3": "done"}
    assert [trial["value"] for trial in found["trials"]] == [4.0, 1.0, 0.0]
    assert found["trials"][0]["curve"] == pytest.approx([5, 4.5, 4 + 1 / 3])
    best = found["best"]
    assert best["names"] == ["trial-2"]
    assert best["folders"] == [str(tmp_path / "quick" / "trial-2")]
    (command,) = best["commands"]
    assert command.split()[1:] == [str(PROGRAM), "x=3", f"outputs={tmp_path}", "name=quick/trial-2"]
    assert said.count(command) == 2  # when it began, and at the end
    assert "2 of 3 done" in said
    assert json.loads((tmp_path / "quick" / "trial-2" / "metrics.json").read_text()) == {"diffusion": {"loss": 0.0}}
    assert {path.name for path in (tmp_path / "sweeps" / "quick").glob("*.png")} == {"trials.png"}


def test_the_same_command_runs_nothing_twice_and_a_higher_cap_runs_the_rest(sweep, tmp_path):
    sweep(trials=2)
    sweep(trials=2)
    assert starts(tmp_path) == {"trial-0": ["0"], "trial-1": ["0"]}
    sweep()
    assert starts(tmp_path) == {"trial-0": ["0"], "trial-1": ["0"], "trial-2": ["0"]}


def test_a_failed_trial_is_told_with_its_log_and_stops_nothing(sweep, tmp_path):
    said, found = sweep(overrides="bursts=2")
    assert states(found) == {"1": "done", "2": "failed", "3": "done"}
    assert found["trials"][1]["reason"] == "ended with code 1"
    assert "the loss is not finite" in said
    assert "retry=true runs them again" in said
    sweep(overrides="bursts=2", retry=True)
    assert starts(tmp_path) == {"trial-0": ["0"], "trial-1": ["0", "0"], "trial-2": ["0"]}


def test_three_failures_and_nothing_else_end_a_sweep(sweep, tmp_path):
    with pytest.raises(SweepError, match=r"first 3 trials failed, .* code 1, 'the loss is not finite' .*trial-2\.log"):
        sweep(values=[1, 2, 3, 4, 5], overrides="bursts_from=1", name="hopeless")
    assert set(starts(tmp_path, "hopeless")) == {"trial-0", "trial-1", "trial-2"}
    _, found = sweep(values=[1, 2, 3, 4, 5], overrides="bursts_from=2")
    assert [trial["state"] for trial in found["trials"]] == ["done"] + 4 * ["failed"]


def test_a_damaged_log_fails_its_trial_alone(sweep):
    """The trial hangs until it is asked to stop."""
    _, found = sweep(overrides="garbles=2")
    assert states(found) == {"1": "done", "2": "failed", "3": "done"}
    assert "line 1 is damaged" in found["trials"][1]["reason"]


def test_curves_and_results_of_an_earlier_sweep_are_not_believed(sweep, tmp_path):
    stale = tmp_path / "quick" / "trial-1"
    (stale / "old").mkdir(parents=True)
    (stale / "stages.json").write_text('{"diffusion": "old"}')
    (stale / "old" / "log.jsonl").write_text('{"step": 1, "held_out/loss": 99}\n')
    _, found = sweep([2.9, 3], {"type": "hyperband", "min_iter": 1, "eta": 2})
    assert states(found) == {"2.9": "done", "3": "done"}
    assert 99 not in found["trials"][1]["curve"]


def test_the_mean_of_the_seeds_decides(sweep, tmp_path):
    said, found = sweep([2, 3], seeds=[0, 2])
    assert found["best"]["names"] == ["trial-1", "trial-3"]
    assert (found["best"]["value"], found["best"]["overrides"]) == (1.0, {"x": "3"})
    assert "best: trial-1, trial-3, diffusion/held_out/loss = 1 (mean of 2 seeds); as a command:" in said
    assert {path.name for path in (tmp_path / "sweeps" / "quick").glob("*.png")} == {"trials.png"}


def begin_elsewhere(tmp_path, monkeypatch, values=(1, 2, 3)):
    """A study of `sweep`'s as another machine has it, which has begun its first trial."""
    monkeypatch.setattr("fitdiff.sweep.study.HOST", "node1")
    spec, folder = read_spec(write(tmp_path, values)), tmp_path / "sweeps" / "quick"
    there = SweepStudy(spec, "quick", folder, None, 0, None, [], tmp_path / "quick")
    with there.alone():
        there.ask()
        yield
    monkeypatch.undo()


def test_what_another_host_left_is_told_and_adopted_when_asked(sweep, tmp_path, monkeypatch):
    list(begin_elsewhere(tmp_path, monkeypatch))
    monkeypatch.chdir(ROOT)
    said, found = sweep()
    assert said.count("1 trial was begun on node1") == 2  # at the start and at the end
    assert [trial["state"] for trial in found["trials"]] == ["unfinished", "done", "done"]
    said, found = sweep(adopt=True)
    assert "node1" not in said
    assert states(found) == {"1": "done", "2": "done", "3": "done"}


def test_trials_wait_for_one_that_prepares_on_another_machine(sweep, tmp_path, monkeypatch):
    stage, began = tmp_path / "quick" / "trial-0" / "stage", []

    def sleep(seconds):
        began.append(len(starts(tmp_path)))
        if len(began) == 3:  # the other machine's trial has come to its last stage
            stage.mkdir(parents=True)
            (stage.parent / "stages.json").write_text('{"diffusion": "stage"}')
        pause(seconds)

    other = begin_elsewhere(tmp_path, monkeypatch)
    next(other)
    monkeypatch.setattr("fitdiff.sweep.study.HOST", "node2")
    pause = time.sleep
    monkeypatch.setattr("fitdiff.sweep.runner.time.sleep", sleep)
    _, found = sweep()
    assert began[:3] == [0, 0, 0]
    assert [trial["state"] for trial in found["trials"]] == ["unfinished", "done", "done"]
    list(other)


def test_each_of_the_trials_at_once_has_a_gpu_of_its_own(sweep, tmp_path):
    def ask():
        for trial in (1, 2):
            wait_until_it_holds(tmp_path, lambda: True, trial)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=ask, daemon=True).start()
    said, _ = sweep([1, 10, 11, 12], overrides="holds=10", gpus="4,GPU-7")  # and so two at once
    seen = [(tmp_path / "quick" / f"trial-{k}" / "gpu").read_text() for k in (1, 2)]
    assert sorted(seen) == ["4", "GPU-7"]
    assert f"trial-1: CUDA_VISIBLE_DEVICES={seen[0]} " in said
    assert not (tmp_path / "quick" / "trial-3").exists()


def test_a_sweep_without_a_finished_trial_fails(sweep):
    with pytest.raises(SweepError, match="no trial came to its end"):
        sweep(values=[2], overrides="bursts=2")


def test_losers_are_stopped_early_and_winners_are_not(sweep, tmp_path):
    """Trials at 10 and more hang until they are asked to stop: unless they are pruned, they fail."""
    early = {"type": "hyperband", "min_iter": 1, "eta": 2}
    _, found = sweep([2.9, 10, 3, 12], early, overrides="holds=10")
    assert states(found) == {"2.9": "done", "10": "pruned", "3": "done", "12": "pruned"}
    assert found["best"]["overrides"] == {"x": "3"}
    assert not (tmp_path / "quick" / "trial-1" / "metrics.json").exists()


def wait_until_it_holds(folder, alive, trial=1):
    log = folder / "quick" / f"trial-{trial}" / "stage" / "log.jsonl"
    while alive() and not (log.exists() and len(log.read_text().splitlines()) == 2):
        time.sleep(0.01)


def continues(sweep, folder):
    _, found = sweep(overrides="holds_once=2")
    assert states(found) == {"1": "done", "2": "done", "3": "done"}
    assert starts(folder) == {"trial-0": ["0"], "trial-1": ["0", "2"], "trial-2": ["0"]}


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is Unix's")
def test_killed_at_a_trial_the_same_command_continues_it_and_repeats_nothing(sweep, tmp_path):
    options = {"file": write(tmp_path, (1, 2, 3)), "outputs": tmp_path, "overrides": "holds_once=2", "poll": 0.01}
    words = [f"{key}={value}" for key, value in options.items()]
    runner = subprocess.Popen([sys.executable, "-m", "fitdiff.sweep", *words], cwd=ROOT, stderr=subprocess.DEVNULL)
    wait_until_it_holds(tmp_path, lambda: runner.poll() is None)
    runner.kill()
    runner.wait()
    continues(sweep, tmp_path)  # its trial hangs still, until it is asked to stop


def test_asked_to_stop_it_stops_its_trials_and_the_same_command_continues(sweep, tmp_path):
    def ask():
        wait_until_it_holds(tmp_path, lambda: True)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=ask, daemon=True).start()
    said, found = sweep(overrides="holds_once=2")
    assert "stopped by SIGTERM; the same command continues" in said
    assert states(found) == {"1": "done"}
    continues(sweep, tmp_path)


def test_a_grid_goes_to_a_launcher_as_one_command(sweep, tmp_path, monkeypatch):
    calls = []

    def multirun(command, **_):
        calls.append(command)
        for job, x in enumerate(next(w for w in command if w.startswith("x="))[2:].split(",")):
            words = [
                sys.executable,
                str(PROGRAM),
                f"x={x}",
                *(w for w in command if w.startswith(("outputs=", "bursts="))),
            ]
            subprocess.call([*words, f"name=quick/trial-{job}"], stderr=subprocess.DEVNULL)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr("fitdiff.sweep.launch.subprocess.run", multirun)
    stale = tmp_path / "quick" / "trial-1" / "metrics.json"  # of an earlier sweep
    stale.parent.mkdir(parents=True)
    stale.write_text('{"diffusion": {"loss": 7}}')
    _, found = sweep(launcher="joblib", overrides="bursts=2")
    assert calls[0][1:] == [
        str(PROGRAM), "x=1,2,3", "bursts=2", "hydra/launcher=joblib", "hydra.sweep.dir=${outputs}/multirun/quick",
        f"outputs={tmp_path}", "name=quick/trial-${hydra:job.num}", "-m",
    ]  # fmt: skip
    assert states(found) == {"1": "done", "2": "failed", "3": "done"}
    assert found["trials"][1]["reason"].endswith("diffusion has no loss; it has nothing")
    _, again = sweep(launcher="joblib", overrides="bursts=2")
    assert len(calls) == 2  # for the one that failed
    assert states(again) == states(found)
    with pytest.raises(SweepError, match="runs all 3 rows"):
        sweep(launcher="joblib", trials=2, name="other")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "a/b"}, "name: got 'a/b'"),
        ({"jobs": 0}, "jobs: got 0, expected 1 or more"),
        ({"gpus": "0,1", "launcher": "joblib"}, "gpus: launcher=joblib hands out GPUs itself"),
    ],
)
def test_wrong_options_are_named(sweep, options, message):
    with pytest.raises(SweepError, match=message):
        sweep(**options)


def test_a_dry_grid_prints_its_commands(sweep, tmp_path, capsys):
    with pytest.raises(FileNotFoundError):  # nothing ran
        sweep(dry=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-3:] for line in lines] == [
        [f"x={x}", f"outputs={tmp_path}", f"name=quick/trial-{k}"] for k, x in enumerate((1, 2, 3))
    ]


def test_the_table_shows_that_alone_in_which_trials_differ():
    weights = [{"benchmark": "people", "guidance.mse.weight": str(i), "guidance.vgg.weight": "2" * i} for i in (1, 2)]
    trials = [
        {"name": f"trial-{i}", "state": "done", "value": 0.5, "seconds": 3.0, "overrides": row}
        for i, row in enumerate(weights)
    ]
    table = summary._table({"metric": "people/shape_mm", "trials": trials, "best": None})
    assert [column.header for column in table.columns] == ["trial", "state", "s", "shape_mm", "mse", "vgg"]
    assert [list(column.cells) for column in table.columns[4:]] == [["1", "2"], ["2", "22"]]
    assert summary._short(["seed"]) == ["seed"]
    assert summary._short(["a.b", "a.b.c"]) == ["b", "b.c"]
