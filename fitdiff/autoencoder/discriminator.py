"""Branched PatchGAN discriminator. Section 2 of the FitDiff supplement, change B (as in FitMe).

Base: Isola et al. 2017, as VQGAN uses it. Two copies of everything except the last convolution, which both share: one
copy judges both albedos, the other the normals. **Chosen**, where the paper is silent: VQGAN's widths, initial weights
and batch normalisation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fitdiff.autoencoder.processes import mean_over_processes, n_processes
from fitdiff.registry import register

ALBEDO_CHANNELS = 6
"""The map tensor starts with diffuse and specular albedo; normals follow."""

NORMAL_CHANNELS = 3


@register("discriminator", "branched_patchgan")
class BranchedDiscriminator(nn.Module):
    """Judges overlapping patches of the maps as real or reconstructed.

    Args:
        channels: width of the first convolution (VQGAN: 64).
        layers: strided convolutions; three see patches of 70 texels (VQGAN: 3).

    Batch normalisation, as in VQGAN: in training mode the logits of a map depend on its batch, which is that of all
    processes together. Gradient accumulation cannot be hidden from it: its batch is then one micro-batch of each
    process.
    """

    def __init__(self, *, channels: int = 64, layers: int = 3):
        super().__init__()
        self.albedo = _features(ALBEDO_CHANNELS, channels, layers)
        self.normals = _features(NORMAL_CHANNELS, channels, layers)
        self.last = nn.Conv2d(channels * min(2**layers, 8), 1, 4, padding=1)
        self.apply(_initialise)

    def forward(self, maps_B9RR: Tensor) -> Tensor:
        """(B, 9, R, R) map tensor in [-1, 1] -> (B, 2, h, w) logits of albedos and normals; real is positive."""
        albedo, normals = maps_B9RR.split((ALBEDO_CHANNELS, NORMAL_CHANNELS), 1)
        return torch.cat([self.last(self.albedo(albedo)), self.last(self.normals(normals))], 1)


def _features(in_channels: int, channels: int, layers: int) -> nn.Sequential:
    """PatchGAN without its last convolution: `layers` strided blocks and one that keeps the resolution."""
    modules: list[nn.Module] = [nn.Conv2d(in_channels, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    width = channels
    for layer in range(1, layers + 1):
        previous, width = width, channels * min(2**layer, 8)
        stride = 2 if layer < layers else 1
        modules += [
            # The normalisation that follows has a bias of its own.
            nn.Conv2d(previous, width, 4, stride=stride, padding=1, bias=False),
            WholeBatchNorm2d(width),
            nn.LeakyReLU(0.2),
        ]
    return nn.Sequential(*modules)


class WholeBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the batches of all processes, on any device; alone it is torch's.

    Torch's own `SyncBatchNorm` refuses the CPU. Every process must hold a batch of the same size.
    """

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape. Differentiable; gradients reach the maps of the other processes, too."""
        processes = n_processes()
        if not self.training or processes == 1:
            return super().forward(x_BCHW)
        x = x_BCHW.to(self.weight.dtype)  # half precision under autocast is too coarse for statistics
        mean = mean_over_processes(x.mean((0, 2, 3), keepdim=True))
        centred = x - mean
        variance = mean_over_processes(centred.square().mean((0, 2, 3), keepdim=True))
        self._follow(mean.flatten(), variance.flatten(), processes * x[:, 0].numel())
        gain = self.weight[:, None, None] * (variance + self.eps).rsqrt()
        return (centred * gain + self.bias[:, None, None]).to(x_BCHW.dtype)

    @torch.no_grad()
    def _follow(self, mean_C: Tensor, variance_C: Tensor, count: int) -> None:
        """Move the running statistics; their variance is the unbiased one, as torch keeps it."""
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean_C, self.momentum)
        self.running_var.lerp_(variance_C * (count / (count - 1)), self.momentum)


def _initialise(module: nn.Module) -> None:
    """DCGAN's initial weights, as PatchGAN uses them."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
