"""Runs that differ only in their seed are one row, one curve with an interval, one column."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from fitdiff.evaluation.statistics import mean_interval
from fitdiff.report.runs import TRAINING, Run, flatten

BOOKKEEPING = ("seed", "name", "outputs", "out", "experiment", "tracker", "device")
"""Settings that say where a run is and what it is called, and the seed: no difference between configurations."""


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` seeds with its 95% interval; `low` and `high` are None where one seed tells nothing of it.

    `lacking` is how many runs have no value, or none yet; `final` is False where none of them has its last one.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    lacking: int = 0
    final: bool = True


@dataclass
class Group:
    """Runs of one configuration. `index` is its place on the page, which its colour and name in the page follow."""

    index: int
    name: str
    runs: list[Run]

    @property
    def kind(self) -> str:
        """`TRAINING` or the benchmark."""
        return self.runs[0].kind

    @property
    def seeds(self) -> list[str]:
        """What tells the runs apart, as text: trainings of one seed are the same training, as a shared baseline is.

        Evaluations are of checkpoints, whose seeds their own does not tell.
        """
        told = [run.folder if self.kind != TRAINING or run.seed is None else run.seed for run in self.runs]
        return list(dict.fromkeys(map(str, told)))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """By dotted key, without bookkeeping."""
        return _settings(self.runs[0])

    def estimate(self, metric: str) -> Estimate | None:
        """Of a final value over the seeds, of values so far while none has finished; None if no run has any."""
        known = [run.numbers[metric] for run in self.runs if metric in run.numbers]
        told = [number for number in known if number.final] or known
        if not told:
            return None
        values = {number.source: number.value for number in told}
        lacking = len(self.runs) - len(told)
        return replace(over_seeds(list(values.values())), lacking=lacking, final=told[0].final)


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean and Student's 95% interval of one value or more."""
    mean, low, high = mean_interval(np.array(values))
    n = len(values)
    return Estimate(mean, low, high, n) if n > 1 else Estimate(mean, None, None, n)


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Groups in the order of their first runs, training first; a run of unknown config stands alone."""
    members: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.kind != TRAINING, run.kind)):
        known = [run.kind, _settings(run)] if run.compared else [run.kind, str(run.folder)]
        members.setdefault(json.dumps(known, sort_keys=True, default=str), []).append(run)
    names = [_name(group) for group in members.values()]
    return [
        Group(index, name if names.count(name) == 1 else _listed(group), group)
        for index, (name, group) in enumerate(zip(names, members.values(), strict=True))
    ]


def find_base(groups: Sequence[Group], wanted: str | None) -> Group | None:
    """The group of that name, or of the run of that name; None if none is wanted.

    Raises:
        ValueError: nothing is called so.
    """
    if wanted is None:
        return None
    for group in groups:
        if wanted in (group.name, *(run.name for run in group.runs)):
            return group
    raise ValueError(f"base={wanted}: there is no such run; there are {', '.join(group.name for group in groups)}")


def differing(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """Settings in which groups differ: key -> the value of each group, `MISSING` where it has none."""
    keys = dict.fromkeys(key for group in groups for key in group.settings)
    columns = {key: [group.settings.get(key, MISSING) for group in groups] for key in keys}
    return {key: values for key, values in columns.items() if any(value != values[0] for value in values)}


class _Missing:
    def __repr__(self) -> str:
        return "–"


MISSING = _Missing()
"""In place of a setting that a config does not have."""


def _settings(run: Run) -> dict[str, Any]:
    leaves = flatten({key: value for key, value in run.compared.items() if key not in BOOKKEEPING})
    # The config that a checkpoint was trained with (`checkpoint.…`) has bookkeeping of its own.
    ignored = tuple(f"checkpoint.{key}" for key in BOOKKEEPING)
    return {key: value for key, value in leaves.items() if key and not _is_under(key, ignored)}


def _is_under(key: str, parents: Sequence[str]) -> bool:
    return any(key == parent or key.startswith(f"{parent}.") for parent in parents)


def _name(runs: Sequence[Run]) -> str:
    """What the names have in common, without what announces the seed."""
    names = [run.name for run in runs]
    if len(names) == 1:
        return names[0]
    alike = zip(*names, strict=False)
    common = "".join(letters[0] for letters in itertools.takewhile(lambda letters: len(set(letters)) == 1, alike))
    common = re.sub(r"([-_/.](s|seed))?[-_/.=]*$", "", re.sub(r"\d+$", "", common), count=1)
    return common or _listed(runs)


def _listed(runs: Sequence[Run]) -> str:
    first, *others = (run.name for run in runs)
    return f"{first} and {len(others)} more" if others else first
