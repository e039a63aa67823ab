"""R^2 from embeddings: exact on a linear model, equal to scikit-learn's ridge, honest about people."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from fitdiff.evaluation.predictability import predictability, ridge_path


def linear_people(n, noise, seed=0, views=2, d=8, t=5):
    rng = np.random.default_rng(seed)
    embedding = np.repeat(rng.normal(size=(n, 1, d)), views, 1)
    weights, _ = np.linalg.qr(rng.normal(size=(d, t)))  # unit columns: each target has variance 1
    signal = embedding[:, 0] @ weights
    return embedding, signal + noise * rng.normal(size=(n, t))


def test_a_linear_model_is_found():
    embedding, targets = linear_people(300, 0.0)
    assert predictability(embedding, targets, slice(200), slice(200, None)).r2 == pytest.approx(1, abs=1e-6)


def test_noise_of_the_signal_s_size_leaves_half():
    embedding, targets = linear_people(6000, 1.0)
    result = predictability(embedding, targets, slice(4000), slice(4000, None))
    assert result.r2 == pytest.approx(0.5, abs=0.05)
    assert result.low < result.r2 < result.high
    assert result.high - result.low < 0.08


def test_nothing_is_predicted_from_nothing():
    rng = np.random.default_rng(1)
    result = predictability(rng.normal(size=(400, 2, 8)), rng.normal(size=(400, 5)), slice(300), slice(300, None))
    assert -0.05 < result.r2 < 0.02


def test_ridge_equals_scikit_learn():
    rng = np.random.default_rng(2)
    x, y, new = rng.normal(size=(40, 6)) + 3, rng.normal(size=(40, 4)), rng.normal(size=(10, 6))
    for alpha, ours in zip((0.1, 30.0), ridge_path(x, y, new, (0.1, 30.0)), strict=True):
        assert np.allclose(ours, Ridge(alpha=alpha).fit(x, y).predict(new))


def test_r2_is_that_of_all_targets_together():
    embedding, targets = linear_people(200, 0.3)
    targets = targets * [1, 10, 1, 1, 1]
    result = predictability(embedding, targets, slice(150), slice(150, None))
    x = embedding[:, 0]
    x = (x - x[:150].mean(0)) / x[:150].std(0)
    predicted = Ridge(alpha=result.alpha / 2).fit(x[:150], targets[:150]).predict(x[150:])  # two equal views: alpha / 2
    baseline = ((targets[150:] - targets[:150].mean(0)) ** 2).sum()
    assert result.r2 == pytest.approx(1 - ((targets[150:] - predicted) ** 2).sum() / baseline, abs=1e-9)
    assert result.r2 == pytest.approx(r2_score(targets[150:], predicted, multioutput="variance_weighted"), abs=0.02)


def test_portraits_of_one_person_never_cross_folds():
    # Every portrait of a person says who it is, and nothing about targets: only leaking folds would like a low penalty.
    rng = np.random.default_rng(3)
    embedding = np.repeat(rng.normal(size=(40, 1, 40)), 4, 1)
    result = predictability(embedding, rng.normal(size=(40, 3)), slice(35), slice(35, None))
    assert result.alpha >= 100


def test_too_few_people():
    embedding, targets = linear_people(10, 0.1)
    with pytest.raises(ValueError, match="got 4 training people, expected at least 5"):
        predictability(embedding, targets, slice(4), slice(4, None))
