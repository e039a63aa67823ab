"""The steps that `bench` times, built from the configs that `train.py` composes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.optim import Adam

from fitdiff.config import register_schemas, select
from fitdiff.data.shards import MemorySamples
from fitdiff.data.sources import build_data
from fitdiff.model import COMPONENTS, DEFAULTS, FitDiff
from fitdiff.registry import build, load_plugins
from fitdiff.training.batches import Batches
from fitdiff.training.descent import update
from fitdiff.training.ema import Ema
from fitdiff.training.rivals import count_parameters, unet1d, vq_model
from fitdiff.training.stage import Stage, count_steps

CONF = Path(__file__).parents[2] / "conf"
FREE_PARTS = ("identity.weights=random", "perceptual=efficientnet_lite0")
"""For scale=paper, whose recognition and perceptual networks need a download: the same work with other weights."""


@dataclass(frozen=True)
class Contender:
    """A step to time, its samples, and the networks that it trains."""

    step: Callable[[], object]
    samples: int
    networks: tuple[nn.Module, ...]

    @property
    def parameters(self) -> int:
        """Numbers that the step moves."""
        return sum(count_parameters(network) for network in self.networks)


def compose_scale(scale: str, people: int | None = None) -> DictConfig:
    """The config of `train.py scale=...`, with few people if a number is given."""
    load_plugins()
    register_schemas()
    overrides = [f"scale={scale}", "name=bench", *(FREE_PARTS if scale == "paper" else ())]
    if people is not None:
        overrides += [f"data.n={people}", "data.held_out=8", "data.shard_size=8"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=overrides)


def _batch(config: DictConfig, stage: str, given: int | None, device: torch.device, small: int) -> int:
    if given is not None:
        return given
    full_size = device.type == "cuda" or config.resolution <= 64
    return int(config.stage[stage].batch_size) if full_size else small


def autoencoders(
    config: DictConfig, accelerator: Accelerator, batch: int | None
) -> tuple[dict[str, Contender], str | None]:
    """Our autoencoder and diffusers' on the same random maps: L1 and the commitment."""
    batch = _batch(config, "autoencoder", batch, accelerator.device, 1)
    ours = build(config.autoencoder, "autoencoder", resolution=config.resolution)
    theirs = vq_model(config.autoencoder, config.resolution, count_parameters(ours))
    maps = torch.rand(batch, 9, config.resolution, config.resolution, device=accelerator.device) * 2 - 1

    def our_loss(network: nn.Module) -> Tensor:
        output = network(maps)
        return (output.reconstruction - maps).abs().mean() + output.commitment_loss

    def their_loss(network: nn.Module) -> Tensor:
        output = network(maps)
        return (output.sample - maps).abs().mean() + output.commit_loss.mean()

    return {
        "ours": network_step(ours, our_loss, batch, accelerator),
        "diffusers VQModel": network_step(theirs, their_loss, batch, accelerator),
    }, None


