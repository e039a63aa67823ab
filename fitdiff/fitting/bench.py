"""How fast is a fit, beside what its arithmetic demands?  `python -m fitdiff.fitting.bench` (`make bench-fit`)

A table of the parts of one guided step (see `cost`), and one of whole fits with unknown scene: through the denoiser and
stopped at z0_hat. Random weights are as fast as trained ones, so no checkpoint and no photo is needed; detection and
the first estimate of the scene are not in these figures.

    python -m fitdiff.fitting.bench                                          # laptop: two CPU cores
    python -m fitdiff.fitting.bench scale=paper device=cuda batch=[1,8,32]   # one GPU
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from fitdiff.benchmark import copy_bandwidth, matrix_peak, peak_memory, resident, seconds, take_turns
from fitdiff.command import run_command, usable_device
from fitdiff.diffusion.sampler import DDIM
from fitdiff.fitting.cost import Cost, Part, cost_of, parts_of, portrait_problem
from fitdiff.fitting.guided import GuidedFitting
from fitdiff.fitting.problem import FitProblem, first_noise
from fitdiff.registry import build
from fitdiff.storage import write_json

PART_COLUMNS = ("GFLOP", "MB", "forward ms", "both ms", "GFLOP/s", "limit ms", "of limit")
FIT_COLUMNS = ("batch", "s a fit", "s a photo", "ms a step", "photos/s", "MB")
WIDTH = 130
"""Characters of a table, also where standard output is a file."""


@dataclass
class Options:
    """What the command line sets."""

    scale: str = "laptop"  # laptop, base or paper, with random weights
    checkpoint: str | None = None  # a trained model's folder, instead of a scale
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    threads: int = torch.get_num_threads()
    batch: list[int] = field(default_factory=lambda: [1, 8])  # photos at once
    steps: int = 50  # of a fit; 0: time the parts only
    size: int = 224  # side of a photo's crop in pixels
    repeats: int = 5  # turns of the parts
    fits: int = 2  # turns of whole fits
    compile: bool = False  # torch.compile for the networks; what that takes is told
    out: str = "outputs/bench-fit"  # folder of bench.json


def main() -> None:
    """Print both tables and write the figures."""
    run_command(_run, Options, __doc__)


def _run(options: Options, console: Console) -> None:
    device = usable_device(options.device)
    torch.set_num_threads(options.threads)
    model, terms = load_model(options, device)
    machine = {"peak": matrix_peak(device, torch.float32), "bandwidth": copy_bandwidth(device)}
    where = f"{device.type}, {torch.get_num_threads()} threads, float32"
    where += f"; matrix products {machine['peak'] / 1e9:.0f} GFLOP/s, copies {machine['bandwidth'] / 1e9:.1f} GB/s"
    out, report = Console(), {"scale": options.checkpoint or options.scale, "machine": {"name": where, **machine}}
    out.width = max(out.width, WIDTH)
    if options.compile:
        taken = seconds(lambda: compile_networks(model, terms, options.size), device)
        console.print(f"compiling took {taken:.0f} s")
        report["seconds to compile"] = taken
    for batch in options.batch:
        problem = portrait_problem(model, terms, batch, options.size)
        rows = measure_parts(parts_of(problem), options.repeats, device)
        out.print(part_table(rows, batch, machine, where))
        report[f"parts, batch {batch}"] = [vars(row) | vars(row.cost) | {"cost": None} for row in rows]
    if options.steps:
        fits = {
            b: measure_fits(portrait_problem(model, terms, b, options.size), options, device) for b in options.batch
        }
        out.print(fit_table(fits, options.steps, where))
        report["fits"] = fits
    report["peak resident bytes"] = resident("VmHWM")
    console.print(f"results: {write_json(Path(options.out) / 'bench.json', report)}")


def load_model(options: Options, device: torch.device) -> tuple[Any, dict[str, Any]]:
    """A model and its guidance terms; of a scale: untrained, and without the weights that need a download."""
    from fitdiff.config import select
    from fitdiff.model import COMPONENTS, DEFAULTS, FitDiff
    from fitdiff.training.bench_steps import compose_scale

    if options.checkpoint is not None:
        model = FitDiff.load(options.checkpoint, device)
        nodes = model.config["guidance"]
    else:
        config = compose_scale(options.scale)
        nodes = select(config, *COMPONENTS, *DEFAULTS)
        model = FitDiff({**select(config, "resolution", "prediction"), **nodes, "separate": False})
        model = model.eval().requires_grad_(False).to(device)
        nodes = nodes["guidance"]
        if nodes["vgg"]["backbone"] == "lpips":
            nodes = {**nodes, "vgg": {**nodes["vgg"], "weights": "random"}}
    return model, {name: build(node, "guidance") for name, node in nodes.items()}


def compile_networks(model: Any, terms: Mapping[str, Any], size: int) -> None:
    """torch.compile for what a step calls, and the first calls, forward and backward."""
    mode = "reduce-overhead" if model.device.type == "cuda" else None
    model.denoiser.compile(mode=mode)
    model.identity.compile(mode=mode)
    model.autoencoder.decode = torch.compile(model.autoencoder.decode, mode=mode)
    for term in terms.values():
        if hasattr(term, "network"):
            term.network.features = torch.compile(term.network.features, mode=mode)
    for part in parts_of(portrait_problem(model, terms, 1, size)).values():
        part.backward()


@dataclass(frozen=True)
class PartTime:
    """A part with its cost, and its fastest and median seconds."""

    name: str
    cost: Cost
    forward: float
    both: float
    median: float


def measure_parts(parts: Mapping[str, Part], repeats: int, device: torch.device) -> list[PartTime]:
    """Count each part, then let them take turns."""
    costs = {name: cost_of(part) for name, part in parts.items()}
    tasks = {name: {"forward": part.forward, "both": part.backward} for name, part in parts.items()}
    times = take_turns(tasks, repeats, device)
    return [
        PartTime(name, costs[name], min(t["forward"]), min(t["both"]), statistics.median(t["both"]))
        for name, t in times.items()
    ]


def part_table(rows: list[PartTime], batch: int, machine: Mapping[str, float], where: str) -> Table:
    """A row a part, and their sum."""
    table = Table(
        title=f"one guided step, batch {batch}", caption=f"fastest turn, GFLOP and MB of both passes; {where}"
    )
    for column in ("part", *PART_COLUMNS):
        table.add_column(column, justify="left" if column == "part" else "right", no_wrap=True)
    limits = [row.cost.limit(**machine) for row in rows]
    total = Cost(sum(row.cost.flop for row in rows), sum(row.cost.bytes for row in rows))
    rows = [*rows, PartTime("all", total, sum(r.forward for r in rows), sum(r.both for r in rows), 0.0)]
    for row, limit in zip(rows, [*limits, sum(limits)], strict=True):
        table.add_row(
            row.name,
            f"{row.cost.flop / 1e9:.2f}",
            f"{row.cost.bytes / 1e6:.0f}",
            f"{row.forward * 1e3:.1f}",
            f"{row.both * 1e3:.1f}",
            f"{row.cost.flop / row.both / 1e9:.0f}",
            f"{limit * 1e3:.1f}",
            f"{limit / row.both:.0%}",
        )
    return table


def measure_fits(problem: FitProblem, options: Options, device: torch.device) -> dict[str, Any]:
    """Seconds (fastest turn) and memory of whole fits by either gradient."""
    noise = first_noise(problem.model, len(problem.observation.image))
    measured = {}
    for name, through in (("through the denoiser", True), ("stopped at z0_hat", False)):

        def fit(through: bool = through) -> None:
            GuidedFitting(steps=options.steps, through_unet=through)(problem, DDIM(), noise)

        memory = peak_memory(fit, device)
        measured[name] = {"seconds": min(seconds(fit, device) for _ in range(options.fits)), "bytes": memory}
    return measured


def fit_table(fits: Mapping[int, Mapping[str, Any]], steps: int, where: str) -> Table:
    """A row a gradient and batch."""
    caption = f"fastest turn, unknown scene, without detection; MB beyond the loaded model; {where}"
    table = Table(title=f"whole fits, T = {steps}", caption=caption)
    for column in ("gradient", *FIT_COLUMNS):
        table.add_column(column, justify="left" if column == "gradient" else "right", no_wrap=True)
    for batch, rows in fits.items():
        for name, row in rows.items():
            taken, memory = row["seconds"], row["bytes"]
            figures = (f"{taken:.2f}", f"{taken / batch:.2f}", f"{taken / steps * 1e3:.0f}", f"{batch / taken:.2f}")
            table.add_row(name, str(batch), *figures, "" if memory is None else f"{memory / 1e6:.0f}")
    return table


if __name__ == "__main__":
    main()
