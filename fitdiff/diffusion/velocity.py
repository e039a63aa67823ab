"""Predict the noise by way of the velocity (Salimans & Ho 2022, appendix D)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fitdiff.diffusion.schedule import Schedule
from fitdiff.types import Denoiser


class VelocityDenoiser(nn.Module):
    """A denoiser whose network gives v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) z_0; to callers it predicts eps.

    `eps = sqrt(1 - alpha_bar) z_t + sqrt(alpha_bar) v`. A network that gives 0 is then the best guess for standard
    normal z, and an error of the network reaches z0_hat unmagnified, where plain noise prediction multiplies it by
    1 / sqrt(alpha_bar), up to 80. Implements `types.Denoiser`.

    Args:
        network: predicts v. schedule: of the diffusion.
    """

    def __init__(self, network: Denoiser, schedule: Schedule) -> None:
        super().__init__()
        self.network, self.schedule = network, schedule

    @property
    def embedding_mean(self) -> Tensor:
        """(D,) of the network."""
        return self.network.embedding_mean

    def set_embedding_statistics(self, mean_D: Tensor, std_D: Tensor) -> None:
        """Set the network's standardisation."""
        self.network.set_embedding_statistics(mean_D, std_D)

    @property
    def condition(self) -> Callable[..., Any]:
        """The network's condition; absent where the network offers none."""
        return self.network.condition

    def forward(self, z_t_BN: Tensor, t_B: Tensor, embedding_BD: Tensor | None = None, **options: Any) -> Tensor:
        """(B, N) latent, (B,) step -> (B, N) noise; `options` are the network's. Differentiable."""
        velocity = self.network(z_t_BN, t_B, embedding_BD, **options)
        signal, noise = self.schedule.signal_and_noise(t_B, z_t_BN)
        return torch.addcmul(noise * z_t_BN, signal, velocity)
