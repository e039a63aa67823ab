"""Branched VQGAN: three reflectance maps <-> one small latent. Table 1 and section 2 of the FitDiff supplement.

Base: Esser et al. 2021, "Taming transformers for high-resolution image synthesis". The first downsampling stage of the
encoder and the last upsampling stage of the decoder exist once per map; the trunk between is shared. Where the paper
is silent, **chosen** here:

- merging: the branches' channels are concatenated and the trunk's first residual block takes them all, without an
  extra layer;
- splitting: every branch's first convolution sees all channels of the trunk;
- maps are standardised by a mean map and one scale per branch before the encoder, and back after the decoder;
- the codebook is a moving average (see `quantiser`) instead of being trained by gradients;
- attention at resolution 32 only exists where the maps are 256 or smaller; at 512 the bottleneck, 64, has the only one;
- ``stem="patch"``: for CPUs. Each branch is a 2x2 space-to-depth step and one convolution, and the reverse at the end;
- ``linear_path``: for laptops, off by default. Principal components of the maps beside the networks.
"""

from __future__ import annotations

from functools import partial
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fitdiff.autoencoder.layers import (
    Downsample,
    GridLinear,
    ResidualBlock,
    SelfAttention,
    Upsample,
    convolution,
    normalisation,
)
from fitdiff.autoencoder.linear_path import LinearPath
from fitdiff.autoencoder.quantiser import VectorQuantiser
from fitdiff.registry import register

BRANCHES = 3
"""Diffuse albedo, specular albedo, normals."""

MAP_CHANNELS = 9
"""Of the map tensor (see `types`): three per branch."""


class AutoencoderOutput(NamedTuple):
    """One pass through the autoencoder.

    Attributes:
        reconstruction: (B, 9, R, R) map tensor, not clamped.
        latent: (B, embed_dim, h, w) before quantisation.
        codes: (B, h, w) int64.
        commitment_loss: () weighted by beta.
        perplexity: () of the batch's codes; no gradient.
    """

    reconstruction: Tensor
    latent: Tensor
    codes: Tensor
    commitment_loss: Tensor
    perplexity: Tensor


