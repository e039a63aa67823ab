"""The page's tables, as what the template prints: cells with the value that they are sorted by."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from fitdiff.report.groups import Estimate, Group
from fitdiff.report.metrics import (
    by_importance,
    duration,
    higher_is_better,
    hint,
    is_reference,
    later_stages_first,
    readable,
)
from fitdiff.report.runs import TRAINING, Run


@dataclass
class Cell:
    """Text, the number that it is sorted by (None: the text), a smaller second text, and a mark (`best`, `beats`)."""

    text: str
    value: float | None = None
    detail: str = ""
    mark: str = ""
    link: str = ""


@dataclass
class Column:
    """Heading; `heading` above it groups neighbours; `minor` columns are shown when asked for."""

    name: str
    heading: str = ""
    numeric: bool = True
    minor: bool = False
    hint: str = ""


@dataclass
class Row:
    """Cells under the columns; `groups` are those whose switching off hides the row."""

    cells: list[Cell]
    groups: str = ""


@dataclass
class Table:
    """A table; `shared` are facts that are the same in all rows, and `note` says how to read it."""

    caption: str
    columns: list[Column]
    rows: list[Row]
    shared: list[tuple[str, str]] = field(default_factory=list)
    note: str = ""
    footer: list[Cell] = field(default_factory=list)


def overview(groups: Sequence[Group]) -> Table:
    """One row a configuration of one kind, one column a final value; the best of a column is marked."""
    kind = groups[0].kind
    metrics = list(dict.fromkeys(key for group in groups for run in group.runs for key in run.numbers))
    if kind == TRAINING:
        metrics = [key for key in later_stages_first(metrics) if not key.endswith("/seconds")]
    else:
        metrics = by_importance(metrics)
    estimates = {key: [group.estimate(key) for group in groups] for key in metrics}
    shared = {key for key in metrics if len(groups) > 1 and _all_equal(estimates[key])}
    told = [key for key in metrics if key not in shared]
    columns = [metric_column(key, metrics, staged=kind == TRAINING) for key in told]
    marks = {key: _best(estimates[key], higher_is_better(key)) for key in told}
    rows = []
    for i, group in enumerate(groups):
        numbers = [estimate_cell(estimates[key][i], marks[key] == i) for key in told]
        rows.append(Row([*_head(group), *numbers], str(group.index)))
    title = "Training runs" if kind == TRAINING else f"Evaluations: {kind}"
    head = [Column("run", numeric=False), Column("seeds"), Column("state", numeric=False), Column("took")]
    head += [] if kind == TRAINING else [Column("items")]
    same = [(key, readable(next(e.mean for e in estimates[key] if e))) for key in metrics if key in shared]
    return Table(title, head + columns, rows, same)


def estimate_cell(estimate: Estimate | None, best: bool = False) -> Cell:
    """`mean` with `low to high` below it."""
    if estimate is None:
        return Cell("–")
    between = f"{readable(estimate.low)} to {readable(estimate.high)}" if estimate.low is not None else ""
    lacking = f"{estimate.lacking} missing" if estimate.lacking else ""
    details = (between, lacking, "" if estimate.final else "so far")
    return Cell(readable(estimate.mean), estimate.mean, ", ".join(filter(None, details)), "best" * best)


def facts(runs: Sequence[Run], indices: Sequence[int], anchors: Callable[[int], str]) -> Table:
    """Provenance: one row a run, one column a fact in which runs differ; the others once, above."""
    names = list(dict.fromkeys(name for run in runs for name in run.facts))
    values = {name: [run.facts.get(name, "–") for run in runs] for name in names}
    shared = [name for name in names if len(runs) > 1 and len(set(values[name])) == 1]
    told = [name for name in names if name not in shared]
    rows = [
        Row(
            [
                Cell(run.name, link=anchors(i)),
                Cell(str(run.seed) if run.seed is not None else "–"),
                Cell(duration(run.seconds), run.seconds),
                *(Cell(values[name][i]) for name in told),
            ],
            str(indices[i]),
        )
        for i, run in enumerate(runs)
    ]
    head = [Column("run", numeric=False), Column("seed"), Column("took")]
    columns = head + [Column(name, numeric=False) for name in told]
    return Table("Where the runs come from", columns, rows, [(name, values[name][0]) for name in shared])


def _items(group: Group) -> Cell:
    """How many items the numbers are of, in each of the runs: the best of few is no match for the best of many."""
    counts = sorted({len(run.rows) for run in group.runs})
    return Cell(" to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))), counts[-1])


def _head(group: Group) -> list[Cell]:
    finished = [run for run in group.runs if run.status == "finished"]
    state = _state([run.status for run in group.runs if run.status != "finished"], len(group.runs))
    seconds = [run.seconds for run in finished or group.runs if run.seconds is not None]
    mean = sum(seconds) / len(seconds) if seconds else None
    known = list(dict.fromkeys(str(run.seed) for run in group.runs if run.seed is not None))
    return [
        Cell(group.name, link=f"group-{group.index}"),
        Cell(str(len(group.seeds)), len(group.seeds), ", ".join(known) if len(known) > 1 else ""),
        Cell(state, mark="unfinished" if len(finished) < len(group.runs) else ""),
        Cell(duration(mean), mean, "each" if len(seconds) > 1 else ""),
        *([] if group.kind == TRAINING else [_items(group)]),
    ]


def _state(statuses: Sequence[str], total: int) -> str:
    """Those that have not finished, by the word that their status begins with: how many, and the first of each."""
    kinds: dict[str, list[str]] = {}
    for status in sorted(statuses):
        kinds.setdefault(status.partition(":")[0], []).append(status)
    counts = (f"{len(alike)} of {total} {alike[0]}" if total > 1 else alike[0] for alike in kinds.values())
    return "; ".join(counts) or "finished"


def metric_column(key: str, metrics: Collection[str], staged: bool = False) -> Column:
    """Column of a metric among others; `staged` names have the stage before them."""
    stage, _, name = key.partition("/") if staged else ("", "", key)
    return Column(name, stage, minor=is_reference(key, metrics), hint=hint(key))


def _all_equal(estimates: Sequence[Estimate | None]) -> bool:
    first = estimates[0]
    return first is not None and all(e is not None and e.mean == first.mean and e.low is None for e in estimates)


def _best(estimates: Sequence[Estimate | None], higher: bool | None) -> int | None:
    """Index of the best final mean, if there are two different ones to choose from."""
    known = [(e.mean, i) for i, e in enumerate(estimates) if e is not None and e.final]
    if higher is None or len({mean for mean, _ in known}) < 2:
        return None
    return max(known)[1] if higher else min(known)[1]
