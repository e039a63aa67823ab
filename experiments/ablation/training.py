"""Experiments on training: every run of a grid is evaluated, by samples from the embedding and by a few fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.ablation.charts import difference_chart
from experiments.ablation.facts import origin
from experiments.ablation.grid import Job, composed, evaluated, jobs_of
from experiments.ablation.publish import publish
from experiments.ablation.scores import Scores, stack_scores
from experiments.ablation.tables import difference_table, mean_table
from experiments.ablation.trained import checkpoint_of, refuse_other_settings
from experiments.report import command_line

METRICS = ("frontal_id_centred", "novel_id_centred", "shape_mm", "diffuse_db")
PARTS = {"samples": "unguided", "fits": "fit"}
"""What is judged -> method of benchmark=people."""


@dataclass
class Options:
    """What the command line sets."""

    outputs: str = "outputs"  # where train.py wrote the grid's runs, and evaluate.py its results
    n: int = 100  # held-out people of whom a face is sampled from the embedding
    fits: int = 8  # held-out people who are fitted; 0 fits none
    batch: int = 8  # of people at once
    device: str = "auto"
    overrides: list[str] = field(default_factory=list)  # that the runs were trained with beside the experiment's
    publish: bool = False  # also write into the experiment's README


@dataclass(frozen=True)
class Study:
    """An experiment of `train.py`.

    Attributes:
        name: of the experiment in `conf/experiment`. key: what its grid varies beside `seed`.
        labels: value of `key` -> name in tables; the first is the baseline. folder: of its README.
        by_seed: variants of one seed begin alike (weights, noises), so that they are compared seed by seed.
    """

    name: str
    key: str
    labels: Mapping[str, str]
    folder: Path
    by_seed: bool = False

    def write(self, options: Any, console: Console) -> None:
        """Evaluate what is not evaluated yet, print the tables, and write tables and charts.

        Raises:
            FileNotFoundError: runs of the grid are missing; says how to train them.
        """
        jobs = self.trained(options)
        parts = {part: n for part, n in (("samples", options.n), ("fits", options.fits)) if n}
        results = {part: self.results(jobs, part, n, options, console) for part, n in parts.items()}
        scores = {
            part: stack_scores({v: [r["rows"] for r in seeds] for v, seeds in found.items()}, METRICS)
            for part, found in results.items()
        }
        text = "\n\n".join([self.facts(options, results), *(self.section(part, scores[part]) for part in scores)])
        charts = {part: difference_chart(scores[part], self.baseline, METRICS, self.by_seed) for part in scores}
        publish(self.folder, Path(options.outputs) / "experiments" / self.name, text, charts, options.publish)
        print(text)

    @property
    def baseline(self) -> str:
        """What the others are compared with."""
        return next(iter(self.labels.values()))

    def trained(self, options: Any) -> list[Job]:
        """Jobs of the grid, all of them trained, and as the grid asks.

        Raises:
            FileNotFoundError: some are not. ValueError: some were trained with other settings.
        """
        jobs = jobs_of("train", [f"experiment={self.name}", f"outputs={options.outputs}", *options.overrides])
        if missing := [job.config.name for job in jobs if not (checkpoint_of(job) / "config.json").exists()]:
            raise FileNotFoundError(
                f"{len(missing)} of {len(jobs)} runs are not in {options.outputs}, the first is {missing[0]}; "
                f"train them: {self.training(options)} outputs={options.outputs}"
            )
        refuse_other_settings(jobs)
        return jobs

    def training(self, options: Any) -> str:
        """The command that trains the grid."""
        return " ".join([f"python train.py experiment={self.name}", *options.overrides])

    def results(self, jobs: Sequence[Job], part: str, n: int, options: Any, console: Console) -> dict[str, list[Any]]:
        """What evaluate.py finds, by label, a seed each."""
        found: dict[str, list[Any]] = {label: [] for label in self.labels.values()}
        for job in jobs:
            words = [f"checkpoint={checkpoint_of(job)}", f"outputs={options.outputs}", f"device={options.device}"]
            words += [f"benchmark.n={n}", f"benchmark.methods=[{PARTS[part]}]", f"batch={options.batch}"]
            asked = composed("evaluate", ["benchmark=people", *words])
            found[self.labels[job.values[self.key]]].append(evaluated(asked, console))
        return found

    def facts(self, options: Any, results: Mapping[str, Mapping[str, Sequence[Any]]]) -> str:
        """Date, hash and commands, and what brackets hold."""
        everything = [r for found in results.values() for seeds in found.values() for r in seeds]
        (seeds,) = {len(found[self.baseline]) for found in results.values()}
        command = command_line(f"experiments.{self.name}", options, Options)
        return (
            f"{origin(everything)} Commands: `{self.training(options)}`, `{command}`. {seeds} seeds a variant; "
            "brackets hold 95% intervals over people and seeds" + (", which are paired, too." if self.by_seed else ".")
        )

    def section(self, part: str, scores: Scores) -> str:
        """The tables and the chart of samples or of fits."""
        people = next(iter(scores[self.baseline].values())).shape[1]
        what = {"samples": "Samples from the embedding", "fits": "Fits with the default preset"}[part]
        return "\n\n".join(
            [
                f"### {what}, {people} held-out people whose faces were found",
                mean_table(scores, METRICS),
                difference_table(scores, self.baseline, METRICS, self.by_seed),
                f"![{what}](pictures/{part}.png)",
            ]
        )
