"""Does the error grow with the spread of the samples? `python -m experiments.uses.calibration [run=...] [n=32]`.

Each held-out person is sampled K times for the embedding of one portrait. The mean of the samples is the estimate; its
error is compared with the samples' spread, vertex by vertex (mm, aligned to the estimate) and texel by texel (diffuse,
levels of 255). Were the truth one more draw from the same distribution, then the mean squared error would be
(1 + 1/K) times the variance: the dispersion ratio, the root of variance (1 + 1/K) over squared error, would be 1.
Below 1, the samples are too alike. The truth is what z can hold: the person's shape code, and the autoencoder's
reconstruction of the maps.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from scipy.stats import spearmanr
from torch import Tensor

from experiments.report import markdown_table, save_chart
from experiments.uses.run import open_run, true_z, with_interval
from fitdiff.avatar.pictures import save_png
from fitdiff.evaluation.metrics import similarity_align
from fitdiff.evaluation.separation import bootstrap
from fitdiff.fitting import first_noise
from fitdiff.model import FitDiff
from fitdiff.storage import write_json
from fitdiff.uses.sampling import draw
from fitdiff.uses.spread import spread_of

BINS = 10


@dataclass
class Options:
    """What the command line sets."""

    run: str = "outputs/fitdiff-laptop"
    n: int = 32  # held-out people
    samples: int = 8  # of each, K
    steps: int = 25
    out: str = "outputs/experiments/uses"


@torch.no_grad()
def spread_and_error(model: FitDiff, z_KN: Tensor, truth_1N: Tensor) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of one person: vertices (mm) and texels of the diffuse albedo (levels), each (spread, error) as flat arrays."""
    spread = spread_of(model, z_KN)
    error = (similarity_align(model.vertices(truth_1N), spread.mean_vertices[None])[0] - spread.mean_vertices).norm(
        dim=1
    )
    pictures, truth = (model.maps(z).to_images()["diffuse"] for z in (z_KN, truth_1N))
    texel_error = (pictures.mean(0) - truth[0]).square().mean(0).sqrt()
    pairs = {
        "vertices, mm": (spread.vertices, error),
        "texels, levels": (spread.texels["diffuse"] * 255, texel_error * 255),
    }
    return {name: tuple(x.flatten().cpu().numpy() for x in pair) for name, pair in pairs.items()}


def root_mean_square(values: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    return np.sqrt(np.square(values).mean(-1))


def statistics(spread: np.ndarray, error: np.ndarray, samples: int) -> list[str]:
    """A row of the table, from (people, places): rank correlations and dispersion, with intervals over people."""
    inside = np.array([spearmanr(*row).statistic for row in zip(spread, error, strict=True)])
    by_person = root_mean_square(spread), root_mean_square(error)

    def over_people(copies: np.ndarray) -> dict[str, float]:
        rows = np.repeat(np.arange(len(spread)), copies.astype(int))
        variance = (1 + 1 / samples) * np.square(by_person[0][rows]).mean()
        return {
            "people": float(spearmanr(by_person[0][rows], by_person[1][rows]).statistic),
            "ratio": float(np.sqrt(variance / np.square(by_person[1][rows]).mean())),
        }

    intervals = bootstrap(over_people, len(spread), 1000, 0)
    text = {name: "{:.2f} ({:.2f} to {:.2f})".format(*values) for name, values in intervals.items()}
    means = [f"{root_mean_square(values.ravel()):.2f}" for values in (spread, error)]
    return [*means, with_interval(inside), text["people"], text["ratio"]]


def reliability(spread: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Root mean square of spread and of error in `BINS` bins of equally many places of all people, sorted by spread."""
    order = np.argsort(spread.ravel())
    bins = np.array_split(order, BINS)
    return tuple(np.array([root_mean_square(values.ravel()[b]) for b in bins]) for values in (spread, error))


def chart(curves: dict[str, tuple[np.ndarray, np.ndarray]], samples: int) -> Figure:
    """Error against predicted spread, beside the diagonal."""
    figure = Figure(figsize=(4 * len(curves), 3.8), layout="constrained")
    for axes, (name, (spread, error)) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
        predicted = spread * (1 + 1 / samples) ** 0.5
        top = max(predicted.max(), error.max()) * 1.05
        axes.plot([0, top], [0, top], color="0.7", label="calibrated")
        axes.plot(predicted, error, "o-", label="samples")
        axes.set(
            xlabel=f"predicted by the spread ({name})", ylabel="error of the mean sample", xlim=(0, top), ylim=(0, top)
        )
        axes.legend()
    return figure


def main() -> None:
    """Print the table, write the chart and a picture of one person's spread."""
    options = OmegaConf.merge(OmegaConf.structured(Options), OmegaConf.from_cli(sys.argv[1:]))
    model, people = open_run(options.run)
    everyone = people.held_out.gather(range(options.n), ("maps", "identity", "embedding"))
    truth = true_z(model, everyone)
    condition = everyone["embedding"][:, 0].to(model.device).repeat_interleave(options.samples, 0)
    z = draw(model, first_noise(model, options.n, options.samples), condition, steps=options.steps)
    z = z.view(options.n, options.samples, -1)
    rows = [spread_and_error(model, z[i], truth[i : i + 1]) for i in range(options.n)]
    lines, curves, record = [], {}, {}
    for name in rows[0]:
        spread, error = (np.stack([row[name][k] for row in rows]) for k in (0, 1))
        used = spread.mean(0) > 1e-3 * spread.mean()  # texels without skin never change
        lines.append([name, *statistics(spread[:, used], error[:, used], options.samples)])
        curves[name] = reliability(spread[:, used], error[:, used])
        record[name] = {"spread": curves[name][0].tolist(), "error": curves[name][1].tolist()}
    header = ["", "spread", "error", "rank corr. within a person", "across people", "dispersion (1: calibrated)"]
    print(f"Date: {date.today()}; {options.n} held-out people, K = {options.samples}, {options.steps} steps.\n")
    print(markdown_table(header, lines))
    out = Path(options.out)
    write_json(out / "calibration.json", record)
    save_chart(chart(curves, options.samples), out / "calibration.png")
    save_png(spread_of(model, z[0]).picture(), out / "spread.png")


if __name__ == "__main__":
    main()
