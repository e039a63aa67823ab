"""ArcFace (Deng et al. 2019), the paper's identity network: an improved ResNet whose weights the user brings.

Module names are those of the public PyTorch checkpoints of InsightFace's `arcface_torch`: they load as they are.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from fitdiff.identity.five_points import five_point_weights, template_ndc
from fitdiff.registry import register
from fitdiff.types import IdentityFeatures
from fitdiff.weights import RANDOM, FrozenNetwork, WeightsSource, find_weights, load_weights

BLOCKS = {50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
"""Residual blocks of each stage, by depth."""

TEMPLATE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
"""Pixels of a 112 x 112 crop: the subject's right and left eye, nose tip, right and left mouth corner."""


class ResidualBlock(nn.Module):
    """Pre-activated block: norm, 3 x 3 convolution, norm, PReLU, 3 x 3 convolution with the stride, norm."""

    def __init__(self, width: int, out_width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, out_width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_width)
        self.prelu = nn.PReLU(out_width)
        self.conv2 = nn.Conv2d(out_width, out_width, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_width)
        if stride > 1:
            projection = nn.Conv2d(width, out_width, 1, stride=stride, bias=False)
            self.downsample: nn.Module = nn.Sequential(projection, nn.BatchNorm2d(out_width))
        else:
            self.downsample = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(y)) + self.downsample(x)


@register("identity", "arcface")
class ArcFace(FrozenNetwork):
    """iResNet-50 or -100 (identity=arcface).

    Args:
        depth: 50 or 100.
        weights: "auto" (fitdiff's weights folder, then torch hub's), a path to a state dict, or "random" (tests of
            shapes only).

    Raises:
        ValueError: unknown depth. FileNotFoundError: no weights; the message says what to get and where to put it.
        WeightsError: another network's file.
    """

    size = 112
    dim = 512

    def __init__(self, *, depth: int = 100, weights: str = "auto") -> None:
        super().__init__()
        if depth not in BLOCKS:
            raise ValueError(f"identity.depth must be one of {sorted(BLOCKS)}, got {depth}")
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        width = 64
        for stage, count in enumerate(BLOCKS[depth]):
            widths = [width] + [64 * 2**stage] * count
            blocks = [ResidualBlock(a, b, 2 if i == 0 else 1) for i, (a, b) in enumerate(pairwise(widths))]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            width = widths[-1]
        self.bn2 = nn.BatchNorm2d(512)
        self.fc = nn.Linear(512 * 7 * 7, self.dim)
        self.features = nn.BatchNorm1d(self.dim)
        if weights != RANDOM:
            load_weights(self, find_weights(weights, _source(depth)))
        self.register_buffer("template", template_ndc(TEMPLATE, self.size), persistent=False)
        self.register_buffer("template_weights", five_point_weights(), persistent=False)
        self.freeze()

    def forward(self, crops_B3SS: Tensor) -> IdentityFeatures:
        """Embed aligned crops. Differentiable in the crops.

        Args:
            crops_B3SS: (B, 3, 112, 112) sRGB in [0, 1], aligned to `template`.

        Returns:
            (B, 512) embedding, and the outputs of the four stages at 56, 28, 14 and 7 pixels.
        """
        x = self.prelu(self.bn1(self.conv1(crops_B3SS * 2 - 1)))
        activations = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            activations.append(x)
        return IdentityFeatures(self.features(self.fc(torch.flatten(self.bn2(x), 1))), tuple(activations))


def _source(depth: int) -> WeightsSource:
    return WeightsSource(
        what=f"identity=arcface (iResNet-{depth})",
        files=(f"arcface_r{depth}.safetensors", f"arcface_r{depth}.pth"),
        licence="InsightFace's models: non-commercial research only",
        origin="InsightFace's arcface_torch model zoo, e.g. the backbone.pth of "
        f"glint360k_cosface_r{depth}_fp16_0.1 or ms1mv3_arcface_r{depth}_fp16, renamed",
        option="identity.weights",
    )
