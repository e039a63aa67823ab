"""How the 1-D UNet's blocks hear of the condition, a signal (B, 1, cond_dim): SPADE, FiLM, cross-attention.

All three sit in the same place, after the parameter-free group normalisation of a block, so that a comparison compares
nothing else. Each has a network a resolution that depends on the condition alone: it runs once per photo. **Chosen**,
where the paper names SPADE and no more:

- SPADE's signal is resampled linearly to each resolution. One hidden layer a resolution serves all of its blocks, and
  gamma and beta are pointwise in it (SPADE has a hidden layer per SPADE layer and 3-wide convolutions there: three
  times the work, for neighbours that the hidden layer has already seen).

Legend of shape suffixes: B batch · C channels · L positions · S `cond_dim` · H hidden width · K tokens.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

Modulation = tuple[Tensor, Tensor]
"""Scale gamma and shift beta of one block, (B, C, L) or (B, C, 1) each; B is 1 if all samples share them."""

PATCH = 8
"""Positions of the condition signal in a token."""


def spade(h_BCL: Tensor, modulation: Modulation) -> Tensor:
    """Parameter-free group normalisation, then (1 + gamma) h + beta (Park et al. 2019, Eq. 1), or FiLM's for all L.

    Args:
        h_BCL: (B, C, L) float.
        modulation: gamma and beta.
    """
    gamma, beta = modulation
    h = nnf.group_norm(h_BCL, groups_of(h_BCL.shape[1]))
    return torch.addcmul(h + beta, h, gamma)


class Modulate(nn.Module):
    """`spade` as a module."""

    def forward(self, h_BCL: Tensor, told: Modulation) -> Tensor:
        """See `spade`."""
        return spade(h_BCL, told)


class SpadeModulation(nn.Module):
    """Predicts gamma and beta of all blocks of one resolution, position by position, from the condition signal.

    Args:
        length: L, positions of this resolution.
        channels: C, of its blocks.
        layers: number of blocks.
        hidden: width of the shared hidden layer (Table 2: SPADE dim).
    """

    def __init__(self, length: int, channels: int, layers: int, hidden: int):
        super().__init__()
        self.length, self.layers = length, layers
        self.hidden = nn.Conv1d(1, hidden, 3, padding=1)
        self.modulate = nn.Conv1d(hidden, 2 * layers * channels, 1)

    def forward(self, signal_B1S: Tensor) -> tuple[Modulation, ...]:
        """(B, 1, S) -> per block (B, C, L) gamma and beta."""
        signal = nnf.interpolate(signal_B1S, self.length, mode="linear")
        return _pairs(self.modulate(nnf.silu(self.hidden(signal))), self.layers)


class FilmModulation(nn.Module):
    """Predicts one gamma and beta a channel of all blocks of one resolution from the condition signal.

    Args: as of `SpadeModulation`; cond_dim: S.
    """

    def __init__(self, cond_dim: int, channels: int, layers: int, hidden: int):
        super().__init__()
        self.layers = layers
        self.hidden = nn.Linear(cond_dim, hidden)
        self.modulate = nn.Linear(hidden, 2 * layers * channels)

    def forward(self, signal_B1S: Tensor) -> tuple[Modulation, ...]:
        """(B, 1, S) -> per block (B, C, 1) gamma and beta."""
        return _pairs(self.modulate(nnf.silu(self.hidden(signal_B1S[:, 0])))[..., None], self.layers)


class TokenModulation(nn.Module):
    """Cuts the condition signal into tokens: keys and values of all blocks of one resolution.

    Args:
        cond_dim: S. inner: channels of all heads. layers: number of blocks. hidden: width of a token.

    Raises:
        ValueError: the signal is shorter than a token.
    """

    def __init__(self, cond_dim: int, inner: int, layers: int, hidden: int):
        super().__init__()
        if cond_dim < PATCH:
            raise ValueError(f"cond_dim={cond_dim}; a token of the condition is {PATCH} positions: give more")
        self.layers = layers
        self.hidden = nn.Conv1d(1, hidden, PATCH, stride=PATCH)
        self.position = nn.Parameter(torch.randn(hidden, cond_dim // PATCH))  # else tokens could change places unseen
        self.modulate = nn.Conv1d(hidden, 2 * layers * inner, 1)

    def forward(self, signal_B1S: Tensor) -> tuple[Modulation, ...]:
        """(B, 1, S) -> per block (B, inner, K) keys and values."""
        return _pairs(self.modulate(nnf.silu(self.hidden(signal_B1S) + self.position)), self.layers)


class CrossAttention(nn.Module):
    """Parameter-free group normalisation h, then h + attention of its positions to the condition's tokens."""

    def __init__(self, channels: int, heads: int, head_channels: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Conv1d(channels, heads * head_channels, 1)
        self.project = nn.Conv1d(heads * head_channels, channels, 1)

    def forward(self, h_BCL: Tensor, told: Modulation) -> Tensor:
        """(B, C, L), keys and values (B or 1, inner, K) -> (B, C, L)."""
        h = nnf.group_norm(h_BCL, groups_of(h_BCL.shape[1]))
        query, key, value = (self._split(x.expand(len(h), -1, -1)) for x in (self.query(h), *told))
        attended = nnf.scaled_dot_product_attention(query, key, value)
        return h + self.project(attended.mT.flatten(1, 2))

    def _split(self, x: Tensor) -> Tensor:
        """(B, heads * d, L) -> (B, heads, L, d), contiguous as the fused kernels want it."""
        return x.unflatten(1, (self.heads, -1)).mT.contiguous()


def groups_of(channels: int) -> int:
    """Groups of a group normalisation: 32, or the most that divide fewer channels."""
    return math.gcd(32, channels)


def zeroed(layer: nn.Conv1d) -> nn.Conv1d:
    """Start a residual path at zero, as latent diffusion does."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _pairs(x: Tensor, layers: int) -> tuple[Modulation, ...]:
    chunks = x.chunk(2 * layers, 1)
    return tuple(zip(chunks[::2], chunks[1::2], strict=True))
