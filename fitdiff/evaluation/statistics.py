"""Means over people, and over seeds, with Student's 95% intervals, and whether differences are told from nothing.

Where nothing differs, such an interval leaves out 0 at most about once in twenty times, however few people and seeds
there are, as long as what is averaged is roughly normal. (Percentiles of a bootstrap do so 15 times in a hundred of six
people, and 20 of three seeds against three.)

Legend of shape suffixes: N people · S, T seeds of a training.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

VERDICTS = ("behind", "level", "beats")
CONFIDENCE = 0.95

Interval = tuple[float, float, float]
"""Mean, and the ends of its interval: NaN where one value, or none, does not tell."""


def mean_interval(values_SN: NDArray) -> Interval:
    """Mean over seeds and people, and its 95% interval: where the mean of other people, and of other trainings, lies.

    Of one training it is Student's interval over people, mean ± t_{0.975, N-1} s / sqrt(N), and says nothing of other
    trainings. Of several, people and seeds are two crossed random effects (`_spread`).

    Args:
        values_SN: (S, N) number of each person in each training; (N,) is one training. Who lacks a value (NaN) in any
            training is left out of all.
    """
    (values,) = _shared_people(values_SN)
    return _student(values.mean(0), values)


def difference_interval(ours_SN: NDArray, theirs_TN: NDArray) -> Interval:
    """Mean difference, ours minus theirs, and its 95% interval over people and seeds.

    People are paired, since both methods saw the same ones; trainings are not. Where seed 1 of the one has something in
    common with seed 1 of the other (initial weights, noises), `mean_interval(ours_SN - theirs_SN)` pairs them, too.

    Args:
        ours_SN, theirs_TN: see `mean_interval`.

    Raises:
        ValueError: different numbers of people.
    """
    ours, theirs = _shared_people(ours_SN, theirs_TN)
    return _student(ours.mean(0) - theirs.mean(0), ours, theirs)


def _shared_people(*values: NDArray) -> list[NDArray]:
    """Each as (seeds, people), of people alone who have a value everywhere."""
    arrays = [np.atleast_2d(np.asarray(value, np.float64)) for value in values]
    counts = [array.shape[1] for array in arrays]
    if len(set(counts)) > 1:
        raise ValueError(f"got values of {' and of '.join(map(str, counts))} people; paired values are of the same")
    whole = np.all([np.isfinite(array).all(0) for array in arrays], 0)
    return [array[:, whole] for array in arrays]


def _student(means_N: NDArray, *trainings: NDArray) -> Interval:
    """Mean of `means_N`, which are over seeds, and its interval."""
    middle = float(means_N.mean()) if len(means_N) else math.nan
    if len(means_N) < 2:
        return middle, math.nan, math.nan
    variance, freedom = _spread(means_N, *trainings)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * math.sqrt(variance)
    return middle, middle - half, middle + half


def _spread(means_N: NDArray, *trainings: NDArray) -> tuple[float, float]:
    """Variance of the mean of `means_N`, and its degrees of freedom.

    Two-way random effects: people spread as `means_N` do, which holds a share of the residual of people and seeds; the
    seeds of each method add what their means spread beyond that share. Seeds that spread less than it add nothing, as
    in Hillis (2007), whose readers and cases are our seeds and people. Degrees of freedom are those of a sum of mean
    squares (Satterthwaite 1946; of seeds alone this is Welch's test).

    Args:
        trainings: (S, N) values of each method, one training of which tells nothing of seeds.
    """
    n = len(means_N)
    variance = means_N.var(ddof=1) / n
    shares = [(variance, n - 1)]
    for values in (values for values in trainings if len(values) > 1):
        s = len(values)
        of_seeds = values.mean(1).var(ddof=1) / s
        residual = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
        of_residual = np.square(residual).sum() / ((s - 1) * (n - 1)) / (s * n)
        if of_seeds > of_residual:
            variance += of_seeds - of_residual
            shares += [(of_seeds, s - 1), (of_residual, (s - 1) * (n - 1))]
    squares = sum(share**2 / freedom for share, freedom in shares)
    return float(variance), float(variance**2 / squares) if squares else n - 1.0


def side_of(interval: Interval, higher_is_better: bool) -> str:
    """`beats` or `behind` where the interval of a difference leaves out 0, else `level`."""
    _, low, high = interval
    side = int(low > 0) - int(high < 0)
    return VERDICTS[1 + (side if higher_is_better else -side)]


def verdict(ours_n: NDArray, theirs_n: NDArray, higher_is_better: bool) -> str:
    """`side_of` the paired difference."""
    return side_of(difference_interval(ours_n, theirs_n), higher_is_better)


def interval(values_n: NDArray, spec: str) -> str:
    """`mean (low to high)`."""
    return as_text(mean_interval(values_n), spec)


def difference(ours_n: NDArray, theirs_n: NDArray, spec: str) -> str:
    """Paired difference of two methods on the same people, with its sign."""
    return as_text(difference_interval(ours_n, theirs_n), f"+{spec}")


def as_text(values: Interval, spec: str) -> str:
    """`mean (low to high)`, the mean alone where it has no interval, a dash where there is none.

    Args:
        spec: as `.2f`; decimals are added where an end of an interval that leaves out 0 would be written as 0.
    """
    middle, low, high = values
    if math.isnan(middle):
        return "–"
    if math.isnan(low):
        return format(middle, spec)
    if low > 0 or high < 0:
        sign, _, decimals = spec.rstrip("f").partition(".")
        least = math.floor(-math.log10(2 * min(abs(low), abs(high)))) + 1
        spec = f"{sign}.{max(int(decimals), least)}f"
    return f"{middle:{spec}} ({low:{spec}} to {high:{spec}})"
