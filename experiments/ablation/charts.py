"""Charts of variants: differences from a baseline, and curves over a setting, in colours for the colour-blind."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.ablation.scores import Scores, judge
from fitdiff.evaluation.metrics import facts_of
from fitdiff.evaluation.statistics import mean_interval

VERDICT_COLOURS = {"beats": "#0072b2", "level": "#777777", "behind": "#d55e00"}
SERIES_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's."""
MARKERS = "osD^vP"
NUDGE = 0.03
"""By which curves at the same settings stand apart, as a part of the axis."""

Curves = Mapping[str, Mapping[float, Mapping[str, NDArray]]]
"""Label -> setting -> metric -> (S, N) differences."""


def difference_chart(scores: Scores, baseline: str, metrics: Sequence[str], by_seed: bool = False) -> Figure:
    """A panel a metric, a line a variant: the paired difference with its interval, and each seed's as a ring.

    A ring is a seed minus the baseline's mean of all seeds; `by_seed`, minus the baseline's same seed (see `judge`).
    """
    others = [name for name in scores if name != baseline]
    figure = Figure((1.8 + 2.7 * len(metrics), 1.6 + 0.4 * len(others)), layout="constrained")
    axes = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axis, metric in zip(axes, metrics, strict=True):
        for place, name in enumerate(others):
            _difference(axis, place, scores[name][metric], scores[baseline][metric], metric, by_seed)
        axis.axvline(0, color="black", linewidth=0.8)
        label, _, higher_is_better = facts_of(metric)
        axis.set_title(label, fontsize=10)
        axis.set_xlabel("better →" if higher_is_better else "← better", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.locator_params(axis="x", nbins=5)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(others)), others, fontsize=9)
    axes[0].set_ylim(len(others) - 0.5, -0.5)
    figure.suptitle(f"difference from “{baseline}”, 95% intervals; blue is better, orange worse", fontsize=9)
    return figure


def _difference(axis: Axes, place: int, ours: NDArray, theirs: NDArray, metric: str, by_seed: bool) -> None:
    said, (middle, low, high) = judge(ours, theirs, metric, by_seed)
    if not math.isfinite(middle):
        return
    axis.errorbar(
        middle, place, xerr=[[middle - low], [high - middle]], fmt="o", capsize=3, color=VERDICT_COLOURS[said]
    )
    if len(ours) > 1:
        each = np.nanmean(ours - (theirs if by_seed else theirs.mean(0)), 1)
        axis.plot(each, [place + 0.25] * len(each), "o", markersize=3.5, fillstyle="none", color="#777777")


def curve_chart(
    curves: Curves, metrics: Sequence[str], setting: str, mark: float | None = None, title: str = ""
) -> Figure:
    """A panel a metric, a curve a label: mean differences with intervals over a setting on a logarithmic axis.

    A setting of 0 stands at the left, as `off`.

    Args:
        mark: the default of the setting, drawn as a line. title: what the values are.
    """
    figure = Figure((0.6 + 3.3 * len(metrics), 3.6), layout="constrained")
    axes = figure.subplots(1, len(metrics), squeeze=False)[0]
    settings = sorted({value for curve in curves.values() for value in curve})
    for axis, metric in zip(axes, metrics, strict=True):
        for number, (label, curve) in enumerate(curves.items()):
            _curve(axis, number - (len(curves) - 1) / 2, label, curve, metric, settings, number)
        axis.set_xticks([place_of(v, settings) for v in settings], [_text(v) for v in settings], fontsize=8)
        axis.tick_params(axis="y", labelsize=8)
        axis.axhline(0, color="black", linewidth=0.8)
        if mark is not None:
            axis.axvline(place_of(mark, settings), color="black", linewidth=0.8, linestyle=":")
        label, _, higher_is_better = facts_of(metric)
        axis.set_title(f"{label} ({'more' if higher_is_better else 'less'} is better)", fontsize=10)
        axis.set_xlabel(setting, fontsize=9)
        axis.grid(alpha=0.3)
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure


def _curve(
    axis: Axes,
    shift: float,
    label: str,
    curve: Mapping[float, Mapping[str, NDArray]],
    metric: str,
    settings: Sequence[float],
    number: int,
) -> None:
    triples = [(place_of(v, settings), *mean_interval(curve[v][metric])) for v in sorted(curve)]
    places, middles, lows, highs = zip(*triples, strict=True)
    width = NUDGE * (place_of(settings[-1], settings) - place_of(settings[0], settings))
    below = [m - low for m, low in zip(middles, lows, strict=True)]
    above = [high - m for m, high in zip(middles, highs, strict=True)]
    axis.errorbar(
        [p + shift * width for p in places], middles, yerr=[below, above], label=label, capsize=2, linewidth=1.2,
        elinewidth=0.7, marker=MARKERS[number % len(MARKERS)], markersize=4,
        color=SERIES_COLOURS[number % len(SERIES_COLOURS)],
    )  # fmt: skip


def place_of(value: float, settings: Sequence[float]) -> float:
    """Where a setting stands: its logarithm; 0 as far left of the least as settings stand apart."""
    if value > 0:
        return math.log10(value)
    some = [math.log10(v) for v in settings if v > 0]
    gap = min((b - a for a, b in itertools.pairwise(some)), default=1.0)
    return min(some, default=0.0) - gap


def _text(value: float) -> str:
    return f"{value:.3g}" if value > 0 else "off"
