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


def study(folder, swept, cap=None, seed=0, name="s", overrides=()):
    return SweepStudy(swept, name, folder, None, seed, cap, overrides, folder / "results")


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
    assert found.best().value == losses.min() < 0.05
    assert np.median(losses[10:]) < 25 / 2


def test_maximising_finds_the_greatest(tmp_path):
    found = study(tmp_path, spec("grid", "maximize", x={"values": [1, 5, 2]}))
    while (trial := found.ask()) is not None:
        found.tell(trial, float(found.row(trial)["x"]))
    assert found.best().overrides == {"x": "5"}


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


def test_a_retry_before_the_grid_is_exhausted_leaves_every_row_its_turn(tmp_path):
    swept = spec("grid", x={"values": [10, 11, 12, 13]})
    short = study(tmp_path, swept, cap=2)
    short.tell(short.ask(), reason="burst")
    short.tell(short.ask(), 1.0)
    whole = study(tmp_path, swept)
    whole.retry()
    run(whole)
    assert {label(trial): whole.row(trial)["x"] for trial in whole.trials} == {
        f"trial-{k}": str(10 + k) for k in range(4)
    }
    assert whole.left() == 0


def test_a_retry_changes_nothing_of_what_is_drawn_later(tmp_path):
    plain, tried = (study(tmp_path / name, spec("random"), cap=4) for name in ("plain", "tried"))
    tried.tell(tried.ask(), reason="burst")
    tried.retry()
    run(tried)
    assert [found["x"] for found in map(tried.row, sorted(tried.trials, key=label))] == [r["x"] for r in run(plain)]


def test_the_best_is_that_of_all_seeds_and_not_the_luckiest(tmp_path):
    losses = {("a", "0"): 5.0, ("a", "1"): 1.0, ("b", "0"): 2.5, ("b", "1"): 2.5, ("c", "0"): 0.0}
    found = study(tmp_path, spec("grid", x={"values": ["a", "b", "c"]}, seed={"values": [0, 1]}))
    while (trial := found.ask()) is not None:
        row = found.row(trial)
        value = losses.get((row["x"], row["seed"]))
        found.tell(trial, value, None if value is not None else "burst")
    best = found.best()  # c has one seed alone
    assert best.overrides == {"x": "b"}
    assert best.value == 2.5
    assert [label(trial) for trial in best.trials] == ["trial-2", "trial-3"]


def test_what_other_machines_began_is_under_way_while_their_runner_is_at_work_and_else_left(tmp_path, monkeypatch):
    here = study(tmp_path, spec(), cap=3)
    monkeypatch.setattr("fitdiff.sweep.study.HOST", "node1")
    there = study(tmp_path, spec(), cap=3)
    with there.alone():
        there.ask()
        monkeypatch.undo()
        assert [trial.number for trial in here.under_way()] == [0]
        assert here.left_elsewhere() == {}
    assert here.under_way() == []
    assert here.left_elsewhere() == {"node1": 1}
    here.interrupted(adopt=True)
    assert here.left_elsewhere() == {}


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
        study(tmp_path, spec(), cap=1, overrides=["scale=base"])
    with pytest.raises(SweepError, match="has no end: set run_cap"):
        study(tmp_path / "new", spec())


def test_where_trials_run_and_who_is_told_may_change(tmp_path):
    run(study(tmp_path, spec(), cap=1, overrides=["scale=base", "tracker=wandb"]))
    idle = ["hydra.launcher.timeout_min=480", "hydra/launcher=joblib", "+tracker.wandb.mode=offline", "device=cpu"]
    assert study(tmp_path, spec(), cap=1, overrides=["scale=base", *idle]).left() == 0
    with pytest.raises(SweepError, match=r"and its results, .*results$"):
        study(tmp_path, spec(), cap=1, overrides=["scale=base", "stage.diffusion.batch_size=2"])


def test_one_runner_a_machine(tmp_path):
    found = study(tmp_path, spec(), cap=1)
    with found.alone(), pytest.raises(SweepError, match="is being run on this machine"), found.alone():
        pass
    with found.alone():
        pass
