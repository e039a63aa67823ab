"""68 landmarks by the Face Alignment Network (Bulat & Tzimiropoulos 2017): right on three-quarter views too.

The network's definition comes from the package face-alignment, its weights from the user: the package's own class
would download them together with a face detector.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitdiff.alignment.crop import cut_square
from fitdiff.registry import register
from fitdiff.types import Detection
from fitdiff.weights import RANDOM, WeightsSource, find_weights, load_weights

FAN_2D = WeightsSource(
    what="landmarks=face_alignment (2DFAN-4)",
    files=("2DFAN4-11f355bf06.pth.tar", "2DFAN4.safetensors"),
    licence="BSD-3-Clause code, trained on 300-W-LP: non-commercial",
    origin="https://www.adrianbulat.com/downloads/python-fan/2DFAN4-11f355bf06.pth.tar",
    option="landmarks.weights",
)

INPUT, HEATMAP = 256, 64
BOX_TO_CROP = 200 / 195
"""Side of FAN's square crop over the sum of the sides of the detection's box, as in training."""
CROP_RISE = 0.12
"""How far the crop's centre lies above the box's, in box heights."""

MIRROR = (
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39, 38, 37, 36,
    41, 40, *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65,
)  # fmt: skip
"""Landmark that each landmark becomes in a mirrored photo."""


@register("landmarks", "face_alignment")
class FaceAlignmentNetwork:
    """FAN landmarks (landmarks=face_alignment).

    Args:
        weights: "auto" (fitdiff's weights folder, then torch hub's), a path, or "random" (tests of shapes only).
        average_mirror: average the heat maps with those of the mirrored crop: twice the time, steadier points.

    Raises:
        FileNotFoundError: no weights; the message says what to get and where to put it.
    """

    def __init__(self, *, weights: str = "auto", average_mirror: bool = True) -> None:
        from face_alignment.models import FAN

        self.average_mirror = average_mirror
        self.network = FAN(4)
        if weights != RANDOM:
            load_weights(self.network, find_weights(weights, FAN_2D))
        self.network.requires_grad_(False).eval()

    @torch.no_grad()
    def __call__(self, image_HW3: NDArray[np.uint8], detection: Detection) -> NDArray[np.float32]:
        """uint8 sRGB (H, W, 3) and a detection -> (68, 2) float32 in image space."""
        x0, y0, x1, y1 = detection.box
        side = BOX_TO_CROP * (x1 - x0 + y1 - y0)
        left, top = (x0 + x1 - side) / 2, (y0 + y1 - side) / 2 - CROP_RISE * (y1 - y0)
        pixels = torch.from_numpy(cut_square(image_HW3, left, top, side, INPUT).copy())
        crop = pixels.permute(2, 0, 1)[None] / 255
        heatmaps = self._heatmaps(crop)
        if self.average_mirror:
            heatmaps = heatmaps + self._heatmaps(crop.flip(-1))[list(MIRROR)].flip(-1)
        return (decode_heatmaps(heatmaps) * (side / HEATMAP) + torch.tensor([left, top])).numpy().astype(np.float32)

    def _heatmaps(self, crop: Tensor) -> Tensor:
        """(1, 3, 256, 256) -> (68, 64, 64), of the last of the stacked hourglasses."""
        outputs = self.network(crop)
        return (outputs[-1] if isinstance(outputs, (list, tuple)) else outputs)[0]


def decode_heatmaps(heatmaps_NHW: Tensor) -> Tensor:
    """Peak of each heat map, moved a quarter of a pixel towards its higher neighbour (Newell et al. 2016).

    Returns:
        (N, 2) x, y in pixels of the heat map; the centre of the first pixel is (0.5, 0.5).
    """
    height, width = heatmaps_NHW.shape[1:]
    peak = heatmaps_NHW.flatten(1).argmax(1)
    rows, columns = (peak // width).clamp(1, height - 2), (peak % width).clamp(1, width - 2)
    inside = rows * width + columns == peak
    each = torch.arange(len(peak), device=peak.device)
    slope_x = heatmaps_NHW[each, rows, columns + 1] - heatmaps_NHW[each, rows, columns - 1]
    slope_y = heatmaps_NHW[each, rows + 1, columns] - heatmaps_NHW[each, rows - 1, columns]
    shift = 0.25 * torch.stack([slope_x, slope_y], -1).sign() * inside[:, None]
    return torch.stack([peak % width, peak // width], -1) + 0.5 + shift
