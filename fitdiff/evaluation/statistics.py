"""Means over people, and over seeds, with 95% bootstrap intervals, and whether differences are told from nothing.

Legend of shape suffixes: N people · S, T seeds of a training · R resamples.
"""

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


def bootstrap_over_seeds(values_SN: NDArray, seed: int = 0) -> tuple[float, float, float]:
    """Mean over seeds and people, and its 95% interval when both are drawn anew: what another training would give, too.

    Seeds and people are resampled independently of each other (both are samples of something larger). Of few seeds the
    interval is too narrow: resampling S of them gives (S - 1) / S of their variance.

    Args:
        values_SN: (S, N) number of each person in each training; (N,) is one training. Who lacks a value (NaN) in any
            training is left out of all.
    """
    (values,) = _shared_people(values_SN)
    rng = np.random.default_rng(seed)
    return _interval(values.mean(0), _means(values, _shares(values.shape[1], rng), rng))


def paired_bootstrap(ours_SN: NDArray, theirs_TN: NDArray, seed: int = 0) -> tuple[float, float, float]:
    """Mean difference, ours minus theirs, and its 95% interval over people and seeds.

    People are paired, since both methods saw the same ones; trainings are not, since seed 1 of the one has nothing in
    common with seed 1 of the other: each method's are resampled on their own.

    Args:
        ours_SN, theirs_TN: see `bootstrap_over_seeds`.

    Raises:
        ValueError: different numbers of people.
    """
    ours, theirs = _shared_people(ours_SN, theirs_TN)
    rng = np.random.default_rng(seed)
    people = _shares(ours.shape[1], rng)
    return _interval(ours.mean(0) - theirs.mean(0), _means(ours, people, rng) - _means(theirs, people, rng))


def _shares(n: int, rng: np.random.Generator) -> NDArray:
    """(R, n) share of each of n in resamples of them."""
    return rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n if n else np.empty((RESAMPLES, 0))


def _means(values_SN: NDArray, people_RN: NDArray, rng: np.random.Generator) -> NDArray:
    """(R,) means over resampled people and seeds."""
    return np.einsum("rs,sn,rn->r", _shares(len(values_SN), rng), values_SN, people_RN, optimize=True)


def _shared_people(*values: NDArray) -> list[NDArray]:
    """Each as (seeds, people), of people alone who have a value everywhere."""
    arrays = [np.atleast_2d(np.asarray(value, np.float64)) for value in values]
    counts = [array.shape[1] for array in arrays]
    if len(set(counts)) > 1:
        raise ValueError(f"got values of {' and of '.join(map(str, counts))} people; paired values are of the same")
    whole = np.all([np.isfinite(array).all(0) for array in arrays], 0)
    return [array[:, whole] for array in arrays]


def _interval(values: NDArray, draws_R: NDArray) -> tuple[float, float, float]:
    if not values.size:
        return (float("nan"),) * 3
    low, high = np.percentile(draws_R, (2.5, 97.5))
    return float(values.mean()), float(low), float(high)


def verdict(ours_n: NDArray, theirs_n: NDArray, higher_is_better: bool) -> str:
    """`beats` or `behind` where the interval of the paired difference leaves out 0, else `level`."""
    _, low, high = bootstrap_mean(np.asarray(ours_n) - np.asarray(theirs_n))
    side = int(low > 0) - int(high < 0)
    return VERDICTS[1 + (side if higher_is_better else -side)]


def interval(values_n: NDArray, spec: str) -> str:
    """`mean (low to high)`."""
    return as_text(bootstrap_mean(values_n), spec)


def difference(ours_n: NDArray, theirs_n: NDArray, spec: str) -> str:
    """Paired difference of two methods on the same people, with its sign."""
    return as_text(bootstrap_mean(np.asarray(ours_n) - np.asarray(theirs_n)), f"+{spec}")


def as_text(values: tuple[float, float, float], spec: str) -> str:
    """`mean (low to high)`, a dash where there is none."""
    middle, low, high = (format(value, spec) for value in values)
    return "–" if middle.endswith("nan") else f"{middle} ({low} to {high})"
