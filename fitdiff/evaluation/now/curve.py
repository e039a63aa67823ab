"""The cumulative curve of errors: how much of the scans lies within a distance of the predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fitdiff.evaluation.now.scores import cumulative

FARTHEST = 8.0
"""mm at which the curve ends."""

THRESHOLDS = np.linspace(0, FARTHEST, 161)
TOLD = np.array([0.5, 1, 1.5, 2, 3, 4, 5, 6, 7, 8])
"""mm: of the picture, and of the table."""


def cumulative_figure(distances: Mapping[str, Sequence[NDArray[np.float32]]]) -> Figure:
    """Percentage of vertices within 0 to 8 mm, a line a challenge and a stronger one for all."""
    figure = Figure((7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, group in distances.items():
        whole = name == "all"
        style = {"color": "black", "linewidth": 2.2} if whole else {"linewidth": 1.2}
        axes.plot(THRESHOLDS, cumulative(group, THRESHOLDS), label=name.replace("_", " "), **style)
    axes.set(xlim=(0, FARTHEST), ylim=(0, 101), xlabel="distance from the prediction in mm")
    axes.set_ylabel("scan vertices within it in %")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    return figure


def cumulative_rows(distances: Mapping[str, Sequence[NDArray[np.float32]]]) -> tuple[list[str], list[list[float]]]:
    """Header and rows of the same as numbers: mm, then the percentage of each challenge."""
    columns = [cumulative(group, TOLD) for group in distances.values()]
    return ["mm", *distances], [[float(mm), *map(float, row)] for mm, *row in zip(TOLD, *columns, strict=True)]
