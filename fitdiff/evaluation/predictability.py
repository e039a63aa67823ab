"""How much of a person's shape and skin an identity embedding tells: R^2 of ridge regression on held-out people.

Legend of shape suffixes: N people · V portraits of each · D embedding · T targets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fitdiff.evaluation.separation import bootstrap

ALPHAS = tuple(10.0**k for k in range(-2, 6))
"""Ridge penalties to choose from, for inputs of unit variance."""


@dataclass(frozen=True)
class Predictability:
    """R^2 against the training mean; its 95% interval over held-out people; the chosen penalty."""

    r2: float
    low: float
    high: float
    alpha: float


def predictability(
    embedding_NVD: NDArray,
    targets_NT: NDArray,
    train: slice,
    test: slice,
    *,
    folds: int = 5,
    resamples: int = 200,
    seed: int = 0,
) -> Predictability:
    """R^2 on held-out people of targets predicted from single portraits, the penalty chosen on training people alone.

    R^2 = 1 - sum |y - y_hat|^2 / sum |y - y_mean|^2 over portraits and targets together, so large targets count more:
    scale them as the metric wants it. All portraits of a person stay in one fold.

    Args:
        train, test: of the people; they must not overlap.

    Raises:
        ValueError: fewer training people than folds.
    """
    views = embedding_NVD.shape[1]
    mean = embedding_NVD[train].mean((0, 1))
    scale = embedding_NVD[train].std((0, 1)) + 1e-12
    inputs = ((embedding_NVD - mean) / scale).astype(np.float64)
    x, y = inputs[train].reshape(-1, inputs.shape[2]), np.repeat(targets_NT[train], views, 0).astype(np.float64)
    alpha = _choose_alpha(x, y, np.repeat(np.arange(len(inputs[train])) % folds, views), folds)
    predicted = next(ridge_path(x, y, inputs[test].reshape(-1, inputs.shape[2]), (alpha,)))
    truth = np.repeat(targets_NT[test], views, 0)
    error, spread = (
        ((truth - other) ** 2).reshape(-1, views * truth.shape[1]).sum(1) for other in (predicted, y.mean(0))
    )
    intervals = bootstrap(lambda copies: {"r2": 1 - copies @ error / (copies @ spread)}, len(error), resamples, seed)
    return Predictability(*intervals["r2"], alpha)


def _choose_alpha(x: NDArray, y: NDArray, fold: NDArray, folds: int) -> float:
    """The penalty with the least squared error over all folds."""
    if len(np.unique(fold)) < folds:
        raise ValueError(f"got {len(np.unique(fold))} training people, expected at least {folds}: one a fold")
    losses = np.zeros(len(ALPHAS))
    for k in range(folds):
        inside, outside = fold != k, fold == k
        paths = ridge_path(x[inside], y[inside], x[outside], ALPHAS)
        losses += [((y[outside] - predicted) ** 2).sum() for predicted in paths]
    return ALPHAS[int(losses.argmin())]


def ridge_path(x: NDArray, y: NDArray, x_new: NDArray, alphas: tuple[float, ...]) -> Iterator[NDArray]:
    """Predictions at `x_new` for each penalty, with an intercept: one eigendecomposition serves them all.

    y_hat = y_mean + (x_new - x_mean) Q (L + alpha)^-1 Q^T (x - x_mean)^T (y - y_mean), with Q L Q^T = x_c^T x_c.
    """
    x_mean, y_mean = x.mean(0), y.mean(0)
    centred = x - x_mean
    values, vectors = np.linalg.eigh(centred.T @ centred)
    moments = vectors.T @ (centred.T @ (y - y_mean))
    turned = (x_new - x_mean) @ vectors
    for alpha in alphas:
        yield (turned / (values.clip(0) + alpha)) @ moments + y_mean
