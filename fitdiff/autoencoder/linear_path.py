"""The linear part of an autoencoder, known in advance: principal components of the training maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SEED = 0


class LinearPath(nn.Module):
    """Whitened principal components as a fixed encoder and decoder, to which networks add what is not linear.

    Before `fit` it adds nothing.

    Args:
        values: length of a flattened, standardised map tensor, 9 R R. numbers: of the latent, at most the people in
            `fit`.
    """

    encoder: Tensor
    decoder: Tensor

    def __init__(self, values: int, numbers: int) -> None:
        super().__init__()
        self.register_buffer("encoder", torch.zeros(numbers, values))
        self.register_buffer("decoder", torch.zeros(values, numbers))

    @torch.no_grad()
    def fit(self, standard_N9RR: Tensor) -> None:
        """Take the components of (N, 9, R, R) maps whose mean is zero. Deterministic: own seed, signs fixed.

        Raises:
            ValueError: there are fewer maps than numbers.
        """
        flat = standard_N9RR.flatten(1)
        n, numbers = len(flat), len(self.encoder)
        if n < numbers:
            raise ValueError(f"got {n} people for {numbers} principal components: data.n must be at least {numbers}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            _, singular, components = torch.svd_lowrank(flat, min(numbers + 16, n), niter=4)
        components, deviation = components[:, :numbers], singular[:numbers] / n**0.5
        components = components * components.sum(0).sign()
        self.decoder.copy_(components * deviation)
        self.encoder.copy_((components / deviation.clamp_min(1e-6)).T)

    def encode(self, standard_B9RR: Tensor) -> Tensor:
        """(B, 9, R, R) standardised maps -> (B, numbers), unit variance each."""
        return standard_B9RR.flatten(1) @ self.encoder.T

    def decode(self, latent_BN: Tensor) -> Tensor:
        """(B, numbers) -> (B, 9 R R) standardised maps, flat."""
        return latent_BN @ self.decoder.T
