"""Results of variants and seeds as arrays: the people of all are the same, in the same order.

Legend of shape suffixes: S seeds of a training · N people.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fitdiff.evaluation.metrics import facts_of
from fitdiff.evaluation.statistics import difference_interval, mean_interval, side_of

Rows = Sequence[Mapping[str, Any]]
"""Of a `results.json`: a person each, `name` and numbers."""

Scores = Mapping[str, Mapping[str, NDArray]]
"""Variant -> metric -> (S, N); NaN where a person has no value."""


def read_results(path: Path) -> dict[str, Any]:
    """What an evaluation wrote.

    Raises:
        ValueError: the file is no result of evaluate.py.
    """
    results = json.loads(path.read_text())
    if not isinstance(results, dict) or not isinstance(results.get("rows"), list):
        raise ValueError(f"{path}: got no rows, expected a results.json of evaluate.py")
    return results


def stack_scores(rows: Mapping[str, Sequence[Rows]], metrics: Sequence[str]) -> dict[str, dict[str, NDArray]]:
    """Rows of every seed of every variant as arrays, of the people of whom all have a number: a face was found.

    Raises:
        ValueError: a variant has no results, or nobody is in all of them.
    """
    if empty := [variant for variant, seeds in rows.items() if not seeds]:
        raise ValueError(f"got no results of {empty}: train and evaluate them first")
    tables = {variant: [_measured(seed, metrics) for seed in seeds] for variant, seeds in rows.items()}
    everyone = [table for seeds in tables.values() for table in seeds]
    names = [name for name in everyone[0] if all(name in table for table in everyone)]
    if not names:
        raise ValueError("got results of different people, expected some whom all variants have")
    return {
        variant: {m: np.array([[_number(table[name], m) for name in names] for table in seeds]) for m in metrics}
        for variant, seeds in tables.items()
    }


def _measured(rows: Rows, metrics: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    return {row["name"]: row for row in rows if any(row.get(metric) is not None for metric in metrics)}


def _number(row: Mapping[str, Any], metric: str) -> float:
    value = row.get(metric)
    return float("nan") if value is None else float(value)


def judge(
    ours_SN: NDArray, theirs_TN: NDArray, metric: str, by_seed: bool = False
) -> tuple[str, tuple[float, float, float]]:
    """Verdict, and the paired difference with its interval over people and seeds (over people alone of one seed).

    Args:
        by_seed: seed k of the one began like seed k of the other, so that seeds are paired as people are.
    """
    values = mean_interval(ours_SN - theirs_TN) if by_seed else difference_interval(ours_SN, theirs_TN)
    return side_of(values, facts_of(metric)[2]), values
