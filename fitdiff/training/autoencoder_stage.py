"""Stage 1: the branched autoencoder, under the losses of VQGAN (method section 2).

L1 + perceptual + commitment, and after `discriminator_start` steps the adversarial loss of the branched discriminator
with VQGAN's adaptive weight. Chosen: L1 is taken in standardised units (each map divided by its own deviation), so that
nearly constant maps (normals, specular) count as much as the diffuse albedo.

Any number of processes trains the same weights: the codebook, the adaptive weight and the discriminator's batch
statistics are those of the whole batch. Gradient accumulation changes the last two, in every VQGAN: they are then those
of one micro-batch of all processes. The codebook still waits for the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from math import prod

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from fitdiff.autoencoder.discriminator import BranchedDiscriminator
from fitdiff.autoencoder.losses import adaptive_weight, generator_loss, hinge_discriminator_loss
from fitdiff.avatar.pictures import contact_sheet
from fitdiff.data.shards import ShardedDataset, dequantise
from fitdiff.evaluation.chunks import chunks
from fitdiff.evaluation.pca import pca_psnr
from fitdiff.registry import register
from fitdiff.training.stage import Losses, count_steps, warmup_cosine
from fitdiff.types import FaceMaps

MAPS = ("diffuse", "specular", "normals")
LINEAR_PEOPLE = 5000
"""People that start an autoencoder with a linear path: what it learns of 3000 is 0.3 dB worse on others."""

CHUNK = 50
"""People whose maps are read at once: 1000 would be 9 GB at 512 texels."""


@register("stage", "autoencoder")
class AutoencoderStage:
    """Train `autoencoder`.

    Run-time objects: `autoencoder`, `perceptual` (distance of two image batches), `train` and `held_out` people, and
    the run's `seed`.

    Args:
        batch_size: Table 1. learning_rate: VQGAN's 4.5e-6 times Table 1's batch size of 16.
        epochs: not in the supplement; chosen. Give `steps` instead for a short run.
        map_weights: of the L1 of diffuse, specular and normals, each in units of its own deviation.
        perceptual_weight, adversarial_weight: VQGAN's 1 and 0.8; 0 switches a term off.
        discriminator_start: the adversarial warm-up in steps. discriminator_channels: width of the PatchGAN.
    """

    name = "autoencoder"
    averaged = ("autoencoder",)
    product = ("autoencoder",)
    monitor = ("psnr_diffuse", "max")

    def __init__(
        self,
        autoencoder: nn.Module,
        perceptual: nn.Module,
        train: ShardedDataset,
        held_out: ShardedDataset,
        seed: int,
        *,
        batch_size: int = 16,  # Table 1
        learning_rate: float = 7.2e-5,
        epochs: float | None = 50.0,
        steps: int | None = None,
        warmup_steps: int = 500,
        decay: str = "constant",
        map_weights: tuple[float, ...] = (1.0, 1.0, 1.0),
        perceptual_weight: float = 1.0,
        adversarial_weight: float = 0.8,
        discriminator_start: int = 30_000,
        discriminator_channels: int = 64,
        preview_samples: int = 4,
    ) -> None:
        self.autoencoder, self.perceptual, self.train, self.held_out = autoencoder, perceptual, train, held_out
        self.seed = seed
        self.batch_size, self.peak_rate, self.warmup, self.decay = batch_size, learning_rate, warmup_steps, decay
        self.perceptual_weight, self.adversarial_weight = perceptual_weight, adversarial_weight
        self.discriminator_start, self.preview_samples = discriminator_start, preview_samples
        self.n_samples = len(train)
        self.steps = count_steps(steps, epochs, self.n_samples, batch_size)
        autoencoder.requires_grad_(True)
        autoencoder.quantiser.update_after = batch_size
        self.discriminator = BranchedDiscriminator(channels=discriminator_channels)
        self.modules: dict[str, nn.Module] = {"autoencoder": autoencoder, "discriminator": self.discriminator}
        mean, std = _statistics(train)
        autoencoder.set_statistics(mean, std)
        if autoencoder.linear is not None:
            metric = torch.tensor(list(map_weights)).repeat_interleave(3)
            autoencoder.linear.fit(_standardised(autoencoder, train), metric)
        weight = torch.tensor(list(map_weights)) / std.clamp_min(autoencoder.scale_floor)
        self.l1_weight = weight.repeat_interleave(3)[:, None, None].to(autoencoder.mean.device)

    @property
    def layout(self) -> tuple[int, int | None]:
        """Of the people's files."""
        return self.train.shard_size, self.train.window

    def optimisers(self) -> dict[str, Optimizer]:
        """Adam with VQGAN's betas (0.5, 0.9) for both players."""
        return {
            name: Adam(module.parameters(), lr=self.peak_rate, betas=(0.5, 0.9), fused=True)
            for name, module in (("autoencoder", self.autoencoder), ("discriminator", self.discriminator))
        }

    def learning_rate(self, step: int) -> float:
        """See `warmup_cosine`."""
        return warmup_cosine(step, self.steps, self.peak_rate, self.warmup, self.decay)

    def batch(self, indices: Sequence[int], rows: Tensor, step: int) -> dict[str, Tensor]:
        """(B, 9, R, R) uint8 maps."""
        return self.train.gather(indices, ("maps",))

    def losses(self, batch: dict[str, Tensor], step: int) -> Losses:
        """VQGAN's two players; the second sees the reconstruction of the first."""
        maps = dequantise(batch["maps"])
        output = self.modules["autoencoder"](maps)
        terms = {
            "loss_l1": ((output.reconstruction - maps).abs() * self.l1_weight).mean(),
            "loss_commitment": output.commitment_loss,
        }
        if self.perceptual_weight:
            terms["loss_perceptual"] = self.perceptual_weight * self._perceptual_distance(output.reconstruction, maps)
        loss = sum(terms.values())
        adversarial = self.adversarial_weight > 0 and step >= self.discriminator_start
        if adversarial:
            self.discriminator.requires_grad_(False)
            generator = generator_loss(self.discriminator(output.reconstruction))
            weight = adaptive_weight(loss, generator, self.autoencoder.last_layer)
            loss = loss + self.adversarial_weight * weight * generator
            terms |= {"loss_generator": generator, "adaptive_weight": weight}
        yield "autoencoder", loss, {**terms, "perplexity": output.perplexity}
        if adversarial:
            self.discriminator.requires_grad_(True)
            # One pass over both halves: with DistributedDataParallel a module may run forward once per backward.
            logits = self.modules["discriminator"](torch.cat([maps, output.reconstruction.detach()]))
            real, fake = logits.chunk(2)
            loss = hinge_discriminator_loss(real, fake)
            yield "discriminator", loss, {"loss_discriminator": loss}

    def _perceptual_distance(self, reconstruction: Tensor, maps: Tensor) -> Tensor:
        """Mean distance of the three maps as pictures."""
        pictures = [torch.cat(((x * 0.5 + 0.5).clamp(0, 1)).split(3, 1)) for x in (reconstruction, maps)]
        return self.perceptual(*pictures).mean()

    @torch.no_grad()
    def evaluate(self, averages: dict[str, nn.Module]) -> dict[str, float]:
        """Held-out people beside the mean map and a PCA of as many numbers as the latent has.

        Returns:
            `psnr_<map>` in dB of pictures in [0, 1], pooled, also `..._mean_map` and `..._pca`; `pca_numbers`, which
            are fewer than the latent's where the PCA ran out of people or memory (see `evaluation.pca`);
            `codes_in_use`, the share in training; `codes_in_held_out` and `perplexity`, of all held-out people's codes.
        """
        from torchmetrics.image import PeakSignalNoiseRatio  # brings matplotlib and scipy.signal, which no fit needs

        autoencoder = averages["autoencoder"]
        device = next(autoencoder.parameters()).device
        names = [f"psnr_{name}{kind}" for name in MAPS for kind in ("", "_mean_map")]
        alone = {"data_range": (0.0, 1.0), "sync_on_compute": False}  # only the main process evaluates
        metrics = {name: PeakSignalNoiseRatio(**alone).to(device) for name in names}
        count = torch.zeros(len(autoencoder.quantiser.codebook), device=device)
        for people in chunks(len(self.held_out), autoencoder.mean.shape[-1]):
            maps = dequantise(self.held_out.gather(people, ("maps",))["maps"].to(device))
            output = autoencoder(maps)
            count += torch.bincount(output.codes.flatten(), minlength=len(count))
            truth = FaceMaps.from_tensor(maps).to_images()
            for kind, packed in (("", output.reconstruction), ("_mean_map", autoencoder.mean.expand_as(maps))):
                for name, picture in FaceMaps.from_tensor(packed).to_images().items():
                    metrics[f"psnr_{name}{kind}"].update(picture, truth[name])
        return {
            **{key: metric.compute().item() for key, metric in metrics.items()},
            **self._pca,
            "codes_in_use": autoencoder.quantiser.usage.item(),
            "codes_in_held_out": (count > 0).float().mean().item(),
            "perplexity": torch.special.entr(count / count.sum()).sum().exp().item(),
        }

    @cached_property
    def _pca(self) -> dict[str, float]:
        """Held-out PSNR of the PCA, which training does not change."""
        device = next(self.autoencoder.parameters()).device
        found = pca_psnr(self.train, self.held_out, prod(self.autoencoder.latent_shape), device=device)
        return {**{f"psnr_{name}_pca": found[name] for name in MAPS}, "pca_numbers": found["numbers"]}

    def preview(self, averages: dict[str, nn.Module]) -> dict[str, np.ndarray]:
        """Held-out maps beside their reconstructions."""
        autoencoder, k = averages["autoencoder"], min(self.preview_samples, len(self.held_out))
        maps = dequantise(self.held_out.gather(range(k), ("maps",))["maps"])
        reconstruction = autoencoder(maps.to(next(autoencoder.parameters()).device)).reconstruction.cpu()
        columns = [FaceMaps.from_tensor(x).to_images()[name] for name in MAPS for x in (maps, reconstruction)]
        captions = [f"{name}{kind}" for name in MAPS for kind in ("", " (decoded)")]
        return {"reconstruction": contact_sheet(list(zip(*columns, strict=True)), columns=captions, cell=128)}

    def finish(self, averages: dict[str, nn.Module]) -> None:
        """Put the averaged weights into the autoencoder and freeze it."""
        self.autoencoder.load_state_dict(averages["autoencoder"].state_dict())
        self.autoencoder.eval().requires_grad_(False)