def denoisers(
    config: DictConfig, accelerator: Accelerator, batch: int | None
) -> tuple[dict[str, Contender], str | None]:
    """Our denoiser and lucidrains' on the same random latents; ours gets an embedding, too.

    Returns:
        The contenders, and what to say if the rival is not installed.
    """
    batch, device = _batch(config, "diffusion", batch, accelerator.device, 2), accelerator.device
    levels = 2 ** (len(config.autoencoder.channel_multipliers) - 1)
    values = config.shape_model.n_identity + (config.resolution // levels) ** 2 * config.autoencoder.embed_dim
    factor = 2 ** (len(config.denoiser.channel_multipliers) - 1)
    length = -(-values // factor) * factor
    dim = build(config.identity, "identity").dim
    ours = build(config.denoiser, "denoiser", length=length, embedding_dim=dim)
    z, noise = torch.randn(2, batch, length, device=device)
    t, embedding = torch.randint(1000, (batch,), device=device), torch.randn(batch, dim, device=device)
    contenders = {
        "ours": network_step(ours, lambda net: (net(z, t, embedding) - noise).square().mean(), batch, accelerator)
    }
    try:
        theirs = unet1d(config.denoiser, count_parameters(ours))
    except ImportError as error:
        return contenders, str(error)
    contenders["lucidrains Unet1D"] = network_step(
        theirs, lambda net: (net(z[:, None], t)[:, 0] - noise).square().mean(), batch, accelerator
    )
    return contenders, None


def network_step(
    network: nn.Module, loss: Callable[[nn.Module], Tensor], samples: int, accelerator: Accelerator
) -> Contender:
    """Forward, backward, clipping and a step of Adam."""
    network = network.to(accelerator.device).train()
    optimiser = Adam(network.parameters(), fused=True)
    wrapped = accelerator.prepare_model(network)

    def step() -> None:
        accelerator.backward(loss(wrapped))
        update({"network": optimiser}, 1e-4, 1.0)

    return Contender(step, samples, (network,))


def people_and_model(config: DictConfig, device: torch.device) -> tuple[Any, FitDiff]:
    """People on disk, made if they are missing, and an untrained model of them."""
    nodes = select(config, *COMPONENTS, *DEFAULTS, "data")
    model = FitDiff({**select(config, "resolution", "prediction"), **nodes, "separate": False}).to(device)
    data, _ = build_data(config, model.shape_model, model.identity, model.renderer, model.versions)
    data.prepare()
    return data, model


def stage_of(
    name: str, accelerator: Accelerator, people: Any, model: FitDiff, config: DictConfig, **changes: Any
) -> Stage:
    """A stage as `train.py` builds it, with random latents, on a freshly wrapped network."""
    splits = {"train": people.train, "held_out": people.held_out}
    if name == "autoencoder":
        perceptual = build(config.perceptual, "perceptual").to(accelerator.device)
        parts: dict[str, Any] = {"autoencoder": model.autoencoder, "perceptual": perceptual}
    else:
        parts = {"model": model, "latents": {split: _latents(model, data) for split, data in splits.items()}}
    node = OmegaConf.merge(config.stage[name], changes)
    return build(node, "stage", seed=0, **splits, **parts)


def _latents(model: FitDiff, data: Any) -> MemorySamples:
    latent = torch.randn(len(data), *model.latent.latent_shape)
    return MemorySamples({"latent": latent, "identity": data.load("identity"), "embedding": data.load("embedding")})


def stage_step(stage: Stage, step: int, accelerator: Accelerator) -> Contender:
    """The trainer's step, its batch on the device already."""
    networks = tuple(module.to(accelerator.device).train() for module in stage.modules.values())
    optimisers = stage.optimisers()
    averages = [Ema(stage.modules[name], 20_000, stage.batch_size) for name in stage.averaged]
    averaged = [stage.modules[name] for name in stage.averaged]
    for name, module in stage.modules.items():
        stage.modules[name] = accelerator.prepare_model(module)
    batch = {key: value.to(accelerator.device) for key, value in Batches(stage, seed=0)[step][0].items()}

    def run() -> None:
        stepped = []
        for name, loss, _ in stage.losses(batch, step):
            accelerator.backward(loss)
            stepped.append(name)
        update({name: optimisers[name] for name in stepped}, stage.learning_rate(step), 1.0)
        for ema, module in zip(averages, averaged, strict=True):
            ema.update(module, step)

    return Contender(run, stage.batch_size, networks)


def kinds_of_steps(stage: Stage) -> dict[str, tuple[int, float]]:
    """What steps of a stage do differently: a step of each kind, and the kind's share of all steps."""
    if stage.name == "autoencoder":
        start = stage.discriminator_start
        if not stage.adversarial_weight or start >= stage.steps:
            return {"no discriminator": (0, 1.0)}
        share = start / stage.steps
        return {"no discriminator yet": (0, share), "with discriminator": (start, 1 - share)}
    kinds: dict[str, tuple[int, float]] = {}
    for step in range(period_of(stage)):
        on = [name for name, every in stage.every.items() if (step + 1) % every == 0]
        first, share = kinds.get(key := "with " + (" and ".join(on) or "noise alone"), (step, 0.0))
        kinds[key] = (first, share + 1 / period_of(stage))
    return kinds


def samples_of_run(config: DictConfig, name: str, n: int) -> float:
    """Samples that a stage of a scale takes altogether when it trains on `n` people."""
    node = config.stage[name]
    return node.batch_size * count_steps(node.steps, node.epochs, n, node.batch_size)


def period_of(stage: Stage) -> int:
    """Steps after which a stage does the same again."""
    return math.lcm(*getattr(stage, "every", {"step": 1}).values())
