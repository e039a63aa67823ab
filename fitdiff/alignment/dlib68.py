"""68 landmarks by dlib's regression trees (Kazemi & Sullivan 2014).

The weights of the package `face_recognition_models` were trained on iBUG 300-W, whose licence excludes commercial use.
Good on faces up to about 30 degrees of yaw, wrong on three-quarter views.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fitdiff.registry import register
from fitdiff.types import Detection
from fitdiff.weights import WeightsSource, find_weights, package_folder

PREDICTOR = WeightsSource(
    what="dlib's 68-point shape predictor",
    files=("shape_predictor_68_face_landmarks.dat",),
    licence="trained on iBUG 300-W: non-commercial",
    origin="the package face_recognition_models or http://dlib.net/files",
    option="landmarks.weights",
)

BOX_SIDE, BOX_DROP = 0.945, 0.065
"""dlib's own square box against MTCNN's, in units of the root of the latter's area: side, and how much lower it sits.

Measured on 96 detections that both made (one photo at 6 sizes, 3 angles, mirrored; 20 synthetic people at 3 sizes):
side .93 to .96 +- .07, drop .06 to .07 +- .035. The predictor was trained inside boxes of dlib's detector.
"""


@register("landmarks", "dlib68")
class Dlib68:
    """dlib's 68 landmarks (landmarks=dlib68).

    Args:
        weights: "auto" (the installed package's file) or a path.

    Raises:
        FileNotFoundError: the file is missing.
    """

    def __init__(self, *, weights: str = "auto") -> None:
        import dlib

        packaged = package_folder("face_recognition_models") / "models" / PREDICTOR.files[0]
        self.predictor = dlib.shape_predictor(str(packaged if weights == "auto" else find_weights(weights, PREDICTOR)))
        self._rectangle = dlib.rectangle

    def __call__(self, image_HW3: NDArray[np.uint8], detection: Detection) -> NDArray[np.float32]:
        """uint8 sRGB (H, W, 3) and an MTCNN-style box -> (68, 2) float32 in image space (whole pixels' centres)."""
        x0, y0, x1, y1 = detection.box
        scale = ((x1 - x0) * (y1 - y0)) ** 0.5
        x, y, half = (x0 + x1) / 2, (y0 + y1) / 2 + BOX_DROP * scale, BOX_SIDE * scale / 2
        box = self._rectangle(*(round(edge) for edge in (x - half, y - half, x + half, y + half)))
        parts = self.predictor(np.ascontiguousarray(image_HW3), box).parts()
        # dlib counts from the centre of the first pixel, image space from its corner.
        return np.array([(part.x + 0.5, part.y + 0.5) for part in parts], np.float32)
