"""From a photo to one face: who is meant, where it is, and the square around it that fitting works on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitdiff.alignment.crop import cut_square
from fitdiff.alignment.photo import Photo, PhotoError
from fitdiff.geometry import pixels_to_ndc
from fitdiff.types import Detection, Detector, LandmarkDetector, TensorRecord

SMALLEST_INTEROCULAR = 12.0
OUTER_EYE_CORNERS = (36, 45)
SURE = 0.985
"""Score of MTCNN below which a face is doubtful. Seven real faces score 0.994 or more, 97% of 126 synthetic portraits
of 128 pixels more than this; faces that lie on their side, and drawings, 0.92 to 0.98 with few exceptions."""


@dataclass(frozen=True)
class DetectedFace:
    """One face of a photo.

    Attributes:
        photo: the whole photo.
        detection: its box in pixels.
        landmarks: (68, 2) float32, image space of the photo.
        notes: what was decided on the way, in plain words.
    """

    photo: Photo
    detection: Detection
    landmarks: NDArray[np.float32]
    notes: tuple[str, ...] = ()

    @property
    def interocular(self) -> float:
        """Distance of the outer eye corners in pixels."""
        left, right = self.landmarks[list(OUTER_EYE_CORNERS)]
        return float(np.linalg.norm(right - left))


@dataclass(frozen=True)
class FaceCrop(TensorRecord):
    """Square crop around a face. Records of several photos join by `FaceCrop.cat`.

    Attributes:
        image: (B, 3, S, S) float32 sRGB in [0, 1].
        landmarks: (B, 68, 2) NDC of the crop.
        principal_point: (B, 2) NDC of the crop: where the optical axis of the photo, its centre, lies.
        focal: (B,) from EXIF, in NDC of the crop (half its side is 1); NaN where the photo does not say.
        square: (B, 3) left, top and side of the crop in pixels of the photo.
    """

    image: Tensor
    landmarks: Tensor
    principal_point: Tensor
    focal: Tensor
    square: Tensor

    def to_photo(self, points_BN2: Tensor) -> Tensor:
        """Points in NDC of the crop -> pixels of the whole photo. (B, N, 2) -> (B, N, 2)."""
        left_top, side = self.square[:, None, :2], self.square[:, None, 2:]
        return left_top + (points_BN2 * points_BN2.new_tensor([1.0, -1.0]) + 1) * side / 2


def find_face(photo: Photo, detector: Detector, landmark_detector: LandmarkDetector) -> DetectedFace:
    """Find the largest face of a photo and its landmarks.

    Raises:
        PhotoError: no face, or one whose outer eye corners are less than 12 pixels apart.
    """
    return find_faces(photo, detector, landmark_detector)[0]


def find_faces(
    photo: Photo, detector: Detector, landmark_detector: LandmarkDetector, which: str | int = "largest"
) -> list[DetectedFace]:
    """Find faces of a photo and their landmarks.

    Args:
        which: "largest"; "all" that are large enough, largest first; or a number, of which 1 is the largest.

    Raises:
        PhotoError: no such face, or one whose outer eye corners are less than 12 pixels apart.
        ValueError: `which` is something else.
    """
    if which not in ("largest", "all") and not (isinstance(which, int) and which >= 1):
        raise ValueError(f"got faces={which!r}, expected largest, all, or a number from 1")
    detections = detector(photo.image)
    if not detections:
        raise PhotoError(f"{photo.path}: no face found; use an upright photo in which both eyes can be seen")
    count = len(detections)
    if which == "all":
        faces = [_with_landmarks(photo, detection, landmark_detector) for detection in detections]
        large = [face for face in faces if face.interocular >= SMALLEST_INTEROCULAR]
        small = (f"{count - len(large)} of {count} faces are too small and left out",) if len(large) < count else ()
        if large:
            return [replace(face, notes=face.notes + small) for face in large]
        which = "largest"
    number = 1 if which == "largest" else int(which)
    if number > count:
        raise PhotoError(f"{photo.path}: face {number} of {count} was asked for; give faces=1 to {count}, or all")
    others = (f"{count} faces found: the largest one is used",) if count > 1 and which == "largest" else ()
    face = _with_landmarks(photo, detections[number - 1], landmark_detector)
    if face.interocular < SMALLEST_INTEROCULAR:
        raise PhotoError(
            f"{photo.path}: the face is too small, {face.interocular:.0f} pixels between the eyes' outer corners; at "
            f"least {SMALLEST_INTEROCULAR:.0f} are needed, 60 or more give a good fit"
        )
    return [replace(face, notes=face.notes + others)]


def _with_landmarks(photo: Photo, detection: Detection, landmark_detector: LandmarkDetector) -> DetectedFace:
    doubt = f"not sure that this is an upright face (detector score {detection.score:.2f}): look at the result"
    notes = photo.notes if detection.score >= SURE else (*photo.notes, doubt)
    return DetectedFace(photo, detection, landmark_detector(photo.image, detection), notes)


def square_crop(face: DetectedFace, size: int, margin: float = 0.3, rise: float = 0.15) -> FaceCrop:
    """Cut the square in which a face is fitted.

    Args:
        face: of any photo; beyond the photo's border its edge pixels are repeated.
        size: side S of the result in pixels, resampled with antialiasing.
        margin: room on each side, as a part of the longer side of the landmarks' box.
        rise: how far the centre sits above that of the landmarks' box, likewise: the forehead has no landmarks.

    Returns:
        A batch of one.
    """
    low, high = face.landmarks.min(0), face.landmarks.max(0)
    extent = float((high - low).max())
    side = extent * (1 + 2 * margin)
    x, y = (low + high) / 2
    left, top = float(x) - side / 2, float(y) - rise * extent - side / 2
    pixels = torch.from_numpy(cut_square(face.photo.image, left, top, side, size).copy())
    height, width = face.photo.image.shape[:2]

    def to_ndc(points: object) -> Tensor:
        return pixels_to_ndc(torch.as_tensor(points, dtype=torch.float32) - torch.tensor([left, top]), side)[None]

    focal = face.photo.focal_pixels
    return FaceCrop(
        image=pixels.permute(2, 0, 1)[None] / 255,
        landmarks=to_ndc(face.landmarks),
        principal_point=to_ndc([width / 2, height / 2]),
        focal=torch.tensor([float("nan") if focal is None else focal * 2 / side]),
        square=torch.tensor([[left, top, side]]),
    )
