"""Intervals of means against what is known of the mean; paired verdicts; seeds beside people."""

import numpy as np
import pytest

from fitdiff.evaluation import statistics


def test_the_bootstrap_s_interval_is_that_of_a_mean():
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    mean, low, high = statistics.bootstrap_mean(values)
    half = 1.96 * values.std() / 20
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.15 * half)


def test_people_without_a_value_are_left_out():
    assert statistics.bootstrap_mean(np.array([1.0, np.nan, 3.0]))[0] == 2
    assert np.isnan(statistics.bootstrap_mean(np.array([np.nan]))).all()
    assert statistics.interval(np.array([np.nan]), ".2f") == "–"
    assert statistics.bootstrap_over_seeds(np.array([[1.0, np.nan, 3.0], [5.0, 7.0, np.nan]]))[0] == 3
    assert np.isnan(statistics.paired_bootstrap(np.array([np.nan]), np.array([1.0]))).all()


def test_verdicts_are_paired():
    theirs = np.random.default_rng(0).normal(0, 10, 50)
    ours = theirs + np.random.default_rng(1).normal(1, 0.5, 50)  # far less than people differ
    assert statistics.verdict(ours, theirs, higher_is_better=True) == "beats"
    assert statistics.verdict(ours, theirs, higher_is_better=False) == "behind"
    assert statistics.verdict(theirs, ours, higher_is_better=False) == "beats"
    assert statistics.verdict(theirs, np.random.default_rng(2).permutation(theirs), True) == "level"
    assert statistics.verdict(theirs, theirs, True) == "level"


def test_one_seed_is_the_bootstrap_over_people():
    values = np.random.default_rng(3).normal(2.0, 1.0, 300)
    over_people, over_both = statistics.bootstrap_mean(values), statistics.bootstrap_over_seeds(values)
    assert over_both[0] == pytest.approx(over_people[0])
    assert over_both[1:] == pytest.approx(over_people[1:], abs=0.01)


def test_seeds_that_differ_widen_the_interval_by_their_variance():
    rng = np.random.default_rng(4)
    people, seeds = rng.normal(0, 1.0, 200), rng.normal(0, 0.3, 50)
    _, low, high = statistics.bootstrap_over_seeds(seeds[:, None] + people)
    expected = 1.96 * np.sqrt(people.var() / 200 + seeds.var() / 50)
    assert (high - low) / 2 == pytest.approx(expected, rel=0.08)


def test_a_difference_is_paired_over_people_and_not_over_seeds():
    rng = np.random.default_rng(5)
    people = rng.normal(0, 10.0, 60)  # cancels in the difference
    ours = people + 1.0 + rng.normal(0, 0.2, (3, 1))
    theirs = people + rng.normal(0, 0.2, (4, 1))
    mean, low, high = statistics.paired_bootstrap(ours, theirs)
    assert mean == pytest.approx((ours - people).mean() - (theirs - people).mean())
    variance = (ours - people)[:, 0].var() / 3 + (theirs - people)[:, 0].var() / 4
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(variance), rel=0.2)
    backwards = statistics.paired_bootstrap(theirs, ours)
    assert backwards[0] == pytest.approx(-mean)
    with pytest.raises(ValueError, match="of 60 and of 59 people"):
        statistics.paired_bootstrap(ours, theirs[:, 1:])
