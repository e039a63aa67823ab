"""Does a codebook of numbers collapse? Short trainings at laptop scale: `python -m experiments.training.codebook`.

Three ways to learn a codebook: moving average with re-seeding (ours), without re-seeding, and by gradients as VQGAN
does. Each for the laptop's codebook and for the paper's, and the paper's also without the linear path, whose latents
are white from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as nnf
from hydra import compose, initialize_config_dir
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import Tensor, nn

from experiments.report import markdown_table, replace_generated, save_chart
from fitdiff.autoencoder.quantiser import Quantised, VectorQuantiser
from fitdiff.autoencoder.vqgan import BranchedVQGAN
from fitdiff.command import run_command
from fitdiff.config import register_schemas
from fitdiff.data.shards import dequantise
from fitdiff.registry import build, load_plugins
from fitdiff.training.autoencoder_stage import MAPS, AutoencoderStage
from fitdiff.training.order import global_batch
from fitdiff.training.pipeline import Pipeline

HERE = Path(__file__).parent
CONF = Path(__file__).resolve().parents[2] / "conf"
MEASURED = 1000
"""Training people whose codes are counted."""


@dataclass
class Options:
    """What the command line sets."""

    steps: int = 120  # of each training
    every: int = 20  # steps between measurements
    seed: int = 0


class GradientQuantiser(VectorQuantiser):
    """Codes trained by gradients: VQGAN's loss and its initialisation, uniform within 1 / K."""

    def __init__(self, codebook_size: int, dim: int, **options: Any) -> None:
        super().__init__(codebook_size, dim, **options)
        del self.codebook
        self.codebook = nn.Parameter(torch.empty(codebook_size, dim).uniform_(-1 / codebook_size, 1 / codebook_size))

    def forward(self, latent_BDhw: Tensor) -> Quantised:
        """Add the codebook loss (van den Oord et al. 2017, Eq. 3, second term) to the commitment loss."""
        output = super().forward(latent_BDhw)
        codes = self.codebook[output.codes].movedim(-1, 1)
        commitment = self.commitment * (latent_BDhw - codes.detach()).square().mean()
        return output._replace(commitment_loss=commitment + nnf.mse_loss(codes, latent_BDhw.detach()))

    def _update(self, vectors_ND: Tensor) -> None:
        """Gradients move the codes."""


WAYS: dict[str, Callable[[int, int], VectorQuantiser]] = {
    "moving average, re-seeded (ours)": VectorQuantiser,
    "moving average": lambda size, dim: VectorQuantiser(size, dim, dead_below=0.0),
    "gradients": GradientQuantiser,
}
SETTINGS = ((True, 16384), (False, 16384), (True, 1024))
"""Linear path or not, and the size of the codebook."""

STYLES = dict(zip(WAYS, ("-", "--", ":"), strict=True))
Key = tuple[bool, int, str]
"""Linear path, size of the codebook, way to learn it."""
Curve = list[dict[str, float]]


def main() -> None:
    """Train, draw, write the table."""
    run_command(_compare, Options, __doc__)


def _compare(options: Options, console: Console) -> None:
    config = laptop_config(options.seed)
    data = Pipeline(config).data
    data.prepare()
    curves: dict[Key, Curve] = {}
    for (linear, size), way in product(SETTINGS, WAYS):
        stage = make_stage(config, data, linear, WAYS[way](size, 1), options)
        curves[linear, size, way] = list(train(stage, options))
        last = curves[linear, size, way][-1]
        console.print(f"linear path {linear}, {size} codes, {way}: {describe(last)}")
    save_chart(chart(curves), HERE / "pictures" / "codebook.png")
    text = f"Date: {date.today()}; {options.steps} steps of {stage.batch_size} people.\n\n{table(curves)}"
    replace_generated(HERE / "codebook.md", text)
    console.print(f"results: {HERE / 'codebook.md'}")


def laptop_config(seed: int) -> DictConfig:
    """The laptop scale's config, as train.py composes it."""
    load_plugins()
    register_schemas()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=["scale=laptop", "name=codebook", f"seed={seed}"])


