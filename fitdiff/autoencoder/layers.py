"""Building blocks of VQGAN's encoder and decoder, each able to act as several independent copies at once.

A block built with ``branches=3`` holds three copies of itself, one per third of its channels: every convolution is
grouped and every normalisation group lies inside one branch, so nothing mixes between them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def normalisation(channels: int, branches: int = 1) -> nn.GroupNorm:
    """Group normalisation with 32 groups per branch, or the most that divide a narrower branch."""
    return nn.GroupNorm(branches * math.gcd(32, channels // branches), channels, eps=1e-6)


def convolution(in_channels: int, out_channels: int, branches: int = 1) -> nn.Conv2d:
    """3x3 convolution that keeps the resolution."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, groups=branches)


class ResidualBlock(nn.Module):
    """Two normalised 3x3 convolutions and a skip connection (Esser et al. 2021, VQGAN)."""

    def __init__(self, in_channels: int, out_channels: int, branches: int = 1, checkpoint_activations: bool = False):
        super().__init__()
        self.checkpoint_activations = checkpoint_activations
        self.residual = nn.Sequential(
            normalisation(in_channels, branches),
            nn.SiLU(),
            convolution(in_channels, out_channels, branches),
            normalisation(out_channels, branches),
            nn.SiLU(),
            convolution(out_channels, out_channels, branches),
        )
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1, groups=branches)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H, W)."""
        # Not "while training": the diffusion stage sends gradients through a frozen decoder.
        if self.checkpoint_activations and torch.is_grad_enabled():
            return self.skip(x_BCHW) + checkpoint(self.residual, x_BCHW, use_reentrant=False)
        return self.skip(x_BCHW) + self.residual(x_BCHW)


class SelfAttention(nn.Module):
    """Single-head attention among all positions of a feature map, with a skip connection."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = normalisation(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        # The fused attention kernels want (batch, heads, positions, channels) with contiguous channels.
        qkv = self.qkv(self.norm(x_BCHW)).flatten(2).unflatten(1, (3, 1, -1)).mT.contiguous()
        attended = nnf.scaled_dot_product_attention(*qkv.unbind(1))
        return x_BCHW + self.project(attended.mT.reshape(x_BCHW.shape))


class Downsample(nn.Module):
    """Strided 3x3 convolution that halves the resolution; pads right and below only, as VQGAN does."""

    def __init__(self, channels: int, branches: int = 1):
        super().__init__()
        self.convolve = nn.Conv2d(channels, channels, 3, stride=2, groups=branches)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H/2, W/2)."""
        return self.convolve(nnf.pad(x_BCHW, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest-neighbour doubling of the resolution, then a 3x3 convolution.

    With ``copies`` > 1 the same input feeds that many independent convolutions, whose outputs are concatenated.
    """

    def __init__(self, channels: int, copies: int = 1):
        super().__init__()
        self.convolve = convolution(channels, copies * channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, copies * C, 2 H, 2 W)."""
        # Neighbours in the doubled map that come from one texel share its value. With sums of their weights, as a
        # transposed convolution, four products remain of nine, and the doubled map is never made.
        weight = self.convolve.weight.flip(2, 3)
        sums = sum(nnf.pad(weight, (left, 1 - left, top, 1 - top)) for left in (0, 1) for top in (0, 1))
        return nnf.conv_transpose2d(x_BCHW, sums.transpose(0, 1), self.convolve.bias, stride=2, padding=1)


class GridLinear(nn.Module):
    """Linear layer from all positions and channels of a feature map to all of another on the same grid."""

    def __init__(self, in_channels: int, out_channels: int, *, grid: tuple[int, int]):
        super().__init__()
        self.out_shape = (out_channels, *grid)
        self.linear = nn.Linear(in_channels * math.prod(grid), math.prod(self.out_shape))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H, W)."""
        return self.linear(x_BCHW.flatten(1)).unflatten(1, self.out_shape)
