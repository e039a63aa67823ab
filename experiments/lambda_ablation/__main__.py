"""What is each lambda of G worth? `python -m experiments.lambda_ablation [publish=true]`

Reads the results of `python evaluate.py experiment=lambda_ablation`, and evaluates what is missing.
"""

from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.ablation.fitting import Grid, Options, Place, facts
from experiments.ablation.grid import Job
from experiments.ablation.publish import publish
from fitdiff.command import run_command

HERE = Path(__file__).parent
BASELINE = "the preset"


def place(job: Job) -> Place:
    """Terms are curves, over the factor of their lambda; the preset is a point of all."""
    factors = dict(job.config.factors)
    if not factors:
        return Place(tuple(job.config.guidance), 1.0, BASELINE)
    ((term, factor),) = factors.items()
    return Place((term,), factor, f"{term} × {factor:g}" if factor else f"{term} off")


GRID = Grid("lambda_ablation", "Every λ alone", "factor of the preset's λ", place, BASELINE)


def write(options: Any, console: Console) -> None:
    """Evaluate what is not evaluated yet, print the tables, and write tables and chart."""
    tables, chart, results = GRID.measure(options, console)
    text = f"{facts('lambda_ablation', options, results)}\n\n{tables}\n\n![Every λ alone](pictures/lambdas.png)"
    publish(HERE, Path(options.outputs) / "experiments" / "lambda_ablation", text, {"lambdas": chart}, options.publish)
    print(text)


if __name__ == "__main__":
    run_command(write, Options, __doc__)
