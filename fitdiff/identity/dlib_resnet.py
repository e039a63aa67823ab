"""dlib's face-recognition ResNet in PyTorch, read straight from dlib's own (public domain) weights file.

29 convolutions, 150 x 150 RGB -> 128 numbers; faces of one person lie within 0.6 of each other. Architecture and
file format as in dlib's `dnn_face_recognition_ex.cpp` and `dnn/layers.h` (Davis King, 2017). It is the one
identity network whose weights come with an installed package.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from fitdiff.registry import register
from fitdiff.types import IdentityFeatures
from fitdiff.weights import FrozenNetwork, WeightsError, package_folder

PACKAGE, FILE = "face_recognition_models", "models/dlib_face_recognition_resnet_model_v1.dat"

STAGES = ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True))
"""(channels, residual blocks, first block halves the resolution) of each stage."""

CHIP_LANDMARKS = (*range(27, 55), *range(60, 65))
"""Landmarks that dlib aligns by: nose, eyes, upper lip and inner mouth; brows, jaw and lower lip move too much."""

# Mean positions of those landmarks in dlib's unit face square (x right, y down), recovered from the response of
# dlib.get_face_chip_details to displaced landmarks.
CHIP_MEAN_X = (
    0.490127, 0.490127, 0.490127, 0.490127, 0.36688, 0.426036, 0.490127, 0.554217, 0.613373, 0.121737, 0.187122,
    0.265825, 0.334606, 0.260918, 0.182743, 0.645647, 0.714428, 0.793132, 0.858516, 0.79751, 0.719335, 0.254149,
    0.340985, 0.428858, 0.490127, 0.551395, 0.639268, 0.726104, 0.290379, 0.428096, 0.490127, 0.552157, 0.689874,
)  # fmt: skip
CHIP_MEAN_Y = (
    0.203352, 0.307009, 0.409805, 0.515625, 0.587326, 0.609345, 0.628106, 0.609345, 0.587326, 0.216423, 0.178758,
    0.179852, 0.231733, 0.245099, 0.244077, 0.231733, 0.179852, 0.178758, 0.216423, 0.244077, 0.245099, 0.780233,
    0.745405, 0.727388, 0.742578, 0.727388, 0.745405, 0.780233, 0.784792, 0.778746, 0.785343, 0.778746, 0.784792,
)  # fmt: skip
CHIP_PADDING = 0.25


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a skip; dlib's affine layers are folded into the convolutions.

    A halving block's first convolution has stride 2 and no padding, its skip is a 2 x 2 mean. Their sizes and
    channels differ: each is zero-padded (bottom, right, last channels) to the larger of the two.
    """

    def __init__(self, in_channels: int, channels: int, halve: bool) -> None:
        super().__init__()
        self.halve = halve
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=2 if halve else 1, padding=0 if halve else 1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(nnf.relu(self.conv1(x)))
        if self.halve:
            x = nnf.avg_pool2d(x, 2)
            size = [max(a, b) for a, b in zip(x.shape[1:], y.shape[1:], strict=True)]
            x, y = _pad_to(x, size), _pad_to(y, size)
        return nnf.relu(x + y)


