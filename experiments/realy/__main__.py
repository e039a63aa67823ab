"""Tables 3 and 4: shape errors by REALY's protocol. `python -m experiments.realy [path=DIR] [publish=true]`

Without `path` synthetic people in REALY's layout are made first; the same command takes the copy of REALY that its
authors gave you. Either way the systems below are measured by `python evaluate.py experiment=realy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.ablation.facts import origin
from experiments.ablation.grid import composed, evaluated
from experiments.ablation.publish import publish
from experiments.ablation.scores import stack_scores
from experiments.ablation.tables import difference_table
from experiments.realy.chart import region_chart
from experiments.report import command_line, markdown_table, name_of_place
from fitdiff.command import run_command
from fitdiff.evaluation.realy import folder as layout
from fitdiff.evaluation.realy import synthetic
from fitdiff.evaluation.realy.keypoints import REGIONS
from fitdiff.evaluation.realy.published import PUBLISHED_NOTE, published_rows
from fitdiff.evaluation.realy.tables import STATISTICS

HERE = Path(__file__).parent
FITS = {"fitdiff, default": [], "fitdiff, the paper's constants": ["guidance=paper", "fitting=guided"]}
GIVEN = {"the true shape": "truth", "mean face": "mean_face"}
"""Predictions that come with a synthetic folder."""

BASELINE = next(iter(FITS))
METRICS = (*(f"{region}_mm" for region in REGIONS), "all_mm")


@dataclass
class Options:
    """What the command line sets."""

    path: str | None = None  # a copy of REALY; null: synthetic people, made where they are not there
    n: int = 8  # synthetic people
    outputs: str = "outputs"  # where evaluate.py writes its results, and the synthetic people go
    checkpoint: str = "outputs/fitdiff-laptop/model"  # what train.py wrote
    batch: int = 8  # fits at once
    device: str = "auto"
    publish: bool = False  # also write into experiments/realy; figures of the real scans are yours to publish


def write(options: Any, console: Console) -> None:
    """Measure what is not measured yet, print the tables, and write tables and chart."""
    folder = Path(options.path) if options.path else synthetic_folder(options, console)
    words = ["experiment=realy", f"benchmark.path={folder}", f"outputs={options.outputs}", f"batch={options.batch}"]
    words += [f"checkpoint={options.checkpoint}", f"device={options.device}"]
    results = {
        name: evaluated(composed("evaluate", [*words, *extra]), console)
        for name, extra in systems(folder, options.path is None).items()
    }
    text = "\n\n".join([facts(options, results), *tables(results, options.path is None)])
    chart = {"regions": region_chart(results)}
    publish(HERE, Path(options.outputs) / "experiments" / "realy", text, chart, options.publish)
    print(text)


def synthetic_folder(options: Any, console: Console) -> Path:
    """The folder of synthetic people, made unless it is there."""
    folder = Path(options.outputs) / f"realy-synthetic-{options.n}"
    if not (folder / layout.SYNTHETIC_FILE).exists():  # the last file that is written
        synthetic.write_folder(synthetic.Options(out=str(folder), n=options.n), console)
    return folder


def systems(folder: Path, made: bool) -> dict[str, list[str]]:
    """Name -> overrides of evaluate.py. Of synthetic people the truth and the mean face are known, too."""
    given = {
        name: [f"benchmark.predictions={folder / 'predictions' / system}", f"benchmark.topology={synthetic.TOPOLOGY}"]
        for name, system in GIVEN.items()
    }
    return {**(given if made else {}), **FITS}


def facts(options: Any, results: Mapping[str, Any]) -> str:
    """Date, hash, command and checkpoint."""
    command, model = command_line("experiments.realy", options, Options), name_of_place(options.checkpoint)
    return f"{origin(results.values())} Command: `{command}`, of the checkpoint {model}."


def tables(results: Mapping[str, Any], made: bool) -> list[str]:
    """Ours, their paired differences, and the published rows: in a table of their own where ours are of other scans."""
    header = ["mm", *(f"{region} {what}" for region in REGIONS for what in STATISTICS), "all avg"]
    ours = [[name, *summary_cells(result["summary"])] for name, result in results.items()]
    published = [[f"{row[0]} (as published)", *row[1:]] for row in published_rows()]
    if not made:
        return [markdown_table(header, [*ours, *published]), PUBLISHED_NOTE, paired(results)]
    warning = "**As published, of real scans: not to be compared with the figures above.** " + PUBLISHED_NOTE
    return [markdown_table(header, ours), paired(results), "![Errors by region](pictures/regions.png)", warning, markdown_table(header, published)]  # fmt: skip # noqa: E501


def paired(results: Mapping[str, Any]) -> str:
    """Differences from the default preset on the same people, each in the one frontal photo."""
    frontal = {
        name: [[row for row in result["rows"] if "_" not in row["name"]]]
        for name, result in results.items()
        if name != "the true shape"
    }
    table = difference_table(stack_scores(frontal, METRICS), BASELINE, METRICS)
    return f"Differences on the same people, the row's minus the default's, with 95% intervals over people:\n\n{table}"


def summary_cells(summary: Mapping[str, float]) -> list[str]:
    """The 13 figures of the paper's rows; empty where one photo has no deviation."""
    keys = [f"{region}_{what}mm" for region in REGIONS for what in ("", "median_", "std_")]
    return [f"{summary[key]:.3f}" if summary.get(key) is not None else "" for key in [*keys, "all_mm"]]


if __name__ == "__main__":
    run_command(write, Options, __doc__)
