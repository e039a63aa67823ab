"""Learning curves as coordinates of inline SVG: a line a configuration, a band where it has several seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fitdiff.report.groups import Group, over_seeds
from fitdiff.report.metrics import baseline_of, later_stages_first, readable
from fitdiff.report.runs import Curve
from fitdiff.report.training_run import HELD_OUT

WIDTH, HEIGHT = 420, 240
LEFT, RIGHT, TOP, BOTTOM = 54, 10, 10, 26
"""Of the picture and of its margins, in units of the SVG."""

POINTS, ALL_POINTS = 150, 6000
"""Points of a curve, and of all curves of a chart together: longer logs are averaged over equal spans of steps."""

BAND_FROM = 3
"""Seeds from which on a curve has a band; Student's interval of two is 13 standard errors wide to each side."""

ROOM = 4.0
"""How many times its length without them baselines may make an axis."""

REACH = 0.9
"""Share of the longest curve's steps that a seed's must reach for the mean to be of it, too."""

DECADES = 1.5
"""From which range on the axis of a positive value is logarithmic."""

TIERS = ("held_out", "loss", "other")
"""What a chart shows: quality on held-out people, training losses, everything else."""


@dataclass
class Line:
    """One curve: SVG paths, and what the legend and a screen reader say of it.

    Attributes:
        groups: that share it, by index, space-separated. colour: a group's index; None where several share the line.
        band: the interval. thin: the single seeds. single: it has one point, and is drawn as a dot.
    """

    groups: str
    colour: int | None
    label: str
    path: str
    band: str = ""
    thin: list[str] = field(default_factory=list)
    last: str = ""
    single: bool = False


@dataclass
class Chart:
    """One metric over steps.

    Attributes:
        x_ticks, y_ticks: (place in SVG units, text). references: of baselines, likewise. beyond: texts of baselines
            that would leave the curves no room. scale: both axes, for the page's script.
    """

    title: str
    tier: str
    log: bool
    scale: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[Line]
    references: list[tuple[float, str]]
    beyond: list[str]


@dataclass(frozen=True)
class _Series:
    """Curves that belong together, one a seed; mean and interval of those that reach the end, on steps they share."""

    groups: tuple[Group, ...]
    curves: tuple[Curve, ...]
    steps: NDArray
    mean: NDArray
    low: NDArray | None
    high: NDArray | None


def charts(groups: Sequence[Group]) -> list[Chart]:
    """All metrics that change, later stages first; baselines are lines in the chart of what they are for."""
    metrics = later_stages_first(dict.fromkeys(key for group in groups for run in group.runs for key in run.curves))
    made = [chart for key in metrics if not _has_owner(key, metrics) for chart in _chart(key, groups, metrics)]
    return sorted(made, key=lambda chart: TIERS.index(chart.tier))


def _has_owner(key: str, metrics: Sequence[str]) -> bool:
    return (known := baseline_of(key)) is not None and known[0] in metrics