@register("identity", "dlib")
class DlibResNet(FrozenNetwork):
    """dlib's face-recognition network (identity=dlib).

    Args:
        weights: "auto" (the file of the installed package `face_recognition_models`) or a path to a copy of it.

    Raises:
        FileNotFoundError: the package or the file is missing. WeightsError: the file is another dlib network.
    """

    size = 150
    dim = 128

    def __init__(self, *, weights: str = "auto") -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 7, stride=2)
        stages, in_channels = [], 32
        for channels, blocks, halve in STAGES:
            widths = [in_channels] + [channels] * (blocks - 1)
            stages.append(nn.Sequential(*(ResidualBlock(w, channels, halve and i == 0) for i, w in enumerate(widths))))
            in_channels = channels
        self.stages = nn.ModuleList(stages)
        self.fc = nn.Linear(256, self.dim, bias=False)
        self.register_buffer("mean", torch.tensor([122.782, 117.001, 104.298]).view(1, 3, 1, 1), persistent=False)
        template = torch.tensor([CHIP_MEAN_X, CHIP_MEAN_Y]).T
        template = (template + CHIP_PADDING) / (1 + 2 * CHIP_PADDING) * 2 - 1
        self.register_buffer("template", template * torch.tensor([1.0, -1.0]), persistent=False)
        self.register_buffer("template_weights", torch.eye(68)[list(CHIP_LANDMARKS)], persistent=False)
        self._load(package_folder(PACKAGE) / FILE if weights == "auto" else Path(weights).expanduser())
        self.freeze()

    def forward(self, crops_B3SS: Tensor) -> IdentityFeatures:
        """Embed aligned crops. Differentiable in the crops.

        Args:
            crops_B3SS: (B, 3, 150, 150) sRGB in [0, 1], aligned to `template`.

        Returns:
            (B, 128) embedding as dlib gives it, and the outputs of the stages at 35, 17, 8 and 4 pixels. The last
            stage is left out: its mean is what the embedding is a linear map of.
        """
        x = (crops_B3SS * 255 - self.mean) / 256
        x = nnf.max_pool2d(nnf.relu(self.stem(x)), 3, stride=2)
        activations = []
        for stage in self.stages:
            x = stage(x)
            activations.append(x)
        return IdentityFeatures(self.fc(x.mean((2, 3))), tuple(activations[:-1]))

    def _load(self, path: Path) -> None:
        """Fill the convolutions in the file's order, each followed by its affine layer, and the last linear map."""
        if not path.is_file():
            raise FileNotFoundError(f"identity=dlib: no weights file at {path}; set identity.weights=<path> or auto")
        convolutions = [module for module in self.modules() if isinstance(module, nn.Conv2d)]
        layers = list(_read_layers(path.read_bytes()))
        expected = sum(c.weight.numel() + 3 * c.out_channels for c in convolutions) + self.fc.weight.numel()
        if sum(layer.size for layer in layers) != expected or len(layers) != 2 * len(convolutions) + 1:
            raise WeightsError(f"{path} is not dlib_face_recognition_resnet_model_v1.dat: its layers differ")
        with torch.no_grad():
            for conv, filters, affine in zip(convolutions, layers[:-1:2], layers[1:-1:2], strict=True):
                filters, bias = torch.tensor(filters).split([conv.weight.numel(), conv.out_channels])
                gamma, beta = torch.tensor(affine).view(2, -1)
                conv.weight.copy_(filters.view_as(conv.weight) * gamma.view(-1, 1, 1, 1))
                conv.bias.copy_(bias * gamma + beta)
            self.fc.weight.copy_(torch.tensor(layers[-1]).view(256, self.dim).T)


def _pad_to(x: Tensor, size: list[int]) -> Tensor:
    """Zero-pad (B, C, H, W) at the end of each axis up to `size` = (C, H, W)."""
    channels, height, width = (wanted - got for wanted, got in zip(size, x.shape[1:], strict=True))
    return nnf.pad(x, (0, width, 0, height, 0, channels))


def _read_layers(data: bytes) -> Iterator[np.ndarray]:
    """Flat parameters of the convolution, affine and fully connected layers, in forward order.

    A layer is its name (a length-prefixed string) and a tensor: version, four sizes, raw little-endian float32. The
    fully connected layer has its output and input counts before the tensor.
    """
    for match in re.finditer(rb"\x01[\x04-\x07](con_|affine_|fc_)\d?", data):
        cursor = match.end()
        for _ in range(2 if match.group(1) == b"fc_" else 0):
            _, cursor = _read_integer(data, cursor)
        sizes = []
        for _ in range(5):
            value, cursor = _read_integer(data, cursor)
            sizes.append(value)
        count = int(np.prod(sizes[1:]))
        yield np.frombuffer(data, "<f4", count, cursor).copy()


def _read_integer(data: bytes, at: int) -> tuple[int, int]:
    """dlib's integer: a byte with the count of bytes (and the sign, 0x80), then those bytes, little-endian."""
    length = data[at] & 0x0F
    value = int.from_bytes(data[at + 1 : at + 1 + length], "little")
    return (-value if data[at] & 0x80 else value), at + 1 + length
