"""Learning curves of a run, finished or not: `python -m experiments.training.curves [run=outputs/fitdiff-laptop]`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

from experiments.report import markdown_table, replace_generated, save_chart
from fitdiff.command import run_command
from fitdiff.training.log import read_log

HERE = Path(__file__).parent
HELD_OUT = "held_out/"
MAPS = {"diffuse": "#b2182b", "specular": "#4d4d4d", "normals": "#2166ac"}

Log = Sequence[Mapping[str, Any]]
"""Lines of a stage's `log.jsonl`."""


@dataclass
class Options:
    """What the command line sets."""

    run: str = "outputs/fitdiff-laptop"  # folder of the training run
    publish: bool = True  # write into experiments/training, not only into the run's folder


def main() -> None:
    """Draw the curves and write the table."""
    run_command(_draw, Options, __doc__)


def _draw(options: Options, console: Console) -> None:
    run = Path(options.run)
    folders = json.loads((run / "stages.json").read_text())
    out = HERE / "pictures" if options.publish else run / "curves"
    files = {name: run / folders[name] / "log.jsonl" for name in CHARTS if name in folders}
    logs = {name: list(read_log(file)) for name, file in files.items() if file.exists()}
    for name, log in logs.items():
        save_chart(CHARTS[name](log), out / f"{name}.png")
    text = f"Date: {date.today()}.\n\n" + "\n\n".join(tables(logs))
    if options.publish:
        replace_generated(HERE / "README.md", text)
    console.print(f"results: {out}" + (f" and {HERE / 'README.md'}" if options.publish else ""))


def series(log: Log, key: str) -> tuple[list[int], list[float]]:
    """Steps and values of one name, where it was logged."""
    points = [(entry["step"], entry[key]) for entry in log if entry.get(key) is not None]
    return [step for step, _ in points], [value for _, value in points]


def autoencoder_chart(log: Log) -> Figure:
    """Loss terms; held-out PSNR of each map beside PCA of as many numbers; use of the codebook."""
    figure = Figure((12, 3.4), layout="constrained")
    losses, quality, codes = figure.subplots(1, 3)
    draw_losses(losses, log)
    for name, colour in MAPS.items():
        quality.plot(*series(log, f"{HELD_OUT}psnr_{name}"), "o-", markersize=3, color=colour, label=name)
        _, pca = series(log, f"{HELD_OUT}psnr_{name}_pca")
        for value in pca[-1:]:
            quality.axhline(value, color=colour, linestyle=":", label=f"{name}, PCA")
    _finish(quality, "held-out PSNR, dB")
    codes.plot(*series(log, "perplexity"), label="perplexity, training batch", linewidth=0.8)
    codes.plot(*series(log, f"{HELD_OUT}perplexity"), "o-", markersize=3, label="perplexity, held-out people")
    codes.set_ylim(0)
    _finish(codes, "codebook")
    return figure


def diffusion_chart(log: Log) -> Figure:
    """Loss terms; held-out noise loss beside predicting nothing; identity of samples."""
    figure = Figure((12, 3.4), layout="constrained")
    losses, noise, identity = figure.subplots(1, 3)
    draw_losses(losses, log)
    noise.plot(*series(log, f"{HELD_OUT}noise_loss"), "o-", markersize=3, label="model")
    _, nothing = series(log, f"{HELD_OUT}noise_loss_predicting_nothing")
    for value in nothing[-1:]:
        noise.axhline(value, color="grey", linestyle=":", label="predicting nothing")
    _finish(noise, "held-out noise loss")
    for key, label in (("identity_cosine", "raw"), ("identity_cosine_centred", "centred")):
        identity.plot(*series(log, f"{HELD_OUT}{key}"), "o-", markersize=3, label=label)
    identity.set_ylim(top=1)
    _finish(identity, "identity cosine of samples, held-out people")
    return figure


CHARTS = {"autoencoder": autoencoder_chart, "diffusion": diffusion_chart}
"""Of the stages that train."""


def draw_losses(axis: Axes, log: Log) -> None:
    """Every `loss_...` of the training log, smoothed over ten entries, on a logarithmic axis."""
    keys = dict.fromkeys(key for entry in log for key in entry if key.startswith("loss_"))
    for key in keys:
        steps, values = series(log, key)
        points = [(s, v) for s, v in zip(steps, values, strict=True) if v > 0]  # a term rests between its steps
        if points:
            axis.plot(*zip(*smooth(points), strict=True), label=key.removeprefix("loss_"), linewidth=1)
    axis.set_yscale("log")
    _finish(axis, "training losses (unweighted)")


def smooth(points: Sequence[tuple[int, float]], window: int = 10) -> list[tuple[int, float]]:
    """Mean of each point and the ones before it, up to `window`."""
    recent = [[value for _, value in points[max(0, i + 1 - window) : i + 1]] for i in range(len(points))]
    return [(step, sum(values) / len(values)) for (step, _), values in zip(points, recent, strict=True)]


def tables(logs: Mapping[str, Log]) -> list[str]:
    """One table a stage: every held-out figure at the first, a middle and the last evaluation."""
    evaluated = {name: [e for e in log if any(k.startswith(HELD_OUT) for k in e)] for name, log in logs.items()}
    return [_table(name, entries) for name, entries in evaluated.items() if entries]


def _table(name: str, entries: Log) -> str:
    chosen = [entries[0], entries[len(entries) // 2], entries[-1]]
    keys = [key for key in chosen[-1] if key.startswith(HELD_OUT)]
    rows = [[key.removeprefix(HELD_OUT), *(_cell(entry.get(key)) for entry in chosen)] for key in keys]
    return markdown_table([f"{name}, held-out people", *(f"step {entry['step']}" for entry in chosen)], rows)


def _cell(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _finish(axis: Axes, title: str) -> None:
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("step")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)


if __name__ == "__main__":
    main()
