"""Names parts of the embedded face: by MakeHuman's painted masks, and by distances from landmarks on the mean face."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fitdiff.shape_model import makehuman
from fitdiff.shape_model.anny_mesh import LEFT_EYE, RIGHT_EYE
from fitdiff.shape_model.anny_mouth import TEETH, TONGUE

NOSE_MARGIN, MOUTH_MARGIN, BROW_MARGIN, LID_MARGIN = 7.0, 7.0, 3.0, 6.0
"""mm around the landmarks."""


def name_regions(
    vertices: np.ndarray,
    landmarks: np.ndarray,
    base_uv: np.ndarray,
    labels: np.ndarray,
    hidden: np.ndarray,
    mirror: np.ndarray,
) -> dict[str, np.ndarray]:
    """Masks (V,) of parts of the face.

    Args:
        vertices: (V, 3) mm, mean face. landmarks: (68, 3) on it.
        base_uv: (V, 2) MakeHuman's texture coordinates.
        labels: (V,) of `anny_mesh`.
        hidden: (V,) bool, not on the skin's chart of MakeHuman's unwrap.
        mirror: (V,) each vertex's mirror image; regions are symmetric.

    Returns:
        eyes (eyeballs), inner_mouth (all that closed lips hide), teeth and tongue (parts of it), lips, skin (the rest),
        and the four parts of REALY's benchmark: nose, mouth (lips and around), forehead, cheek.
    """
    eyes = np.isin(labels, (LEFT_EYE, RIGHT_EYE))
    inner_mouth = hidden & ~eyes
    painted = _sample(makehuman.mask_path("lips"), base_uv)
    lips = (painted + painted[mirror] > 1) & ~inner_mouth & ~eyes
    skin = ~(eyes | inner_mouth | lips)
    nose = skin & _nose(vertices, landmarks)
    mouth = ~nose & (skin | lips) & _mouth(vertices, landmarks)
    x, y = np.abs(vertices[:, 0]), vertices[:, 1]
    forehead = skin & (y > landmarks[17:27, 1].max() + BROW_MARGIN)
    below_eyes = y < landmarks[[40, 41, 46, 47], 1].min() - LID_MARGIN
    above_jaw = y > landmarks[[57], 1] - MOUTH_MARGIN
    cheek = skin & below_eyes & above_jaw & (x > landmarks[35, 0]) & ~nose & ~mouth
    return {
        "nose": nose, "mouth": mouth, "forehead": forehead, "cheek": cheek,
        "lips": lips, "eyes": eyes, "inner_mouth": inner_mouth, "skin": skin,
        "teeth": labels == TEETH, "tongue": labels == TONGUE,
    }  # fmt: skip


def _nose(vertices: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """A trapezium from the root between the eyes to the wings."""
    top, bottom = landmarks[27, 1], landmarks[31:36, 1].min() - 1
    down = np.clip((top - vertices[:, 1]) / (top - bottom), 0, 1)
    half_width = 8 + down * (landmarks[35, 0] + NOSE_MARGIN - 8)
    inside = (vertices[:, 1] <= top) & (vertices[:, 1] >= bottom)
    return inside & (np.abs(vertices[:, 0]) < half_width)


def _mouth(vertices: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """An ellipse around the lips."""
    outline = landmarks[48:60, :2]
    centre = (outline.max(0) + outline.min(0)) / 2
    radius = np.ptp(outline, axis=0) / 2 + MOUTH_MARGIN
    return (((vertices[:, :2] - centre) / radius) ** 2).sum(1) < 1


def _sample(path: object, uv: np.ndarray) -> np.ndarray:
    """Nearest texel of a mask in [0, 1] at (V, 2) texture coordinates."""
    with Image.open(path) as image:
        mask = np.asarray(image.convert("L"), np.float32) / 255
    row, column = (np.clip((uv[:, k] * mask.shape[1 - k]).astype(int), 0, mask.shape[1 - k] - 1) for k in (1, 0))
    return mask[row, column]
