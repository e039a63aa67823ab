"""The table of experiments/laptop: `python -m experiments.laptop.table [checkpoint=...] [n=20]`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from rich.console import Console

from experiments.report import markdown_table
from fitdiff.data.people import People
from fitdiff.data.sources import build_data
from fitdiff.evaluation.compare import compare, methods_of
from fitdiff.evaluation.methods import RidgeRegression
from fitdiff.evaluation.pca import pca_psnr
from fitdiff.model import FitDiff
from fitdiff.storage import write_json
from fitdiff.training.latents import encode_maps

COLUMNS = {
    "photo_id": ("photo ID", ".3f"),
    "photo_id_centred": ("centred", ".2f"),
    "novel_id": ("novel ID", ".3f"),
    "novel_id_centred": ("centred", ".2f"),
    "shape_mm": ("shape mm", ".2f"),
    "diffuse_db": ("diffuse dB", ".1f"),
    "seconds": ("s a photo", ".1f"),
}


@dataclass
class Options:
    """What the command line sets."""

    run: str = "outputs/fitdiff-laptop"  # folder of the training run
    n: int = 20  # held-out people
    out: str = "outputs/experiments/laptop"


def load_run(run: Path) -> tuple[FitDiff, People, dict[str, Any]]:
    """The model of a run, the data it was trained on, and its metrics."""
    model = FitDiff.load(run / "model")
    config = OmegaConf.create(json.loads((run / "model" / "config.json").read_text()))
    people, _ = build_data(config, model.shape_model, model.identity, model.renderer, model.versions)
    people.prepare()
    return model, people, json.loads((run / "metrics.json").read_text())


def markdown(results: dict[str, dict[str, np.ndarray]]) -> str:
    """Means over people as a table."""
    rows = [
        [method, *(format(float(metrics[key].mean()), spec) for key, (_, spec) in COLUMNS.items())]
        for method, metrics in results.items()
    ]
    return markdown_table(["", *(label for label, _ in COLUMNS.values())], rows)


def main() -> None:
    """Print and write the tables."""
    options = OmegaConf.merge(OmegaConf.structured(Options), OmegaConf.from_cli(sys.argv[1:]))
    console = Console(stderr=True)
    model, people, metrics = load_run(Path(options.run))
    autoencoder, diffusion = metrics["autoencoder"], metrics["diffusion"]
    numbers = int(np.prod(model.autoencoder.latent_shape))
    pca = pca_psnr(people.train, people.held_out, numbers, limit=len(people.train))
    names = ("diffuse", "specular", "normals")
    psnr_rows = [
        ["mean map", "0", *(f"{autoencoder[f'psnr_{m}_mean_map']:.1f}" for m in names)],
        ["PCA of the maps", str(numbers), *(f"{pca[m]:.1f}" for m in names)],
        ["autoencoder", str(numbers), *(f"{autoencoder[f'psnr_{m}']:.1f}" for m in names)],
    ]
    text = [
        f"Date: {date.today()}. Held-out people: {options.n} for fits, {len(people.held_out)} for maps; "
        f"{len(people.train)} for training.\n",
        markdown_table(["PSNR dB", "numbers", *names], psnr_rows) + "\n",
        f"Codes in use: {autoencoder['codes_in_use']:.0%}. Noise loss on held-out people "
        f"{diffusion['noise_loss']:.4f}; predicting nothing scores {diffusion['noise_loss_predicting_nothing']:.4f}, "
        f"mean(alpha_bar) is {diffusion['mean_alpha_bar']:.4f}.\n",
    ]
    ridge = RidgeRegression(model, people.train, encode_maps(model, people.train))
    methods = methods_of(model, ridge)
    record: dict[str, Any] = {"autoencoder": autoencoder, "pca": pca, "diffusion": diffusion}
    for known, label in ((True, "known scene"), (False, "unknown scene")):
        console.print(f"fitting {options.n} people, {label}")
        results = compare(model, people.held_out, options.n, methods, known)
        text.append(f"**{label[0].upper()}{label[1:]}**\n\n{markdown(results)}\n")
        record[label] = {m: {k: v.tolist() for k, v in rows.items()} for m, rows in results.items()}
    out = Path(options.out)
    write_json(out / "results.json", record)
    (out / "table.md").write_text("\n".join(text))
    print("\n".join(text))
    console.print(f"results: [bold]{out}[/] (table.md, results.json)")


if __name__ == "__main__":
    main()
