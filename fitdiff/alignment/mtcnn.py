"""Face detection with MTCNN (Zhang et al. 2016), the paper's reference [21]; weights ship with facenet-pytorch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fitdiff.registry import register
from fitdiff.types import Detection

LARGEST_SEARCH = 2560
"""Pixels a side: 6000 x 4000 pixels without a face took minutes and gigabytes."""


@register("detector", "mtcnn")
class Mtcnn:
    """MTCNN (detector=mtcnn).

    Args:
        min_face: smallest face side to look for, in pixels of the reduced image.
        max_side: larger photos are reduced to this for speed, and searched at full size, of at most 2560 pixels
            a side, only if that finds nobody.
        threshold: least score of a face.
    """

    def __init__(self, *, min_face: int = 20, max_side: int = 1024, threshold: float = 0.9) -> None:
        from facenet_pytorch import MTCNN

        self.min_face, self.max_side, self.threshold = min_face, max_side, threshold
        self.network = MTCNN(keep_all=True, min_face_size=min_face)

    def __call__(self, image_HW3: NDArray[np.uint8]) -> list[Detection]:
        """uint8 sRGB (H, W, 3) -> faces, largest first, boxes in pixels of that image; empty if there is none."""
        height, width = image_HW3.shape[:2]
        reduction, least = (max(1.0, max(height, width) / side) for side in (self.max_side, LARGEST_SEARCH))
        found = self._detect(image_HW3, reduction)
        return found if found or reduction <= least else self._detect(image_HW3, least)

    def _detect(self, image_HW3: NDArray[np.uint8], reduction: float) -> list[Detection]:
        """Faces of the image reduced by a factor, in pixels of the image."""
        image = Image.fromarray(image_HW3)
        if reduction > 1:
            size = (max(1, round(image.width / reduction)), max(1, round(image.height / reduction)))
            image = image.resize(size, Image.Resampling.BOX)
        if min(image.size) < self.min_face:
            return []
        boxes, scores = self.network.detect(image)
        if boxes is None:
            return []
        # Several faces come as object arrays under NumPy 2; plain lists are the same in every case.
        found = [
            Detection(tuple(edge * reduction for edge in box), min(score, 1.0))
            for box, score in zip(boxes.tolist(), scores.tolist(), strict=True)
            if score >= self.threshold
        ]
        return sorted(found, key=lambda d: (d.box[2] - d.box[0]) * (d.box[3] - d.box[1]), reverse=True)
