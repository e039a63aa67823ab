"""What trials draw and when they are pruned: by seed and results alone, however often the sweep was stopped."""

import numpy as np
import pytest
from optuna.trial import TrialState

from fitdiff.sweep.spec import SweepError, parse_spec
from fitdiff.sweep.study import SweepStudy, label

RANGE = {"min": -10.0, "max": 10.0}


def spec(method="bayes", goal="minimize", early=None, **parameters):
    return parse_spec(
        {
            "program": "train.py",
            "method": method,
            "metric": {"name": "diffusion/held_out/loss", "goal": goal},
            "command": ["${program}", "${args_no_hyphens}"],
            "parameters": parameters or {"x": RANGE},
            "early_terminate": early,
        }
    )


def study(folder, swept, cap=None, seed=0, name="s", **more):
    return SweepStudy(swept, name, folder, None, seed, cap, **more)


def loss(row):
    return (float(row["x"]) - 3) ** 2


def run(found):
    while (trial := found.ask()) is not None:
        found.tell(trial, loss(found.row(trial)))
    return [found.row(trial) for trial in found.trials]


def test_a_grid_is_run_once_in_order_whoever_asks(tmp_path):
    swept = spec("grid", x={"values": [1, 2, 3]}, y={"values": ["a", "b"]})
    first, second = study(tmp_path, swept), study(tmp_path, swept)
    asked = [found.row(found.ask()) for found in (first, second, second, first, second, first)]
    assert asked == swept.rows()
    assert first.ask() is None
    assert second.ask() is None


@pytest.mark.parametrize(("early", "cap"), [(None, 18), ({"type": "hyperband", "min_iter": 1}, 40)])
def test_a_search_gets_near_the_optimum_and_draws_better_with_time(tmp_path, early, cap):
    """By a Gaussian process, or TPE. Half of uniform draws are farther than 5 from the optimum: a loss of 25."""
    found = study(tmp_path, spec(early=early), cap=cap)
    losses = np.array([loss(row) for row in run(found)])
    assert loss(found.row(found.best())) == losses.min() < 0.05
    assert np.median(losses[10:]) < 25 / 2


def test_maximising_finds_the_greatest(tmp_path):
    found = study(tmp_path, spec("grid", "maximize", x={"values": [1, 5, 2]}))
    while (trial := found.ask()) is not None:
        found.tell(trial, float(found.row(trial)["x"]))
    assert found.row(found.best()) == {"x": "5"}


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_the_seed_decides_what_is_drawn_however_often_the_sweep_is_stopped(tmp_path, method):
    swept = spec(method, x=RANGE, y={"values": ["a", "b"]})
    whole = run(study(tmp_path / "whole", swept, cap=13))
    for cap in (3, 11, 13):
        parts = run(study(tmp_path / "parts", swept, cap=cap))
    assert parts == whole
    assert len({row["x"] for row in whole}) == 13
    assert run(study(tmp_path / "other", swept, cap=13, seed=1)) != whole


def test_an_interrupted_trial_goes_on_with_what_it_drew(tmp_path):
    first = study(tmp_path, spec(), cap=3)
    before = first.row(first.ask())
    again = study(tmp_path, spec(), cap=3)
    (trial,) = again.interrupted()
    assert again.row(trial) == before
    again.tell(trial, 1.0)
    assert again.interrupted() == []
    assert again.left() == 2


def test_another_machines_trials_are_left_to_it_unless_adopted(tmp_path):
    found = study(tmp_path, spec(), cap=3)
    found.ask().set_user_attr("host", "elsewhere")
    assert found.interrupted() == []
    assert [trial.number for trial in found.interrupted(adopt=True)] == [0]


def test_a_failed_trial_is_tried_again_under_its_own_name(tmp_path):
    found = study(tmp_path, spec("grid", x={"values": [1, 2]}))
    for _ in range(2):
        found.tell(found.ask(), reason="burst")
    assert found.ask() is None
    found.retry()
    found.retry()  # asked for twice, tried once
    assert found.left() == 2
    trial = found.ask()
    assert (label(trial), found.row(trial)) == ("trial-0", {"x": "1"})
    found.tell(trial, 4.0)
    found.tell(found.ask(), 1.0)
    assert [(label(trial), trial.state) for trial in found.trials] == [
        ("trial-0", TrialState.COMPLETE),
        ("trial-1", TrialState.COMPLETE),
    ]
    assert found.ask() is None


def test_losers_are_pruned_at_wandbs_brackets_and_nobody_else(tmp_path):
    swept = spec("grid", early={"type": "hyperband", "min_iter": 2, "eta": 2}, x={"values": [0, 1, 2, 3]})
    found = study(tmp_path, swept)
    trials = [found.ask() for _ in range(4)]
    assert not found.report(trials[0], [5.0, 5.0, 5.0])  # the first has no rival
    assert not found.report(trials[1], [9.0])  # not before the bracket
    assert found.report(trials[1], [9.0, 9.0])
    assert not found.report(trials[2], [9.0, 4.0])  # what counts is the bracket's value
    assert not found.report(trials[2], [9.0, 4.0])  # told already
    assert found.report(trials[3], [1.0, float("nan")])


def test_without_early_terminate_nobody_is_pruned(tmp_path):
    found = study(tmp_path, spec("grid", x={"values": [0, 1]}))
    trials = [found.ask() for _ in range(2)]
    assert not found.report(trials[0], [1.0] * 30)
    assert not found.report(trials[1], [9.0] * 30)


def test_half_a_line_at_the_journals_end_is_cut(tmp_path):
    run(study(tmp_path, spec(), cap=2))
    with (tmp_path / "study.journal").open("ab") as journal:
        journal.write(b'{"op_code": 4, "wor')
    assert len(run(study(tmp_path, spec(), cap=4))) == 4


def test_another_sweep_never_continues_this_one(tmp_path):
    run(study(tmp_path, spec(), cap=1))
    for other in ({"swept": spec("random")}, {"swept": spec(), "seed": 1}, {"swept": spec(goal="maximize")}):
        with pytest.raises(SweepError, match="another sweep named s"):
            study(tmp_path, cap=1, **other)
    with pytest.raises(SweepError, match="another sweep named s"):
        study(tmp_path, spec(), cap=1, origin=["scale=base"])
    with pytest.raises(SweepError, match="has no end: set run_cap"):
        study(tmp_path / "new", spec())


def test_one_runner_a_machine(tmp_path):
    found = study(tmp_path, spec(), cap=1)
    with found.alone(), pytest.raises(SweepError, match="is being run on this machine"), found.alone():
        pass
    with found.alone():
        pass