def _chart(key: str, groups: Sequence[Group], metrics: Sequence[str]) -> Iterator[Chart]:
    series = list(_series(key, groups))
    if not any(len(one.steps) > 1 and np.ptp(one.mean) for one in series):
        return
    baselines = {known[1]: _level(name, groups) for name in metrics if (known := baseline_of(name)) and known[0] == key}
    values = np.concatenate([_extent(one) for one in series])
    near = {name: level for name, level in baselines.items() if _fits(level, values)}
    values = np.concatenate([values, list(near.values())])
    steps = np.concatenate([one.steps for one in series])
    log = bool(values.min() > 0 and math.log10(values.max() / values.min()) > DECADES)
    x, y = _Axis(steps.min(), steps.max(), LEFT, WIDTH - RIGHT), _Axis(*_padded(values, log), HEIGHT - BOTTOM, TOP, log)
    name = key.rpartition("/")[2]
    tier = "held_out" if f"/{HELD_OUT}" in key else "loss" if name.startswith(("loss", "total")) else "other"
    budget = max(20, min(POINTS, ALL_POINTS // len(series)))
    lines = [_line(one, x, y, budget, thin=len(groups) <= 12) for one in series]
    references = [(round(float(y(level)), 1), label) for label, level in near.items()]
    beyond = [f"{label} {readable(level)}" for label, level in baselines.items() if label not in near]
    yield Chart(key, tier, log, f"{x.code} {y.code}", x.ticks(5), y.ticks(5), lines, references, beyond)


def _fits(level: float, values: NDArray) -> bool:
    """Whether a baseline may stretch the axis of the curves."""
    return bool(max(values.max(), level) - min(values.min(), level) <= ROOM * np.ptp(values))


def _series(key: str, groups: Sequence[Group]) -> Iterator[_Series]:
    """Groups whose runs share the same stages are one line: the same training, not as many seeds of it."""
    sharing: dict[tuple[str, ...], tuple[list[Group], dict[str, Curve]]] = {}
    for group in groups:
        curves = {run.curves[key].source: run.curves[key] for run in group.runs if key in run.curves}
        if curves:
            sharing.setdefault(tuple(sorted(curves)), ([], curves))[0].append(group)
    for members, curves in sharing.values():
        yield _summary(tuple(members), tuple(curves.values()))


def _summary(groups: tuple[Group, ...], curves: tuple[Curve, ...]) -> _Series:
    end = max(curve.steps[-1] for curve in curves)
    whole = [curve for curve in curves if curve.steps[-1] >= REACH * end]  # a seed cut short would cut the mean
    steps = sorted(set.intersection(*(set(curve.steps) for curve in whole)))
    if len(steps) < 2 or len(whole) == 1:  # of seeds that share no steps, the longest stands for all
        longest = max(whole, key=lambda curve: len(curve.steps))
        return _Series(groups, curves, np.array(longest.steps), np.array(longest.values), None, None)
    table = [[dict(zip(curve.steps, curve.values, strict=True))[step] for curve in whole] for step in steps]
    estimates = [over_seeds(values) for values in table]
    mean, low, high = (np.array([getattr(e, name) for e in estimates]) for name in ("mean", "low", "high"))
    wide = len(whole) < BAND_FROM
    return _Series(groups, curves, np.array(steps), mean, None if wide else low, None if wide else high)


def _level(key: str, groups: Sequence[Group]) -> float:
    """A baseline: the mean of where each curve of it ends."""
    ends = {run.curves[key].source: run.curves[key].values[-1] for g in groups for run in g.runs if key in run.curves}
    return float(np.mean(list(ends.values())))


def _line(series: _Series, x: _Axis, y: _Axis, budget: int, thin: bool) -> Line:
    steps, mean = _thinned(series.steps, series.mean, budget)
    band = ""
    if series.low is not None and series.high is not None:
        low, high = (_thinned(series.steps, edge, budget)[1] for edge in (series.low, series.high))
        band = _path(np.append(x(steps), x(steps)[::-1]), np.append(y(high), y(low)[::-1])) + "Z"
    first, *others = series.groups
    label = first.name if not others else f"{first.name} and {len(others)} more, which share it"
    seeds = [_thinned(np.array(c.steps), np.array(c.values), budget) for c in series.curves]
    paths = [_path(x(s), y(v)) for s, v in seeds] if thin and len(seeds) > 1 else []
    indices = " ".join(str(group.index) for group in series.groups)
    last = f"{readable(float(series.mean[-1]))} at step {series.steps[-1]}"
    colour = None if others else first.index
    return Line(indices, colour, label, _path(x(steps), y(mean)), band, paths, last, len(steps) == 1)


def _thinned(steps: NDArray, values: NDArray, budget: int) -> tuple[NDArray, NDArray]:
    """At most `budget` points, each the mean of as many neighbours."""
    if len(steps) <= budget:
        return steps, values
    parts = np.array_split(np.arange(len(steps)), budget)
    return tuple(np.array([column[part].mean() for part in parts]) for column in (steps, values))  # type: ignore[return-value]


def _extent(series: _Series) -> NDArray:
    """Values that the axis must hold: the curves themselves; a wide interval may leave the picture."""
    return np.concatenate([series.mean, *(np.array(curve.values) for curve in series.curves)])


def _padded(values: NDArray, log: bool) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if log:
        return low / 1.1, high * 1.1
    margin = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    return low - margin, high + margin


def _path(x: NDArray, y: NDArray) -> str:
    """`M1 2L3 4`: places to a tenth of a unit. A single point is a line of no length, which round caps show."""
    points = [f"{a:.1f} {b:.1f}".replace(".0", "") for a, b in zip(x, y, strict=True)]
    return "M" + "L".join(points if len(points) > 1 else points * 2)


@dataclass(frozen=True)
class _Axis:
    """Values from `low` to `high` on places from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, values: NDArray | float) -> NDArray:
        low, high = self._scaled(self.low), self._scaled(self.high)
        span = (high - low) or 1.0
        share = (self._scaled(np.maximum(values, self.low * 1e-3) if self.log else values) - low) / span
        return self.start + share * (self.end - self.start)

    @property
    def code(self) -> str:
        """For the page's script, which turns places into values again."""
        return f"{self.low:.6g},{self.high:.6g},{self.start:g},{self.end:g},{int(self.log)}"

    def ticks(self, about: int) -> list[tuple[float, str]]:
        """Round values in range, with their places."""
        values = _decades(self.low, self.high) if self.log else _round(self.low, self.high, about)
        return [(round(float(self(value)), 1), f"{value:g}") for value in values]

    def _scaled(self, values: NDArray | float) -> NDArray:
        return np.log10(values) if self.log else np.asarray(values, np.float64)


def _round(low: float, high: float, about: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten."""
    raw = (high - low or 1.0) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 3) if len(exponents) <= 5 else (1,)
    values = [float(f"{factor}e{exponent}") for exponent in exponents for factor in factors]
    return [value for value in values if low <= value <= high]
