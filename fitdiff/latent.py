"""The vector `z = [z_shape ; z_maps ; pad]` that the diffusion model sees (method: one model over shape and maps)."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn


class LatentSpace(nn.Module):
    """Pack and unpack z, and standardise the map latent.

    `z_shape` is the whitened identity code as it is. `z_maps` is the autoencoder's latent, flattened row by row and
    standardised **per position** over the training set: UV maps are aligned, so each position has a mean of its own,
    and without it the model would spend its capacity on a constant (LDM's single scale is for unaligned photos). z is
    padded with zeros to a multiple of `multiple`; the pad is no part of any loss.

    Args:
        n_identity: K, length of the shape code.
        latent_shape: (C, h, w) of the autoencoder.
        multiple: the denoiser's total downsampling.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, n_identity: int, latent_shape: tuple[int, int, int], multiple: int = 8) -> None:
        super().__init__()
        self.n_identity, self.latent_shape, self.multiple = n_identity, tuple(latent_shape), multiple
        self.used = n_identity + prod(latent_shape)
        self.length = -(-self.used // multiple) * multiple
        self.register_buffer("mean", torch.zeros(self.latent_shape))
        self.register_buffer("std", torch.ones(self.latent_shape))

    @property
    def parts(self) -> tuple[slice, slice]:
        """Where z_shape and z_maps are in z."""
        return slice(0, self.n_identity), slice(self.n_identity, self.used)

    def set_statistics(self, mean_Chw: Tensor, std_Chw: Tensor, floor: float = 0.05) -> None:
        """Take mean and deviation per position of the training set's latents, each (C, h, w).

        Positions that hardly vary (no skin there) would be noise blown up to unit variance, so no deviation is taken
        below `floor` times the mean deviation.
        """
        self.mean.copy_(mean_Chw)
        self.std.copy_(std_Chw.clamp_min(floor * float(std_Chw.mean()) + 1e-8))

    def pack(self, identity_BK: Tensor, latent_BChw: Tensor) -> Tensor:
        """(B, K) codes and (B, C, h, w) latents -> (B, N) z."""
        maps = ((latent_BChw - self.mean) / self.std).flatten(1)
        pad = maps.new_zeros(len(maps), self.length - self.used)
        return torch.cat([identity_BK, maps, pad], 1)

    def unpack(self, z_BN: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N) z -> (B, K) identity codes and (B, C, h, w) latents. Differentiable."""
        identity, maps, _ = z_BN.split([self.n_identity, self.used - self.n_identity, self.length - self.used], 1)
        return identity, maps.unflatten(1, self.latent_shape) * self.std + self.mean
