"""Verification against counting by hand and against normal distributions."""

import itertools

import numpy as np
import pytest
from scipy.stats import norm

from fitdiff.evaluation.verification import cosines, same_and_different, tar_at, threshold_at


def test_pairs_are_those_of_two_loops():
    rng = np.random.default_rng(0)
    embedding, people = rng.normal(size=(7, 5)), ["a", "b", "a", "c", "b", "a", "d"]
    same, different = [], []
    for i, j in itertools.combinations(range(7), 2):
        u, v = embedding[i], embedding[j]
        (same if people[i] == people[j] else different).append(u @ v / np.linalg.norm(u) / np.linalg.norm(v))
    ours = same_and_different(embedding, people)
    np.testing.assert_allclose(ours[0], same, atol=1e-12)
    np.testing.assert_allclose(ours[1], different, atol=1e-12)
    np.testing.assert_allclose(cosines(embedding[:2], 3 * embedding[:2]), 1)


def test_no_more_impostors_pass_than_allowed_and_ties_count_against():
    impostors = np.arange(100) / 100
    assert threshold_at(impostors, 0.1) == 0.89  # 0.90 to 0.99 pass: ten of a hundred
    assert (impostors > threshold_at(impostors, 0.1)).mean() == pytest.approx(0.1)
    assert tar_at([0.89, 0.895, 0.5, 0.99], impostors, 0.1) == 0.5
    tied = np.full(100, 0.5)
    assert tar_at([0.5, 0.6], tied, 0.1) == 0.5


def test_a_rate_that_too_few_pairs_can_tell_is_none():
    assert threshold_at(np.arange(99), 0.01) is None
    assert threshold_at(np.arange(100), 0.01) == 98
    assert tar_at([], np.arange(100), 0.01) is None
    assert tar_at([1.0], [], 0.1) is None


def test_normal_scores_give_the_closed_form():
    rng = np.random.default_rng(1)
    genuine, impostors = rng.normal(2, 1, 20_000), rng.normal(0, 1, 200_000)
    for far in (0.1, 0.01, 0.001):
        assert tar_at(genuine, impostors, far) == pytest.approx(norm.sf(norm.isf(far) - 2), abs=0.015)
