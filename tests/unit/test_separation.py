"""Separation of people by embeddings, against brute force, scikit-learn and closed forms."""

import itertools

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from fitdiff.evaluation.separation import Pairs, all_pairs, rank_one, separation, separation_with_intervals


def people(n=12, views=3, spread=0.7, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 1, 5)) + spread * rng.normal(size=(n, views, 5))


def brute_force(embedding):
    genuine, impostor = [], []
    portraits = [(i, e) for i, views in enumerate(embedding) for e in views]
    for (i, a), (j, b) in itertools.combinations(portraits, 2):
        (genuine if i == j else impostor).append(float(np.linalg.norm(a - b)))
    return np.array(genuine), np.array(impostor)


def from_distances(genuine, impostor):
    """Pairs of many people, each pair with people of its own."""
    order = np.argsort(impostor)
    return Pairs(
        np.sort(genuine), np.zeros(len(genuine), int), np.array(impostor)[order], np.zeros((len(impostor), 2), int)
    )


def test_pairs_are_all_pairs():
    embedding = people()
    genuine, impostor = brute_force(embedding)
    pairs = all_pairs(embedding)
    assert np.allclose(pairs.genuine, np.sort(genuine))
    assert np.allclose(pairs.impostor, np.sort(impostor))
    assert (pairs.impostor_people[:, 0] != pairs.impostor_people[:, 1]).all()


def test_auc_agrees_with_scikit_learn_and_with_its_definition():
    embedding = people()
    genuine, impostor = brute_force(embedding)
    ours = separation(all_pairs(embedding))["auc"]
    labels = np.repeat([0, 1], [len(genuine), len(impostor)])
    assert ours == pytest.approx(roc_auc_score(labels, np.concatenate([genuine, impostor])), abs=1e-12)
    assert ours == pytest.approx((impostor > genuine[:, None]).mean(), abs=1e-12)


def test_ties_count_by_halves():
    assert separation(from_distances([1.0, 1.0], [1.0, 1.0, 1.0]))["auc"] == 0.5
    assert separation(from_distances([1.0, 2.0], [2.0, 3.0]))["auc"] == pytest.approx(1 - 0.5 / 4)


def test_gaussians_have_the_known_auc_error_and_d_prime():
    # N(0, 1) against N(d, 1): AUC = Phi(d / sqrt 2), EER = Phi(-d / 2), d' = d.
    n, d = 20_001, 1.7
    quantiles = norm.ppf((np.arange(n) + 0.5) / n)
    result = separation(from_distances(quantiles, quantiles + d), threshold=0.3)
    assert result["auc"] == pytest.approx(norm.cdf(d / np.sqrt(2)), abs=1e-4)
    assert result["eer"] == pytest.approx(norm.cdf(-d / 2), abs=1e-4)
    assert result["d_prime"] == pytest.approx(d, abs=1e-3)
    assert result["false_accepts"] == pytest.approx(norm.cdf(0.3 - d), abs=1e-4)
    assert result["false_rejects"] == pytest.approx(norm.sf(0.3), abs=1e-4)


def test_perfect_and_hopeless_separation():
    perfect = separation(from_distances([0.1, 0.2], [0.8, 0.9]))
    assert (perfect["auc"], perfect["eer"], perfect["false_accepts"], perfect["false_rejects"]) == (1, 0, 0, 0)
    hopeless = separation(from_distances([0.8, 0.9], [0.1, 0.2]))
    assert (hopeless["auc"], hopeless["eer"]) == (0, 1)


def test_copies_count_as_repeated_people():
    embedding = people(n=6)
    copies = np.array([2, 0, 1, 3, 1, 1])
    repeated = np.repeat(np.arange(6), copies)
    genuine = [d for i in repeated for d in brute_force(embedding[i : i + 1])[0]]
    impostor = [
        float(np.linalg.norm(a - b))
        for i, j in itertools.combinations(repeated, 2)
        if i != j
        for a in embedding[i]
        for b in embedding[j]
    ]
    weighted, repeated_pairs = separation(all_pairs(embedding), copies), separation(from_distances(genuine, impostor))
    for key in repeated_pairs:
        assert weighted[key] == pytest.approx(repeated_pairs[key], abs=1e-9), key


def test_rank_one_against_a_loop():
    embedding = people(n=9, spread=1.2)
    expected = np.zeros(9)
    for i, view in itertools.product(range(9), range(3)):
        distance = [np.linalg.norm(embedding[i, view] - embedding[j, (view + 1) % 3]) for j in range(9)]
        expected[i] += (np.argmin(distance) == i) / 3
    assert np.allclose(rank_one(embedding), expected)
    assert 0 < expected.mean() < 1


def test_intervals_hold_the_value_and_shrink_with_people():
    few, many = (separation_with_intervals(people(n=n), resamples=60)["auc"] for n in (15, 150))
    for value, low, high in (few, many):
        assert low <= value <= high
    assert many[2] - many[1] < 0.6 * (few[2] - few[1])


def test_one_portrait_is_not_enough():
    with pytest.raises(ValueError, match="portraits >= 2"):
        all_pairs(np.zeros((5, 1, 8)))
