"""Intervals of means against scipy's and by how often they mislead; paired verdicts; seeds beside people."""

import numpy as np
import pytest
from scipy import stats

from fitdiff.evaluation import statistics
from fitdiff.evaluation.statistics import as_text, difference_interval, mean_interval, verdict

TRIALS = 1000


def test_over_people_it_is_students_interval():
    values = np.random.default_rng(1).gamma(2.0, size=8)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values) == pytest.approx((values.mean(), expected.low, expected.high))
    assert mean_interval(values[None]) == mean_interval(values)


def test_people_without_a_value_are_left_out():
    assert mean_interval(np.array([1.0, np.nan, 3.0]))[0] == 2
    assert np.isnan(mean_interval(np.array([np.nan]))).all()
    assert statistics.interval(np.array([np.nan]), ".2f") == "–"
    assert mean_interval(np.array([[1.0, np.nan, 3.0], [5.0, 7.0, np.nan]]))[0] == 3
    assert np.isnan(difference_interval(np.array([np.nan]), np.array([1.0]))).all()


def test_one_person_has_a_mean_and_no_interval():
    assert statistics.interval(np.array([2.0]), ".2f") == "2.00"
    assert verdict(np.array([2.0]), np.array([1.0]), higher_is_better=True) == "level"


def test_verdicts_are_paired():
    theirs = np.random.default_rng(0).normal(0, 10, 50)
    ours = theirs + np.random.default_rng(1).normal(1, 0.5, 50)  # far less than people differ
    assert verdict(ours, theirs, higher_is_better=True) == "beats"
    assert verdict(ours, theirs, higher_is_better=False) == "behind"
    assert verdict(theirs, ours, higher_is_better=False) == "beats"
    assert verdict(theirs, np.random.default_rng(2).permutation(theirs), True) == "level"
    assert verdict(theirs, theirs, True) == "level"


def test_seeds_alone_are_welchs_test():
    """Trainings that give every person the same: only seeds count."""
    rng = np.random.default_rng(4)
    ours, theirs = rng.normal(0, 1.0, 3), rng.normal(0, 3.0, 4)
    found = difference_interval(np.tile(ours[:, None], 20), np.tile(theirs[:, None], 20))
    expected = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    assert found == pytest.approx((ours.mean() - theirs.mean(), expected.low, expected.high))


def test_variances_of_people_and_of_seeds_add():
    rng = np.random.default_rng(5)
    people, seeds = rng.normal(0, 1.0, 200), rng.normal(0, 0.3, 50)
    _, low, high = mean_interval(seeds[:, None] + people)
    assert (high - low) / 2 == pytest.approx(1.98 * np.sqrt(people.var() / 200 + seeds.var() / 50), rel=0.02)


def test_a_difference_is_paired_over_people_and_not_over_seeds():
    rng = np.random.default_rng(6)
    people = rng.normal(0, 1000.0, 60)  # cancels in the difference
    ours, theirs = rng.normal(1, 0.2, (3, 60)), rng.normal(0, 0.2, (4, 60))
    found = difference_interval(people + ours, people + theirs)
    assert found == pytest.approx(difference_interval(ours, theirs))
    assert difference_interval(theirs, ours) == pytest.approx((-found[0], -found[2], -found[1]))
    assert difference_interval(ours[[2, 0, 1]], theirs) == pytest.approx(difference_interval(ours, theirs))
    with pytest.raises(ValueError, match="of 60 and of 59 people"):
        difference_interval(ours, theirs[:, 1:])


@pytest.mark.parametrize(
    ("seeds", "n", "of_seed", "of_person", "of_both"),
    [(1, 6, 0, 1, 0), (1, 8, 0, 1, 0), (3, 59, 1, 0, 0.01), (3, 59, 0.1, 0.5, 0.5), (3, 8, 0.3, 0.5, 0.1)],
    ids=["6 people", "8 people", "seeds alone", "mixed", "mixed, 8 people"],
)
def test_one_in_twenty_differs_by_chance(seeds, n, of_seed, of_person, of_both):
    """Methods that do not differ: people take to either, seeds scatter, and about 5% of verdicts are false."""
    rng = np.random.default_rng(seeds * 100 + n)

    def trainings():
        return rng.normal(0, of_seed, (TRIALS, seeds, 1)) + rng.normal(0, of_both, (TRIALS, seeds, n))

    ours = trainings() + rng.normal(0, of_person, (TRIALS, 1, n))
    said = [verdict(a, b, True) for a, b in zip(ours, trainings(), strict=True)]
    assert 0.03 <= 1 - said.count("level") / TRIALS <= 0.07


def test_an_end_that_leaves_out_0_is_never_written_as_0():
    assert as_text((-0.05, -0.09, -0.0004), "+.2f") == "-0.0500 (-0.0900 to -0.0004)"
    assert as_text((0.5, 0.004, 1.0), "+.2f") == "+0.500 (+0.004 to +1.000)"
    assert as_text((0.5, 0.006, 1.0), "+.2f") == "+0.50 (+0.01 to +1.00)"
    assert as_text((0.05, -0.004, 0.1), "+.2f") == "+0.05 (-0.00 to +0.10)"
    assert as_text((0.05, 0.0, 0.1), "+.2f") == "+0.05 (+0.00 to +0.10)"
