"""What evaluations say item by item: every number of every photo or person, and paired differences of runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fitdiff.evaluation.statistics import VERDICTS, difference_interval, mean_interval
from fitdiff.report.groups import Group
from fitdiff.report.metrics import by_importance, higher_is_better, hint, readable
from fitdiff.report.runs import Run, number
from fitdiff.report.tables import Cell, Column, Row, Table, metric_column

MOST_CELLS = 20_000
"""Of all item tables of a benchmark together; beyond it, items are left out, and the page says how many."""


def item_metrics(groups: Sequence[Group]) -> list[str]:
    """Names under which some item has a number."""
    rows = [row for group in groups for run in group.runs for row in run.rows]
    return by_importance(dict.fromkeys(key for row in rows for key, value in row.items() if number(value) is not None))


def item_names(groups: Sequence[Group]) -> list[str]:
    """Of all items of all groups, in the order of their first appearance."""
    return list(dict.fromkeys(str(row["name"]) for group in groups for run in group.runs for row in run.rows))


def item_values(group: Group, metric: str, names: Sequence[str]) -> NDArray:
    """(seeds, items) numbers, NaN where there is none."""
    return np.array([_of_run(run, metric, names) for run in group.runs])


def _of_run(run: Run, metric: str, names: Sequence[str]) -> list[float]:
    values = {str(row["name"]): number(row.get(metric)) for row in run.rows}
    return [float("nan") if (value := values.get(name)) is None else value for name in names]


def paired_table(groups: Sequence[Group], base: Group) -> Table:
    """Each group minus the base on the items that both have, with intervals over items and seeds."""
    metrics, names = item_metrics(groups), item_names(groups)
    values = {(g.index, key): item_values(g, key, names) for g in groups for key in metrics}
    columns = [Column("run", numeric=False), Column("items")] + [metric_column(key, metrics) for key in metrics]
    of_base, rows = set(item_names([base])), []
    for group in groups:
        if group is base:
            continue
        cells = [difference_cell(values[group.index, key], values[base.index, key], key) for key in metrics]
        shared = len(of_base.intersection(item_names([group])))
        rows.append(Row([Cell(group.name), Cell(str(shared), shared), *cells], str(group.index)))
    note = (
        "Mean difference on the same items, 95% interval (Student's) over items and seeds below it. "
        "Marked where the interval leaves out 0; many comparisons make some of these by chance."
    )
    return Table(f"Minus {base.name}, paired", columns, rows, note=note)


def difference_cell(ours_SN: NDArray, theirs_TN: NDArray, metric: str) -> Cell:
    """`+0.12` with its interval; marked `beats` or `behind`, or `differs` where the metric has no better side."""
    mean, low, high = difference_interval(ours_SN, theirs_TN)
    if not np.isfinite(mean):
        return Cell("–")
    side, higher = int(low > 0) - int(high < 0), higher_is_better(metric)
    verdict = ("differs" if side else "") if higher is None else VERDICTS[1 + (side if higher else -side)]
    spread = f"{low:+.4g} to {high:+.4g}" if np.isfinite(low) else ""
    return Cell(f"{mean:+.4g}", mean, spread, "" if verdict == "level" else verdict)


def item_tables(groups: Sequence[Group], base: Group) -> list[Table]:
    """Of one group: items by metrics. Of several: a table a metric, items by groups, beside the base's."""
    metrics, names = item_metrics(groups), item_names(groups)
    most = max(10, MOST_CELLS // max(1, len(metrics) * len(groups)))
    if len(groups) == 1:
        series = [(metric_column(key, metrics), item_values(groups[0], key, names)) for key in metrics]
        return [_items("Every item", names[:most], series, len(names))] if metrics else []
    ordered = [base, *(group for group in groups if group is not base)]
    made = []
    for key in metrics:
        series = [(Column(group.name, hint=hint(key)), item_values(group, key, names)) for group in ordered]
        made.append(_items(key, names[:most], series, len(names)))
    return made


def _items(caption: str, names: Sequence[str], series: Sequence[tuple[Column, NDArray]], total: int) -> Table:
    """A table of items by (column, (seeds, items) numbers); the last line is the mean of all items."""
    columns = [Column("item", numeric=False), *(column for column, _ in series)]
    means = [_seed_mean(values) for _, values in series]
    rows = [Row([Cell(name), *(_number_cell(mean[i]) for mean in means)]) for i, name in enumerate(names)]
    footer = [Cell(f"mean of {total}"), *(_mean_cell(values) for _, values in series)]
    note = f"The first {len(names)} of {total} items; the mean is of all." if len(names) < total else ""
    return Table(caption, columns, rows, note=note, footer=footer)


def _seed_mean(values_SN: NDArray) -> NDArray:
    known = np.isfinite(values_SN)
    with np.errstate(invalid="ignore"):
        return np.where(known, values_SN, 0).sum(0) / known.sum(0)


def _mean_cell(values_SN: NDArray) -> Cell:
    mean, low, high = mean_interval(values_SN)
    if not np.isfinite(mean):
        return Cell("–")
    return Cell(readable(mean), mean, f"{readable(low)} to {readable(high)}" if np.isfinite(low) else "")


def _number_cell(value: float) -> Cell:
    return Cell(readable(float(value)), float(value)) if np.isfinite(value) else Cell("–")
