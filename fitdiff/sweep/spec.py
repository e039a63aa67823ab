"""A W&B sweep file: what it searches, and the rows of Hydra overrides that it stands for.

The format is W&B's (https://docs.wandb.ai/models/sweeps/define-sweep-configuration); what cannot be done here as W&B
does it is refused by name rather than done otherwise.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

TOP_LEVEL = (
    "program", "method", "metric", "parameters", "command", "early_terminate", "run_cap", "name", "description",
    "project", "entity",
)  # fmt: skip
"""Keys of W&B's format that are understood; the last four are for W&B alone."""

UNIFORM = ("uniform", "q_uniform")
LOG_UNIFORM = ("log_uniform", "q_log_uniform", "log_uniform_values", "q_log_uniform_values")
DISTRIBUTIONS = ("constant", "categorical", "int_uniform", *UNIFORM, *LOG_UNIFORM)
ARGUMENTS = "${args_no_hyphens}"


class SweepError(ValueError):
    """A sweep cannot be run; the message says what to change."""


@dataclass(frozen=True)
class Choice:
    """One of several values, spelled as W&B spells them on the command line."""

    values: tuple[str, ...]

    @property
    def extremes(self) -> tuple[str, ...]:
        """All values: none is between others."""
        return self.values


@dataclass(frozen=True)
class Range:
    """A number between `low` and `high`, uniform or log-uniform, in steps of `quantum` (0: any number)."""

    low: float
    high: float
    log: bool = False
    integer: bool = False
    quantum: float = 0.0

    def spell(self, value: float) -> str:
        """As an override: six significant digits, so that the command which is printed is the one that ran."""
        if self.quantum:
            value = round(value / self.quantum) * self.quantum
        return str(round(value)) if self.integer else f"{value:.6g}"

    @property
    def extremes(self) -> tuple[str, ...]:
        """The smallest and the largest value."""
        return self.spell(self.low), self.spell(self.high)

    def steps(self) -> tuple[str, ...] | None:
        """Every value, if they can be counted."""
        step = 1 if self.integer and not self.quantum else self.quantum
        if not step:
            return None
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return tuple(self.spell(step * i) for i in range(first, last + 1))


@dataclass(frozen=True)
class Early:
    """When losers are stopped: after `min_iter` · `eta`^k evaluations, all but the best 1 / `eta`."""

    min_iter: int
    eta: int


@dataclass(frozen=True)
class Spec:
    """A sweep.

    Attributes:
        program: path of the entry point. method: grid, random or bayes. metric: its name at W&B. maximize: its goal.
        command: words, with W&B's macros. parameters: by Hydra key. early: None runs every trial to its end.
        run_cap: trials at most; None is the whole grid.
    """

    program: str
    method: str
    metric: str
    maximize: bool
    command: tuple[str, ...]
    parameters: Mapping[str, Choice | Range]
    early: Early | None
    run_cap: int | None

    def rows(self) -> list[dict[str, str]]:
        """All rows of a grid, the last parameter fastest, as Hydra's multirun counts them.

        Raises:
            SweepError: a parameter has no end of values.
        """
        columns = {key: p.values if isinstance(p, Choice) else p.steps() for key, p in self.parameters.items()}
        if endless := [key for key, values in columns.items() if values is None]:
            raise SweepError(f"method: grid needs values, int_uniform or q_uniform; {endless} have no end of values")
        return [dict(zip(columns, row, strict=True)) for row in itertools.product(*columns.values())]  # type: ignore[arg-type]

    def corners(self) -> Iterator[dict[str, str]]:
        """Every combination of extreme values."""
        extremes = [p.extremes for p in self.parameters.values()]
        return (dict(zip(self.parameters, row, strict=True)) for row in itertools.product(*extremes))

    def command_line(self, row: Mapping[str, str], place: Sequence[str], extra: Sequence[str] = ()) -> list[str]:
        """Words of the process of a trial.

        Args:
            row: values by Hydra key. place: overrides that say where it writes; they take the place of what the file
                says of their keys, for W&B's agent. extra: overrides that come last.
        """
        own = {word.partition("=")[0] for word in place}
        words: list[str] = []
        for word in self.command:
            if word == ARGUMENTS:
                words += [f"{key}={value}" for key, value in row.items()]
            elif word != "${env}" and word.partition("=")[0] not in own:
                words.append({"${interpreter}": sys.executable, "${program}": self.program}.get(word, word))
        return [*words, *extra, *place]


def read_spec(path: Path) -> Spec:
    """Read and check a sweep file.

    Raises:
        SweepError: it is missing, is no YAML, or says something that is not understood; the message names it.
    """
    try:
        source = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SweepError(f"{path} cannot be read as a sweep: {error}") from error
    if not isinstance(source, dict):
        raise SweepError(f"{path} has no keys; a sweep has program, method, metric and parameters")
    try:
        return parse_spec(source)
    except SweepError as error:
        raise SweepError(f"{path}: {error}") from error