@register("autoencoder", "vqgan")
class BranchedVQGAN(nn.Module):
    """VQGAN with one first and one last stage per map. Implements `types.Autoencoder`.

    Args:
        resolution: R, side of the maps in texels.
        channels: width that the multipliers multiply.
        channel_multipliers: width of each level, from full resolution down; four levels halve three times (f = 8).
        res_blocks: residual blocks per level of the encoder; the decoder has one more.
        attention_resolutions: feature-map sides with self-attention after each residual block. The bottleneck has one
            in any case. At R = 512 it is the only one, since the levels' sides are 512, 256, 128 and 64.
        z_channels: of the bottleneck before the codes' projection.
        embed_dim: length of a code.
        codebook_size: number of codes.
        stem: "conv" as VQGAN, or "patch" (see the module).
        linear_path: begin with the training maps' principal components, as many as the latent has numbers (see
            `linear_path`); the networks add to them, and the decoder's branches see what they add to. The latent's
            grid then has no meaning in UV space, so that linear layers stand between it and the networks. Not in the
            paper: for laptops, whose minutes of training would go into learning what aligned maps have in common.
        commitment: beta of the commitment loss.
        codebook_decay: of the codebook's moving average.
        scale_floor: least scale that `set_statistics` accepts per branch, in units of the map tensor. Chosen: fine
            noise in nearly constant normals would otherwise weigh as much as the albedo.
        checkpoint_activations: recompute residual blocks in the backward pass: slower, less memory.

    Raises:
        ValueError: `resolution` does not divide by the number of halvings, or the stem is unknown.
    """

    def __init__(
        self,
        resolution: int,
        *,
        channels: int = 128,  # Table 1
        channel_multipliers: tuple[int, ...] = (1, 2, 2, 4),  # Table 1; f = 8
        res_blocks: int = 2,  # Table 1
        attention_resolutions: tuple[int, ...] = (32,),  # Table 1
        z_channels: int = 4,  # Table 1
        embed_dim: int = 1,  # Table 1
        codebook_size: int = 16384,  # Table 1: |Z|
        stem: str = "conv",
        linear_path: bool = False,
        commitment: float = 0.25,  # VQGAN
        codebook_decay: float = 0.99,
        scale_floor: float = 0.05,
        checkpoint_activations: bool = False,
    ):
        super().__init__()
        factor = 2 ** (len(channel_multipliers) - 1)
        if resolution % factor:
            raise ValueError(f"resolution={resolution} must be a multiple of {factor} = 2^(levels - 1)")
        if stem not in ("conv", "patch"):
            raise ValueError(f"stem={stem!r} is unknown: use 'conv' or 'patch'")
        self.latent_shape = (embed_dim, resolution // factor, resolution // factor)
        self.scale_floor = scale_floor
        widths = [channels * multiplier for multiplier in channel_multipliers]
        options = {
            "res_blocks": res_blocks,
            "attention_resolutions": tuple(attention_resolutions),
            "stem": stem,
            "checkpoint_activations": checkpoint_activations,
        }
        self.encoder = Encoder(resolution, widths, z_channels, **options)
        grid = self.latent_shape[1:]
        between = partial(GridLinear, grid=grid) if linear_path else partial(nn.Conv2d, kernel_size=1)
        self.to_code = between(z_channels, embed_dim)
        self.quantiser = VectorQuantiser(codebook_size, embed_dim, decay=codebook_decay, commitment=commitment)
        self.from_code = between(embed_dim, z_channels)
        self.decoder = Decoder(resolution, widths, z_channels, sees_maps=linear_path, **options)
        self.linear = None
        if linear_path:
            self.linear = LinearPath(MAP_CHANNELS * resolution**2, prod(self.latent_shape))
            for layer in (self.to_code, self.decoder.convolve_out):  # start as the linear autoencoder
                for parameter in layer.parameters():
                    nn.init.zeros_(parameter)
        self.to(memory_format=torch.channels_last)  # 1.3 times faster on CPUs, and what GPUs' half precision wants
        self.register_buffer("mean", torch.zeros(MAP_CHANNELS, resolution, resolution))
        self.register_buffer("scale", torch.ones(BRANCHES))

    @torch.no_grad()
    def set_statistics(self, mean_9RR: Tensor, std_3: Tensor) -> None:
        """Set the standardisation from training data; the networks then see (maps - mean) / std.

        Args:
            mean_9RR: (9, R, R) mean map tensor.
            std_3: (3,) root mean square deviation from it of diffuse, specular and normals; floored at `scale_floor`.
        """
        self.mean.copy_(mean_9RR)
        self.scale.copy_(std_3.clamp_min(self.scale_floor))

    def encode(self, maps_B9RR: Tensor) -> Tensor:
        """(B, 9, R, R) map tensor in [-1, 1] -> (B, embed_dim, h, w) continuous latent. Differentiable.

        Raises:
            ValueError: the maps' shape is not the one this network was built for.
        """
        if maps_B9RR.shape[1:] != self.mean.shape:
            raise ValueError(f"maps: got {tuple(maps_B9RR.shape)}, expected (B, *{tuple(self.mean.shape)})")
        standard = self.standardise(maps_B9RR)
        features = self.encoder(standard)
        # bfloat16 has fewer values than the codebook has codes.
        with torch.autocast(features.device.type, enabled=False):
            latent = self.to_code(features.to(self.mean.dtype))
            return latent if self.linear is None else latent + self.linear.encode(standard).view_as(latent)

    def standardise(self, maps_B9RR: Tensor) -> Tensor:
        """Map tensor -> (maps - mean) / scale, what the networks see."""
        return (maps_B9RR - self.mean) / self._channel_scale()

    def decode(self, latent_BChw: Tensor) -> Tensor:
        """(B, embed_dim, h, w) continuous latent -> nearest codes -> (B, 9, R, R) map tensor, not clamped.

        Differentiable: the gradient passes straight through the quantisation.
        """
        return self._decode_codes(self.quantiser.quantise(latent_BChw))

    def forward(self, maps_B9RR: Tensor) -> AutoencoderOutput:
        """Encode, quantise (updating the codebook in training mode) and decode a (B, 9, R, R) map tensor."""
        latent = self.encode(maps_B9RR)
        quantised = self.quantiser(latent)
        return AutoencoderOutput(
            self._decode_codes(quantised.latent),
            latent,
            quantised.codes,
            quantised.commitment_loss,
            quantised.perplexity,
        )

    @property
    def last_layer(self) -> Tensor:
        """Weight of the decoder's last convolution, against which VQGAN balances its losses."""
        return self.decoder.last_layer

    def _decode_codes(self, quantised_BChw: Tensor) -> Tensor:
        start = None
        if self.linear is not None:
            start = self.linear.decode(quantised_BChw.flatten(1)).view(-1, *self.mean.shape)
        return self.decoder(self.from_code(quantised_BChw), start) * self._channel_scale() + self.mean

    def _channel_scale(self) -> Tensor:
        return self.scale.repeat_interleave(MAP_CHANNELS // BRANCHES)[:, None, None]


class Encoder(nn.Module):
    """Standardised maps (B, 9, R, R) -> (B, z_channels, h, w)."""

    def __init__(
        self,
        resolution: int,
        widths: list[int],
        z_channels: int,
        *,
        res_blocks: int,
        attention_resolutions: tuple[int, ...],
        stem: str,
        checkpoint_activations: bool,
    ):
        super().__init__()
        branched = BRANCHES * widths[0]
        if stem == "patch":
            stage: list[nn.Module] = [nn.PixelUnshuffle(2), convolution(4 * MAP_CHANNELS, branched, BRANCHES)]
        else:
            stage = [convolution(MAP_CHANNELS, branched, BRANCHES)]
            stage += [ResidualBlock(branched, branched, BRANCHES, checkpoint_activations) for _ in range(res_blocks)]
            stage += [Downsample(branched, BRANCHES)]
        self.branches = nn.Sequential(*stage)
        trunk: list[nn.Module] = []
        width = branched
        for level, next_width in enumerate(widths[1:], 1):
            for _ in range(res_blocks):
                trunk.append(ResidualBlock(width, next_width, 1, checkpoint_activations))
                width = next_width
                if resolution >> level in attention_resolutions:
                    trunk.append(SelfAttention(width))
            if level < len(widths) - 1:
                trunk.append(Downsample(width))
        trunk += _bottleneck(width, checkpoint_activations)
        trunk += [normalisation(width), nn.SiLU(), convolution(width, z_channels)]
        self.trunk = nn.Sequential(*trunk)

    def forward(self, maps_B9RR: Tensor) -> Tensor:
        return self.trunk(self.branches(maps_B9RR))


class Decoder(nn.Module):
    """(B, z_channels, h, w) -> standardised maps (B, 9, R, R).

    With `sees_maps` it adds to maps that are given, which its branches see beside the trunk's features.
    """

    def __init__(
        self,
        resolution: int,
        widths: list[int],
        z_channels: int,
        *,
        res_blocks: int,
        attention_resolutions: tuple[int, ...],
        stem: str,
        checkpoint_activations: bool,
        sees_maps: bool,
    ):
        super().__init__()
        width = widths[-1]
        trunk: list[nn.Module] = [convolution(z_channels, width), *_bottleneck(width, checkpoint_activations)]
        for level in range(len(widths) - 1, 0, -1):
            for _ in range(res_blocks + 1):
                trunk.append(ResidualBlock(width, widths[level], 1, checkpoint_activations))
                width = widths[level]
                if resolution >> level in attention_resolutions:
                    trunk.append(SelfAttention(width))
            if level > 1:
                trunk.append(Upsample(width))
        self.trunk = nn.Sequential(*trunk)
        self.see = nn.Sequential(nn.PixelUnshuffle(2), convolution(4 * MAP_CHANNELS, width)) if sees_maps else None
        branched = BRANCHES * widths[0]
        if stem == "patch":
            stage: list[nn.Module] = [normalisation(width), nn.SiLU(), convolution(width, branched)]
        else:
            stage = [Upsample(width, copies=BRANCHES)]
            stage += [ResidualBlock(BRANCHES * width, branched, BRANCHES, checkpoint_activations)]
            stage += [ResidualBlock(branched, branched, BRANCHES, checkpoint_activations) for _ in range(res_blocks)]
        out_channels = MAP_CHANNELS * (4 if stem == "patch" else 1)
        self.branches = nn.Sequential(*stage, normalisation(branched, BRANCHES), nn.SiLU())
        self.convolve_out = convolution(branched, out_channels, BRANCHES)
        self.unpatch = nn.PixelShuffle(2) if stem == "patch" else nn.Identity()

    @property
    def last_layer(self) -> Tensor:
        return self.convolve_out.weight

    def forward(self, z_BChw: Tensor, start_B9RR: Tensor | None = None) -> Tensor:
        features = self.trunk(z_BChw)
        if self.see is None or start_B9RR is None:
            return self.unpatch(self.convolve_out(self.branches(features)))
        return start_B9RR + self.unpatch(self.convolve_out(self.branches(features + self.see(start_B9RR))))


def _bottleneck(width: int, checkpoint_activations: bool) -> list[nn.Module]:
    return [
        ResidualBlock(width, width, 1, checkpoint_activations),
        SelfAttention(width),
        ResidualBlock(width, width, 1, checkpoint_activations),
    ]