def make_stage(
    config: DictConfig, data: Any, linear: bool, quantiser: VectorQuantiser, options: Options
) -> AutoencoderStage:
    """The autoencoder's stage, with another quantiser, for a few steps and without its adversary."""
    torch.manual_seed(options.seed)
    network = OmegaConf.merge(config.autoencoder, {"linear_path": linear})
    autoencoder: BranchedVQGAN = build(network, "autoencoder", resolution=config.resolution)
    autoencoder.quantiser = quantiser
    few = {"steps": options.steps, "epochs": None, "adversarial_weight": 0.0}
    settings = OmegaConf.merge(config.stage.autoencoder, few)
    splits = {"train": data.train, "held_out": data.held_out}
    return build(settings, "stage", autoencoder=autoencoder, perceptual=nn.Identity(), seed=options.seed, **splits)


def train(stage: AutoencoderStage, options: Options) -> Iterator[dict[str, float]]:
    """Train as the trainer does (one process, no averages of weights), and measure now and then."""
    network, adam = stage.autoencoder.train(), stage.optimisers()["autoencoder"]
    rows = torch.arange(stage.batch_size)
    for step in range(stage.steps):
        batch = stage.batch(global_batch(stage.n_samples, stage.batch_size, options.seed, step), rows, step)
        ((_, loss, _),) = stage.losses(batch, step)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for group in adam.param_groups:
            group["lr"] = stage.learning_rate(step)
        adam.step()
        adam.zero_grad()
        if (step + 1) % options.every == 0 or step + 1 == stage.steps:
            yield {"step": step + 1, **measure(stage)}


@torch.no_grad()
def measure(stage: AutoencoderStage) -> dict[str, float]:
    """Distinct codes and perplexity over many training people, and held-out PSNR."""
    network = stage.autoencoder.eval()
    size = len(network.quantiser.codebook)
    count = torch.zeros(size)
    for start in range(0, min(MEASURED, stage.n_samples), 50):
        maps = dequantise(stage.train.gather(range(start, start + 50), ("maps",))["maps"])
        latent = network.encode(maps).movedim(1, -1).flatten(0, -2)
        count += torch.bincount(network.quantiser.nearest(latent), minlength=size)
    held_out = dequantise(stage.held_out.load("maps"))
    error = (network(held_out).reconstruction - held_out).unflatten(1, (3, 3)).square().mean((0, 2, 3, 4)) / 4
    network.train()
    return {
        "codes": (count > 0).sum().item(),
        "share": (count > 0).float().mean().item(),
        "perplexity": torch.special.entr(count / count.sum()).sum().exp().item(),
        **dict(zip(MAPS, (-10 * error.log10()).tolist(), strict=True)),
    }


def describe(row: dict[str, float]) -> str:
    """One measurement in words."""
    psnr = " / ".join(f"{row[name]:.1f}" for name in MAPS)
    return f"{row['codes']:.0f} codes, perplexity {row['perplexity']:.0f}, {psnr} dB"


def table(curves: dict[Key, Curve]) -> str:
    """The last measurement of each training."""
    header = ["linear path", "codes", "learned by", "in use", "share", "perplexity", *(f"{name} dB" for name in MAPS)]
    rows = []
    for (linear, size, way), curve in curves.items():
        last = curve[-1]
        found = [f"{last['codes']:.0f}", f"{last['share']:.0%}", f"{last['perplexity']:.0f}"]
        psnr = [f"{last[name]:.1f}" for name in MAPS]
        rows.append(["yes" if linear else "no", str(size), way, *found, *psnr])
    return markdown_table(header, rows)


def chart(curves: dict[Key, Curve]) -> Figure:
    """Codes in use, perplexity and the diffuse map's PSNR against steps; a row with the linear path, a row without."""
    figure = Figure((12, 6.4), layout="constrained")
    axes = figure.subplots(2, 3, sharex=True)
    colours = {size: f"C{i}" for i, size in enumerate(sorted({size for _, size, _ in curves}))}
    titles = {"share": "share of the codes in use", "perplexity": "perplexity", "diffuse": "diffuse PSNR, dB"}
    for (linear, size, way), curve in curves.items():
        for axis, (key, title) in zip(axes[0 if linear else 1], titles.items(), strict=True):
            steps, values = [row["step"] for row in curve], [row[key] for row in curve]
            axis.plot(steps, values, STYLES[way], color=colours[size], label=f"{size}, {way}")
            axis.set_title(f"{title}, {'with' if linear else 'without'} linear path", fontsize=10)
            axis.grid(alpha=0.3)
    for row in axes:
        row[1].set_yscale("log")
        row[0].set_ylim(0, 1.02)
    axes[1][1].set_xlabel("step")
    axes[0][0].legend(fontsize=7)
    return figure


if __name__ == "__main__":
    main()