def parse_spec(source: Mapping[str, Any]) -> Spec:
    """A sweep from what its file says; raises `SweepError`."""
    _only(source, TOP_LEVEL, "the sweep")
    _one_of(source.get("method"), ("grid", "random", "bayes"), "method")
    metric = source.get("metric")
    if not isinstance(metric, dict) or not isinstance(metric.get("name"), str):
        raise SweepError(f"metric: got {metric!r}, expected {{name: ..., goal: minimize|maximize}}")
    _only(metric, ("name", "goal"), "metric")
    goal = _one_of(metric.get("goal", "minimize"), ("minimize", "maximize"), "metric.goal")
    if not isinstance(source.get("program"), str):
        raise SweepError(f"program: got {source.get('program')!r}, expected a file such as train.py")
    command = source.get("command") or []
    if ARGUMENTS not in command or "${program}" not in command:
        raise SweepError(
            f"command: got {command}, expected words with ${{program}} and {ARGUMENTS}, for Hydra's overrides "
            "have no hyphens"
        )
    cap = source.get("run_cap")
    if cap is not None and (not isinstance(cap, int) or cap < 1):
        raise SweepError(f"run_cap: got {cap!r}, expected a number of trials of 1 or more")
    parameters = dict(_parameters(source.get("parameters") or {}))
    if not parameters:
        raise SweepError("parameters: there are none, so there is nothing to sweep")
    spec = Spec(
        program=source["program"],
        method=source["method"],
        metric=metric["name"],
        maximize=goal == "maximize",
        command=tuple(str(word) for word in command),
        parameters=parameters,
        early=_early(source.get("early_terminate")),
        run_cap=cap,
    )
    if spec.method == "grid":
        spec.rows()
    return spec


def _parameters(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Choice | Range]]:
    """Parameters by dotted Hydra key; W&B nests them by a `parameters` within a parameter."""
    for name, node in tree.items():
        key = f"{prefix}{name}"
        if not isinstance(node, dict):
            raise SweepError(f"parameters.{key}: got {node!r}, expected value, values, or min and max")
        if "parameters" in node:
            _only(node, ("parameters",), f"parameters.{key}")
            yield from _parameters(node["parameters"], f"{key}.")
        else:
            yield key, _dimension(key, node)


def _dimension(key: str, node: Mapping[str, Any]) -> Choice | Range:
    where = f"parameters.{key}"
    if "value" in node or "values" in node:
        _only(node, ("value", "values", "distribution"), where)
        return _choice(where, node["values"] if "values" in node else [node["value"]])
    _only(node, ("distribution", "min", "max", "q"), where)
    low, high = node.get("min"), node.get("max")
    if not all(isinstance(bound, (int, float)) and not isinstance(bound, bool) for bound in (low, high)):
        raise SweepError(f"{where}: got {dict(node)}, expected value, values, or the numbers min and max")
    whole = isinstance(low, int) and isinstance(high, int)
    distribution = node.get("distribution", "int_uniform" if whole else "uniform")
    _one_of(distribution, DISTRIBUTIONS[2:], f"{where}.distribution")
    if distribution in ("log_uniform", "q_log_uniform"):  # W&B takes exponents of e here
        low, high = math.exp(low), math.exp(high)  # type: ignore[arg-type]
    quantum = node.get("q", 1) if distribution.startswith("q_") else 0
    log = distribution in LOG_UNIFORM
    if not low < high or (log and low <= 0) or quantum < 0:  # type: ignore[operator]
        raise SweepError(f"{where}: min {low} and max {high} are no range" + (" above 0" if log else ""))
    integer = distribution == "int_uniform" or (quantum != 0 and isinstance(quantum, int))
    return Range(float(low), float(high), log, integer, float(quantum))  # type: ignore[arg-type]


def _choice(where: str, values: Any) -> Choice:
    if not isinstance(values, list) or not values:
        raise SweepError(f"{where}.values: got {values!r}, expected a list with a value or more")
    if wrong := [value for value in values if value is None or isinstance(value, dict)]:
        raise SweepError(f"{where}: {wrong[0]!r} is no override as W&B writes it; write it as Hydra does, in quotes")
    texts = tuple(str(value) for value in values)  # `key=value` of W&B's agent
    if len(set(texts)) < len(texts):
        raise SweepError(f"{where}.values: {list(texts)} holds a value twice")
    return Choice(texts)


def _early(node: Any) -> Early | None:
    """W&B's hyperband: brackets at min_iter · eta^k, or at max_iter / eta^k for k up to s."""
    if node is None:
        return None
    _only(node, ("type", "min_iter", "max_iter", "s", "eta"), "early_terminate")
    _one_of(node.get("type"), ("hyperband",), "early_terminate.type")
    eta = node.get("eta", 3)
    if not isinstance(eta, int) or eta < 2:
        raise SweepError(f"early_terminate.eta: got {eta!r}, expected a whole number of 2 or more")
    if "min_iter" in node:
        first = node["min_iter"]
    elif "max_iter" in node and "s" in node:
        first = node["max_iter"] // eta ** node["s"]
    else:
        raise SweepError(f"early_terminate: got {node}, expected min_iter, or max_iter and s")
    if not isinstance(first, int) or first < 1:
        raise SweepError(f"early_terminate: the first bracket is at {first} evaluations, expected 1 or more")
    return Early(first, eta)


def _only(node: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    if unknown := [key for key in node if key not in known]:
        raise SweepError(f"{where}: {unknown} is not understood; it may have {', '.join(known)}")


def _one_of(value: Any, known: Sequence[str], where: str) -> Any:
    if value not in known:
        raise SweepError(f"{where}: got {value!r}, expected {', '.join(known)}")
    return value
