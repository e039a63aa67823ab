"""Means over people with 95% bootstrap intervals, and whether paired differences are told from nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 4000
VERDICTS = ("behind", "level", "beats")


def bootstrap_mean(values_n: NDArray, seed: int = 0) -> tuple[float, float, float]:
    """Mean, and the 2.5% and 97.5% percentiles of it over resampled people; people without a value (NaN) are left out.

    Returns:
        Three NaN where nobody has a value.
    """
    values = np.asarray(values_n, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return (float("nan"),) * 3
    n = len(values)
    copies = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), RESAMPLES)
    low, high = np.percentile(copies @ values / n, (2.5, 97.5))
    return float(values.mean()), float(low), float(high)


def verdict(ours_n: NDArray, theirs_n: NDArray, higher_is_better: bool) -> str:
    """`beats` or `behind` where the interval of the paired difference leaves out 0, else `level`."""
    _, low, high = bootstrap_mean(np.asarray(ours_n) - np.asarray(theirs_n))
    side = int(low > 0) - int(high < 0)
    return VERDICTS[1 + (side if higher_is_better else -side)]


def interval(values_n: NDArray, spec: str) -> str:
    """`mean (low to high)`."""
    return _text(bootstrap_mean(values_n), spec)


def difference(ours_n: NDArray, theirs_n: NDArray, spec: str) -> str:
    """Paired difference of two methods on the same people, with its sign."""
    return _text(bootstrap_mean(np.asarray(ours_n) - np.asarray(theirs_n)), f"+{spec}")


def _text(values: tuple[float, float, float], spec: str) -> str:
    middle, low, high = (format(value, spec) for value in values)
    return "–" if middle.endswith("nan") else f"{middle} ({low} to {high})"
