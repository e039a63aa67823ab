"""How far should a guided step go, and how many are worth their time? `python -m experiments.guidance_scale`

Reads the results of `python evaluate.py experiment=guidance_scale` (Algorithm 1) and of `experiment=guidance_step` (the
default preset), and evaluates what is missing.
"""

from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.ablation.fitting import Grid, Options, Place, facts
from experiments.ablation.grid import Job
from experiments.ablation.publish import publish
from fitdiff.command import run_command

HERE = Path(__file__).parent


def place_of_scale(job: Job) -> Place:
    """A curve for each number of steps, over s."""
    steps, scale = job.config.fitting.steps, job.config.fitting.scale
    return Place((f"T = {steps}",), scale, f"s = {scale:g}, T = {steps}")


def place_of_step(job: Job) -> Place:
    """A curve for each number of steps, over their size."""
    steps, size = job.config.fitting.steps, job.config.fitting.adaptive
    return Place((f"{steps} steps",), size, f"size {size:g}, {steps} steps")


GRIDS = {
    "scale": Grid(
        "guidance_scale",
        "Algorithm 1: gradient scale s and steps T",
        "gradient scale s",
        place_of_scale,
        "s = 75, T = 50",
    ),
    "step": Grid(
        "guidance_step",
        "The default preset: size and number of its steps",
        "fitting.adaptive",
        place_of_step,
        "size 0.2, 25 steps",
    ),
}


def write(options: Any, console: Console) -> None:
    """Evaluate what is not evaluated yet, print the tables, and write tables and charts."""
    measured = {name: grid.measure(options, console) for name, grid in GRIDS.items()}
    results = [result for *_, some in measured.values() for result in some]
    sections = [f"{tables}\n\n![{GRIDS[name].title}](pictures/{name}.png)" for name, (tables, *_) in measured.items()]
    text = "\n\n".join([facts("guidance_scale", options, results), *sections])
    charts = {name: chart for name, (_, chart, _) in measured.items()}
    publish(HERE, Path(options.outputs) / "experiments" / "guidance_scale", text, charts, options.publish)
    print(text)


if __name__ == "__main__":
    run_command(write, Options, __doc__)
