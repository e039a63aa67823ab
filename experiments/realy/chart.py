"""Every system's error by region."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from experiments.ablation.charts import MARKERS, SERIES_COLOURS
from fitdiff.evaluation.realy.keypoints import REGIONS
from fitdiff.evaluation.statistics import mean_interval


def region_chart(results: Mapping[str, Any]) -> Figure:
    """Means over photos with 95% intervals, a group of systems a region."""
    figure = Figure((8, 3.4), layout="constrained")
    axis = figure.subplots()
    for number, (name, result) in enumerate(results.items()):
        shift = 0.15 * (number - (len(results) - 1) / 2)
        for place, region in enumerate(REGIONS):
            values = [row[f"{region}_mm"] for row in result["rows"] if row[f"{region}_mm"] is not None]
            middle, low, high = mean_interval(values)
            axis.errorbar(
                place + shift, middle, yerr=[[middle - low], [high - middle]], fmt=MARKERS[number], capsize=3,
                color=SERIES_COLOURS[number], label=name if not place else None,
            )  # fmt: skip
    axis.set_xticks(range(len(REGIONS)), REGIONS)
    axis.set_ylabel("error in mm, 95% intervals")
    axis.set_ylim(0)
    axis.grid(axis="y", alpha=0.3)
    axis.legend(fontsize=8)
    return figure
