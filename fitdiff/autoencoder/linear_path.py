"""What is known of an autoencoder in advance: principal components of the training maps, and what follows from them.

The maps are aligned, so a PCA is hard to beat within minutes. Its leading components are the latent here; the smaller
ones, which the latent has no numbers for, are predicted from the leading ones by a small network: how dark the brows
are decides how deep their edges are. Both are made before training begins, in seconds.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

SEED = 0
PREDICTED = 128
"""Components that are predicted from the latent's; more hardly add."""

STEPS, BATCH, PEAK_RATE = 700, 64, 3e-3
"""Of the prediction's training. More steps overfit: thousands of people are few for a network that sees all texels."""


class LinearPath(nn.Module):
    """Whitened principal components as encoder and decoder, to which networks add what is missing.

    Before `fit` it adds nothing. The components are fixed; the prediction trains on with the networks.

    Args:
        values: length of a flattened, standardised map tensor, 9 R R. numbers: of the latent.
        width: of the network that predicts the smaller components.
    """

    encoder: Tensor
    decoder: Tensor

    def __init__(self, values: int, numbers: int, width: int = 512) -> None:
        super().__init__()
        self.register_buffer("encoder", torch.zeros(numbers, values))
        self.register_buffer("decoder", torch.zeros(values, numbers + PREDICTED))
        self.predict = nn.Sequential(
            nn.Linear(numbers, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, PREDICTED)
        )
        nn.init.zeros_(self.predict[-1].weight)
        nn.init.zeros_(self.predict[-1].bias)

    @torch.no_grad()
    def fit(self, standard_N9RR: Tensor, weight_9: Tensor) -> None:
        """Take the components of (N, 9, R, R) maps whose mean is zero. Deterministic: own seed, signs fixed.

        Args:
            weight_9: (9,) of each channel's error, floored at 0.001; the components are the best in this metric.

        Raises:
            ValueError: there are fewer maps than components.
        """
        n, (numbers, _), (_, total) = len(standard_N9RR), self.encoder.shape, self.decoder.shape
        if n < total:
            raise ValueError(
                f"got {n} people for {total} principal components: train on at least {total}, or set "
                "autoencoder.linear_path=false"
            )
        weight_9RR = weight_9.to(standard_N9RR).clamp_min(1e-3)[:, None, None].expand(standard_N9RR.shape[1:])
        flat, weight = (standard_N9RR * weight_9RR).flatten(1), weight_9RR.flatten()
        with torch.random.fork_rng(devices=[flat.device] if flat.is_cuda else []):
            torch.manual_seed(SEED)
            _, singular, components = torch.svd_lowrank(flat, min(total + 16, n), niter=2)
            components = components[:, :total]
            components = components * components.sum(0).sign()
            unit = singular[:total].clamp_min(1e-6 * singular[0]) / n**0.5
            unit[numbers:] = unit[numbers]  # predicted ones keep their proportions, and so their errors weigh as much
            self.decoder.copy_(components * unit / weight[:, None])
            self.encoder.copy_((components[:, :numbers] / unit[:numbers] * weight[:, None]).T)
            self._fit_prediction((flat @ components) / unit)

    @torch.enable_grad()
    def _fit_prediction(self, coefficients_NK: Tensor) -> None:
        numbers = len(self.encoder)
        adam = torch.optim.Adam(self.predict.parameters(), betas=(0.9, 0.99))
        for step in range(STEPS):
            for group in adam.param_groups:
                group["lr"] = PEAK_RATE * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / STEPS))
            known, wanted = coefficients_NK[torch.randint(len(coefficients_NK), (BATCH,))].tensor_split([numbers], 1)
            adam.zero_grad()
            nnf.mse_loss(self.predict(known), wanted).backward()
            adam.step()
        adam.zero_grad()

    def encode(self, standard_B9RR: Tensor) -> Tensor:
        """(B, 9, R, R) standardised maps -> (B, numbers), unit variance each."""
        return standard_B9RR.flatten(1) @ self.encoder.T

    def decode(self, latent_BN: Tensor) -> Tensor:
        """(B, numbers) -> (B, 9 R R) standardised maps, flat."""
        return torch.cat([latent_BN, self.predict(latent_BN)], 1) @ self.decoder.T
