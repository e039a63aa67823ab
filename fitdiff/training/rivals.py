"""Networks of other projects beside ours, for `bench`: of as many parameters, to within 3%.

They are dev tools, never a fallback. Where they differ from ours is said at each.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

import torch
from omegaconf import DictConfig
from torch import nn

TOLERANCE = 0.03
"""Most by which a rival's number of parameters may differ from ours."""


def count_parameters(network: nn.Module) -> int:
    """Numbers that an optimiser moves."""
    return sum(p.numel() for p in network.parameters())


def equal_size(make: Callable[[int], nn.Module], sizes: Sequence[int], parameters: int) -> nn.Module:
    """The network that is nearest in parameters.

    Args:
        make: from a size; more size is more parameters. sizes: in order.

    Raises:
        ValueError: none is within `TOLERANCE`.
    """

    def count(size: int) -> int:
        with torch.device("meta"):
            return count_parameters(make(size))

    above = bisect_left(sizes, parameters, key=count)
    near = sizes[max(0, above - 1) : above + 1]
    best = min(near, key=lambda size: abs(count(size) - parameters))
    if abs(count(best) / parameters - 1) > TOLERANCE:
        raise ValueError(f"the nearest rival has {count(best)} parameters, ours {parameters}: more than 3% apart")
    return make(best)


def vq_model(config: DictConfig, resolution: int, parameters: int) -> nn.Module:
    """diffusers' VQGAN with the depth, attention, latent and codebook of `config` (an autoencoder's).

    It has no branches: one trunk sees all nine channels at every resolution. Its codebook is trained by gradients, its
    normalisations have four groups, and `stem` and `linear_path` are unknown to it.
    """
    from diffusers import VQModel

    multipliers = list(config.channel_multipliers)
    attends = [resolution >> level in config.attention_resolutions for level in range(len(multipliers))]

    def make(width: int) -> nn.Module:
        return VQModel(
            in_channels=9,
            out_channels=9,
            down_block_types=tuple("AttnDownEncoderBlock2D" if a else "DownEncoderBlock2D" for a in attends),
            up_block_types=tuple("AttnUpDecoderBlock2D" if a else "UpDecoderBlock2D" for a in reversed(attends)),
            block_out_channels=tuple(4 * max(1, round(width * m / 4)) for m in multipliers),
            layers_per_block=config.res_blocks,
            latent_channels=config.z_channels,
            num_vq_embeddings=config.codebook_size,
            vq_embed_dim=config.embed_dim,
            norm_num_groups=4,
        )

    return equal_size(make, range(8, 513), parameters)


def unet1d(config: DictConfig, parameters: int) -> nn.Module:
    """lucidrains' 1-D UNet with the multipliers and heads of `config` (a denoiser's).

    It has no condition, so neither SPADE nor an embedding; two residual blocks a level whatever our depth, and linear
    attention at every level, full attention at the bottleneck alone.

    Raises:
        ImportError: its package is not installed.
    """
    try:
        from denoising_diffusion_pytorch import Unet1D
    except ImportError as error:
        raise ImportError("denoising-diffusion-pytorch is missing: pip install -e '.[dev]'") from error

    def make(width: int) -> nn.Module:
        even = width + width % 2  # of the time's sinusoids; the first level alone may be narrower, for the finer step
        return Unet1D(
            even,
            init_dim=even if width % 2 == 0 else even * 7 // 8,
            channels=1,
            dim_mults=tuple(config.channel_multipliers),
            attn_heads=config.heads,
            attn_dim_head=config.head_channels,
        )

    return equal_size(make, range(8, 513), parameters)
