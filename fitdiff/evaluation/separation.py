"""How well embeddings tell people apart: genuine pairs (two portraits of one person) against impostor pairs.

Legend of shape suffixes: N people · V portraits of each · D embedding · G genuine pairs · I impostor pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

DLIB_THRESHOLD = 0.6
"""Distance under which dlib's network calls two portraits the same person."""


@dataclass(frozen=True)
class Pairs:
    """Distances of all pairs of portraits, ascending.

    Attributes:
        genuine: (G,) distances. genuine_person: (G,) whose pair it is.
        impostor: (I,) distances. impostor_people: (I, 2) whose portraits they are.
    """

    genuine: NDArray[np.float64]
    genuine_person: NDArray[np.intp]
    impostor: NDArray[np.float64]
    impostor_people: NDArray[np.intp]


def all_pairs(embedding_NVD: ArrayLike) -> Pairs:
    """Euclidean distances between all portraits of N people.

    Raises:
        ValueError: fewer than two people, or than two portraits of each.
    """
    embedding = np.asarray(embedding_NVD, np.float64)
    if embedding.ndim != 3 or min(embedding.shape[:2]) < 2:
        raise ValueError(f"got embeddings of shape {embedding.shape}, expected (people >= 2, portraits >= 2, numbers)")
    n, views, _ = embedding.shape
    flat = embedding.reshape(n * views, -1)
    first, second = np.triu_indices(n * views, 1)
    distance = cdist(flat, flat)[first, second]
    order = np.argsort(distance, kind="stable")
    distance, people = distance[order], np.stack([first[order], second[order]], 1) // views
    same = people[:, 0] == people[:, 1]
    return Pairs(distance[same], people[same, 0], distance[~same], people[~same])


def separation(pairs: Pairs, copies_N: NDArray[np.float64] | None = None, threshold: float = DLIB_THRESHOLD) -> dict:
    """Statistics of a verification test.

    Args:
        pairs: distances. copies_N: how often each person counts (a bootstrap sample); all once by default. A pair of
            two people counts as often as the product of theirs.
        threshold: accepted are smaller distances.

    Returns:
        auc: probability that an impostor pair is farther apart than a genuine one, ties by halves.
        eer: error rate where false accepts equal false rejects, on the staircase between thresholds.
        d_prime: difference of the mean distances over the root of the mean of the two variances.
        false_accepts, false_rejects: shares at the threshold. genuine_mean, impostor_mean: distances.
    """
    people = len(copies_N) if copies_N is not None else 1 + int(pairs.impostor_people.max())
    copies = np.ones(people) if copies_N is None else np.asarray(copies_N, np.float64)
    genuine_weight = copies[pairs.genuine_person]
    impostor_weight = copies[pairs.impostor_people].prod(1)
    genuine_sum = np.concatenate([[0.0], genuine_weight.cumsum()]) / genuine_weight.sum()
    impostor_sum = np.concatenate([[0.0], impostor_weight.cumsum()]) / impostor_weight.sum()
    nearer = impostor_sum[np.searchsorted(pairs.impostor, pairs.genuine, "left")]
    not_farther = impostor_sum[np.searchsorted(pairs.impostor, pairs.genuine, "right")]
    genuine_mean, genuine_var = _moments(pairs.genuine, genuine_weight)
    impostor_mean, impostor_var = _moments(pairs.impostor, impostor_weight)
    spread = np.sqrt((genuine_var + impostor_var) / 2)
    return {
        "auc": float(1 - ((nearer + not_farther) / 2 * genuine_weight).sum() / genuine_weight.sum()),
        "eer": _equal_error(np.concatenate([[0.0], not_farther]), 1 - genuine_sum),
        "d_prime": float((impostor_mean - genuine_mean) / spread) if spread > 0 else float("inf"),
        "false_accepts": float(impostor_sum[np.searchsorted(pairs.impostor, threshold)]),
        "false_rejects": float(1 - genuine_sum[np.searchsorted(pairs.genuine, threshold)]),
        "genuine_mean": float(genuine_mean),
        "impostor_mean": float(impostor_mean),
    }


def _moments(values: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[float, float]:
    mean = np.average(values, weights=weights)
    return mean, np.average((values - mean) ** 2, weights=weights)


def _equal_error(accepted: NDArray[np.float64], rejected: NDArray[np.float64]) -> float:
    """Where the staircase of (false accepts, false rejects), one step a genuine pair, crosses the diagonal.

    Each step goes right at the rejects before it, then down at the accepts after it.
    """
    step = max(int(np.argmax(rejected <= accepted)), 1)  # always found: the last threshold rejects nobody
    return float(min(rejected[step - 1], accepted[step]))


def rank_one(embedding_NVD: ArrayLike) -> NDArray[np.float64]:
    """(N,) share of a person's portraits that are nearest to that person in a gallery of one portrait of everybody.

    The gallery for view v is everybody's view v + 1 (the first after the last).
    """
    embedding = np.asarray(embedding_NVD, np.float64)
    views = embedding.shape[1]
    everybody = np.arange(len(embedding))
    hits = [cdist(embedding[:, view], embedding[:, (view + 1) % views]).argmin(1) == everybody for view in range(views)]
    return np.mean(hits, 0)


def separation_with_intervals(
    embedding_NVD: ArrayLike, *, resamples: int = 200, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """`separation` and `rank_one`, each as (value, low, high): 95% percentile bootstrap over people.

    People are what is drawn, not pairs: pairs that share a person are not independent. Pairs of a person with a copy of
    the same person are left out. The gallery of `rank_one` stays whole.
    """
    pairs, found = all_pairs(embedding_NVD), rank_one(embedding_NVD)
    n = len(found)

    def measure(copies: NDArray[np.float64]) -> dict[str, float]:
        return {**separation(pairs, copies), "rank_one": float(np.average(found, weights=copies))}

    return bootstrap(measure, n, resamples, seed)


def bootstrap(
    measure: Callable[[NDArray[np.float64]], dict[str, float]], n: int, resamples: int, seed: int
) -> dict[str, tuple[float, float, float]]:
    """(value, low, high) of each statistic: its value, and the 2.5% and 97.5% percentiles over resampled people.

    Args:
        measure: from how often each of the n people counts, (n,), to statistics by name.
    """
    rng = np.random.default_rng(seed)
    draws = [measure(rng.multinomial(n, np.full(n, 1 / n)).astype(np.float64)) for _ in range(resamples)]
    values = measure(np.ones(n))
    low, high = ({k: float(np.percentile([d[k] for d in draws], q)) for k in values} for q in (2.5, 97.5))
    return {key: (float(value), low[key], high[key]) for key, value in values.items()}
