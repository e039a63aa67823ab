"""1-D UNet, conditioned by SPADE, or, to compare, by FiLM or cross-attention. Table 2 and section 2 of the supplement.

Base: the UNet of latent diffusion (Rombach et al. 2022) with 1-D convolutions. Its cross-attention is replaced by SPADE
(`conditioning`). **Chosen** here, where the paper is silent:

- the condition takes the place of the second normalisation of every residual block, so every resolution sees it;
- the standardised embedding is projected to a signal of one channel and `cond_dim` positions;
- self-attention after the residual blocks at the resolutions of `attention_downsamplings`, as latent diffusion's;
- the learned null condition is an embedding: it replaces the standardised one before the projection.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from fitdiff.diffusion.conditioning import (
    CrossAttention,
    FilmModulation,
    Modulate,
    SpadeModulation,
    TokenModulation,
    groups_of,
    zeroed,
)
from fitdiff.registry import register

Condition = tuple[tuple[Any, ...], ...]
"""What every residual block is told: one tuple per resolution, fine to coarse, in the order of use."""


class ResidualBlock(nn.Module):
    """Residual block of latent diffusion; in place of the second normalisation, the condition is heard.

    Args:
        hear: (features (B, C, L), what this block is told) -> (B, C, L). attention: that follows, if any.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        time_dim: int,
        dropout: float,
        hear: nn.Module,
        attention: SelfAttention | None,
    ):
        super().__init__()
        self.norm = _normalisation(in_channels)
        self.convolve_in = nn.Conv1d(in_channels, out_channels, 3, padding=1)
        self.time = nn.Linear(time_dim, out_channels)
        self.hear = hear
        self.dropout = nn.Dropout(dropout)
        self.convolve_out = zeroed(nn.Conv1d(out_channels, out_channels, 3, padding=1))
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv1d(in_channels, out_channels, 1)
        self.attention = attention or nn.Identity()

    def forward(self, x_BCL: Tensor, time_BT: Tensor, told: Any) -> Tensor:
        """(B, in_channels, L), (B, time_dim) -> (B, out_channels, L)."""
        h = self.convolve_in(nnf.silu(self.norm(x_BCL))) + self.time(time_BT)[:, :, None]
        h = self.convolve_out(self.dropout(nnf.silu(self.hear(h, told))))
        return self.attention(self.skip(x_BCL) + h)


class SelfAttention(nn.Module):
    """Multi-head attention among positions, with a skip connection."""

    def __init__(self, channels: int, heads: int, head_channels: int):
        super().__init__()
        self.heads = heads
        self.norm = _normalisation(channels)
        self.qkv = nn.Conv1d(channels, 3 * heads * head_channels, 1)
        self.project = zeroed(nn.Conv1d(heads * head_channels, channels, 1))

    def forward(self, x_BCL: Tensor) -> Tensor:
        """(B, C, L) -> (B, C, L)."""
        # The fused attention kernels want the channels of a head to be contiguous, and fall back silently if not.
        heads = self.qkv(self.norm(x_BCL)).unflatten(1, (3, self.heads, -1)).mT.contiguous()
        attended = nnf.scaled_dot_product_attention(*heads.unbind(1))
        return x_BCL + self.project(attended.mT.flatten(1, 2))


class Upsample(nn.Module):
    """Nearest-neighbour doubling of the length, then a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.convolve = nn.Conv1d(channels, channels, 3, padding=1)

    def forward(self, x_BCL: Tensor) -> Tensor:
        """(B, C, L) -> (B, C, 2 L)."""
        return self.convolve(x_BCL.repeat_interleave(2, -1))


class TimeEmbedding(nn.Module):
    """Sinusoids of the step (Ho et al. 2020), then two layers; 4 times as wide as the UNet's first level."""

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        self.layers = nn.Sequential(nn.Linear(channels, 4 * channels), nn.SiLU(), nn.Linear(4 * channels, 4 * channels))

    def forward(self, t_B: Tensor) -> Tensor:
        """(B,) int64 step -> (B, 4 channels), activated."""
        dtype = self.layers[0].weight.dtype
        half = self.channels // 2
        frequencies = torch.exp(torch.arange(half, device=t_B.device, dtype=dtype) * (-math.log(10000) / half))
        angles = t_B[:, None].to(dtype) * frequencies
        return nnf.silu(self.layers(torch.cat([angles.cos(), angles.sin()], 1)))