def _statistics(train: ShardedDataset, limit: int = 1000) -> tuple[Tensor, Tensor]:
    """Mean map (9, R, R) and root mean square deviation of each of the three maps (3,), of up to `limit` people."""
    n = min(limit, len(train))
    mean = sum(maps.sum(0) for maps in _maps(train, n)) / n
    variance = sum((maps - mean).square().mean((2, 3)).sum(0) for maps in _maps(train, n)) / n
    return mean, variance.view(3, 3).mean(1).sqrt()


def _standardised(autoencoder: nn.Module, train: ShardedDataset) -> Tensor:
    """(N, 9, R, R) maps of up to `LINEAR_PEOPLE`, as the autoencoder's networks see them and where they are."""
    mean, n = autoencoder.mean, min(LINEAR_PEOPLE, len(train))
    standard, done = mean.new_empty(n, *mean.shape), 0  # 12 GB at 256 texels: never twice
    for maps in _maps(train, n):
        standard[done : done + len(maps)] = autoencoder.standardise(maps.to(mean.device))
        done += len(maps)
    return standard


def _maps(train: ShardedDataset, n: int) -> Iterator[Tensor]:
    """(`CHUNK`, 9, R, R) maps of the first `n` people."""
    for start in range(0, n, CHUNK):
        yield dequantise(train.gather(range(start, min(start + CHUNK, n)), ("maps",))["maps"])
