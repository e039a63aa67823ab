"""Experiments on fitting: every job of a grid is one evaluation of the same people under other settings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console

from experiments.ablation.charts import Curves, curve_chart
from experiments.ablation.facts import origin
from experiments.ablation.grid import Job, evaluated, jobs_of
from experiments.ablation.scores import Scores, stack_scores
from experiments.ablation.tables import difference_table, mean_table
from experiments.report import command_line, name_of_place

METRICS = ("novel_id_centred", "frontal_id_centred", "shape_mm", "diffuse_db")


@dataclass
class Options:
    """What the command line sets."""

    outputs: str = "outputs"  # where evaluate.py writes its results
    checkpoint: str = "outputs/fitdiff-laptop/model"  # what train.py wrote
    n: int = 16  # held-out people
    batch: int = 8  # fits at once
    device: str = "auto"
    publish: bool = False  # also write into the experiment's README


@dataclass(frozen=True)
class Place:
    """Where a job stands in a chart: its curves (several, if it is a point of all), its setting, its name in tables."""

    curves: tuple[str, ...]
    setting: float
    label: str


@dataclass(frozen=True)
class Grid:
    """An experiment of `evaluate.py`.

    Attributes:
        experiment: its name in `conf/experiment`. title: of its section. axis: what the charts' horizontal axis is.
        place: of each job. baseline: label of the job that the others are compared with, whose setting is marked.
    """

    experiment: str
    title: str
    axis: str
    place: Callable[[Job], Place]
    baseline: str

    def measure(self, options: Any, console: Console) -> tuple[str, Figure, list[dict[str, Any]]]:
        """Evaluate what is not evaluated yet; tables as Markdown, the chart, and all results."""
        words = [f"experiment={self.experiment}", f"checkpoint={options.checkpoint}", f"outputs={options.outputs}"]
        words += [f"benchmark.n={options.n}", f"batch={options.batch}", f"device={options.device}"]
        jobs = jobs_of("evaluate", words)
        results = {self.place(job): evaluated(job.composed, console) for job in jobs}
        scores = stack_scores({place.label: [result["rows"]] for place, result in results.items()}, METRICS)
        return self.tables(scores), self.chart(list(results), scores), list(results.values())

    def tables(self, scores: Scores) -> str:
        """Means, and differences from the baseline."""
        people = next(iter(scores[self.baseline].values())).shape[1]
        title = f"### {self.title}; {people} held-out people whose faces were found"
        return "\n\n".join([title, mean_table(scores, METRICS), difference_table(scores, self.baseline, METRICS)])

    def chart(self, places: list[Place], scores: Scores) -> Figure:
        """Paired differences from the baseline over the setting: their intervals are those of the comparison."""
        curves: Curves = defaultdict(dict)
        for place in places:
            for curve in place.curves:
                curves[curve][place.setting] = {
                    metric: values - scores[self.baseline][metric] for metric, values in scores[place.label].items()
                }
        (mark,) = (place.setting for place in places if place.label == self.baseline)
        return curve_chart(curves, METRICS, self.axis, mark, f"difference from {self.baseline}, 95% intervals")


def facts(module: str, options: Any, results: list[dict[str, Any]]) -> str:
    """Date, hash, command and checkpoint, and what brackets hold."""
    return (
        f"{origin(results)} Command: `{command_line(f'experiments.{module}', options, Options)}`, of the checkpoint "
        f"{name_of_place(options.checkpoint)}. Brackets hold 95% intervals over people."
    )