class UNet1d(nn.Module):
    """Noise predictor over the latent vector as a signal of one channel. Implements `types.Denoiser`.

    Subclasses say how its blocks hear of the condition: `modulation` makes what those of one resolution are told, and
    `hearing` what a block does with it.

    Args:
        length: N, of the latent vector; a multiple of 2^(levels - 1).
        embedding_dim: D, of the identity embedding.
        channels: width that the multipliers multiply.
        channel_multipliers: width of each level, fine to coarse.
        depth: residual blocks per level on the way down; one more on the way up.
        heads: attention heads.
        head_channels: channels of a head.
        spade_dim: SPADE's hidden width, one hidden layer a resolution; so of the others.
        cond_dim: length of the projected condition.
        attention_downsamplings: factors by which the length is reduced where self-attention is used. Chosen: latent
            diffusion's 2, 4, 8; the bottleneck has one in any case.
        dropout: in the residual blocks.
        embedding_gain: standard deviation of the embedding at the projection's input. Chosen: Adam moves every weight
            by about the learning rate whatever its input, so the input's size sets how fast the projection learns, and
            at 1 it can lag behind layers that start at zero. `python train.py` at laptop scale reached a held-out noise
            loss of 0.2614 at 4 and 0.2704 at 1; without a condition it is 0.2738.

    Raises:
        ValueError: `length` is not a multiple of 2^(levels - 1).
    """

    def __init__(
        self,
        length: int,
        embedding_dim: int,
        *,
        channels: int = 192,  # Table 2
        channel_multipliers: tuple[int, ...] = (1, 2, 4, 8),  # Table 2
        depth: int = 2,  # Table 2
        heads: int = 4,  # Table 2
        head_channels: int = 32,  # Table 2
        spade_dim: int = 128,  # Table 2
        cond_dim: int = 1048,  # Table 2
        attention_downsamplings: tuple[int, ...] = (2, 4, 8),
        dropout: float = 0.0,
        embedding_gain: float = 4.0,
    ):
        super().__init__()
        factor = 2 ** (len(channel_multipliers) - 1)
        if length % factor:
            raise ValueError(
                f"length={length} must be a multiple of {factor} = 2^(levels - 1): pad the latent to "
                f"{-(-length // factor) * factor}"
            )
        self.length, self.embedding_gain = length, embedding_gain
        widths = [channels * multiplier for multiplier in channel_multipliers]

        def block(in_channels: int, level: int, attention: bool) -> ResidualBlock:
            layer = SelfAttention(widths[level], heads, head_channels) if attention else None
            return ResidualBlock(
                in_channels,
                widths[level],
                4 * channels,
                dropout,
                self.hearing(widths[level], heads, head_channels),
                layer,
            )

        self.time = TimeEmbedding(channels)
        self.convolve_in = nn.Conv1d(1, channels, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        width, skips = channels, [channels]
        last = len(widths) - 1
        for level, next_width in enumerate(widths):
            stage = nn.ModuleList()
            for _ in range(depth):
                stage.append(block(width, level, 2**level in attention_downsamplings))
                width = next_width
                skips.append(width)
            if level < last:
                stage.append(nn.Conv1d(width, width, 3, stride=2, padding=1))
                skips.append(width)
            self.down.append(stage)
        self.middle = nn.ModuleList([block(width, last, True), block(width, last, False)])
        for level in range(last, -1, -1):
            stage = nn.ModuleList()
            for _ in range(depth + 1):
                stage.append(block(width + skips.pop(), level, 2**level in attention_downsamplings))
                width = widths[level]
            if level:
                stage.append(Upsample(width))
            self.up.append(stage)
        self.out = nn.Sequential(_normalisation(width), nn.SiLU(), zeroed(nn.Conv1d(width, 1, 3, padding=1)))

        self.register_buffer("embedding_mean", torch.zeros(embedding_dim))
        self.register_buffer("embedding_std", torch.ones(embedding_dim))
        self.null_embedding = nn.Parameter(torch.zeros(embedding_dim))
        self.project = nn.Linear(embedding_dim, cond_dim)
        blocks = [2 * depth + 1 + 2 * (level == last) for level in range(len(widths))]
        inner = heads * head_channels
        self.modulations = nn.ModuleList(
            self.modulation(cond_dim, spade_dim, length >> level, width, inner, layers)
            for level, (width, layers) in enumerate(zip(widths, blocks, strict=True))
        )

    def modulation(self, cond_dim: int, hidden: int, length: int, channels: int, inner: int, layers: int) -> nn.Module:
        """Network from the signal (B, 1, cond_dim) to what each of one resolution's `layers` blocks is told.

        Args:
            hidden: its width. length, channels: of the blocks' features. inner: channels of all attention heads.
        """
        raise NotImplementedError

    def hearing(self, channels: int, heads: int, head_channels: int) -> nn.Module:
        """What a block does in place of its second normalisation; see `ResidualBlock`."""
        raise NotImplementedError

    @torch.no_grad()
    def set_embedding_statistics(self, mean_D: Tensor, std_D: Tensor) -> None:
        """Set the standardisation of the embedding from training data.

        Args:
            mean_D: (D,) mean. std_D: (D,) positive standard deviation.
        """
        self.embedding_mean.copy_(mean_D)
        self.embedding_std.copy_(std_D)

    def condition(self, embedding_BD: Tensor | None, drop_B: Tensor | None = None) -> Condition:
        """Everything that depends on the embedding alone: compute it once per photo and reuse it at every step.

        Args:
            embedding_BD: (B, D) identity embedding as the network gives it; None: the null condition, which serves a
                batch of any size.
            drop_B: (B,) bool, True where the null condition replaces the embedding (training without condition).

        Returns:
            For `forward`'s `condition`. Differentiable in the embedding.
        """
        embedding = self.null_embedding[None]
        if embedding_BD is not None:
            standard = (embedding_BD - self.embedding_mean) / self.embedding_std * self.embedding_gain
            embedding = standard if drop_B is None else torch.where(drop_B[:, None], embedding, standard)
        signal = self.project(embedding)[:, None]
        return tuple(modulation(signal) for modulation in self.modulations)

    def forward(
        self,
        z_t_BN: Tensor,
        t_B: Tensor,
        embedding_BD: Tensor | None = None,
        *,
        condition: Condition | None = None,
        drop_B: Tensor | None = None,
    ) -> Tensor:
        """Predict the noise in z_t.

        Args:
            z_t_BN: (B, length) noisy latent.
            t_B: (B,) int64 step.
            embedding_BD: (B, D) identity embedding; None: the null condition.
            condition: of `self.condition`, instead of `embedding_BD` and `drop_B`.
            drop_B: see `condition`.

        Returns:
            (B, length) noise in the latent's precision, under autocast too. Differentiable in the latent and the
            condition.

        Raises:
            ValueError: the latent is not (B, length).
        """
        if z_t_BN.shape[1:] != (self.length,):
            raise ValueError(f"z_t: got {tuple(z_t_BN.shape)}, expected (B, {self.length})")
        if condition is None:
            condition = self.condition(embedding_BD, drop_B)
        modulations = [iter(level) for level in condition]
        time = self.time(t_B)
        h = self.convolve_in(z_t_BN[:, None])
        skips = [h]
        for level, stage in enumerate(self.down):
            for layer in stage:
                is_block = isinstance(layer, ResidualBlock)
                h = layer(h, time, next(modulations[level])) if is_block else layer(h)
                skips.append(h)
        for layer in self.middle:
            h = layer(h, time, next(modulations[-1]))
        for level, stage in zip(reversed(range(len(self.down))), self.up, strict=True):
            for layer in stage:
                if isinstance(layer, ResidualBlock):
                    h = layer(torch.cat([h, skips.pop()], 1), time, next(modulations[level]))
                else:
                    h = layer(h)
        # An error of the noise is multiplied by up to 80 in z_0: bfloat16 is too coarse for the last layer.
        with torch.autocast(h.device.type, enabled=False):
            return self.out(h.to(z_t_BN.dtype))[:, 0]


@register("denoiser", "spade_unet1d")
class SpadeUNet1d(UNet1d):
    """The paper's: scale and shift differ from position to position (SPADE, Park et al. 2019)."""

    def modulation(self, cond_dim: int, hidden: int, length: int, channels: int, inner: int, layers: int) -> nn.Module:
        """See `UNet1d`."""
        return SpadeModulation(length, channels, layers, hidden)

    def hearing(self, channels: int, heads: int, head_channels: int) -> nn.Module:
        """See `UNet1d`."""
        return Modulate()


@register("denoiser", "film_unet1d")
class FilmUNet1d(UNet1d):
    """To compare: one scale and shift a channel, the same at all positions (FiLM, Perez et al. 2018)."""

    def modulation(self, cond_dim: int, hidden: int, length: int, channels: int, inner: int, layers: int) -> nn.Module:
        """See `UNet1d`."""
        return FilmModulation(cond_dim, channels, layers, hidden)

    def hearing(self, channels: int, heads: int, head_channels: int) -> nn.Module:
        """See `UNet1d`."""
        return Modulate()


@register("denoiser", "cross_attention_unet1d")
class CrossAttentionUNet1d(UNet1d):
    """To compare: positions look at tokens of the condition (latent diffusion's own, Rombach et al. 2022)."""

    def modulation(self, cond_dim: int, hidden: int, length: int, channels: int, inner: int, layers: int) -> nn.Module:
        """See `UNet1d`."""
        return TokenModulation(cond_dim, inner, layers, hidden)

    def hearing(self, channels: int, heads: int, head_channels: int) -> nn.Module:
        """See `UNet1d`."""
        return CrossAttention(channels, heads, head_channels)


def _normalisation(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups_of(channels), channels)
