"""Real faces in photographs that installed packages ship, and how far synthetic people are from them.

Every file keeps its own licence; nothing is copied. Photos without a stated licence are measured where their package is
installed, and are never in a picture that is published here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.distance import cdist

from fitdiff.alignment.crop import crop, crop_transform
from fitdiff.alignment.face import SMALLEST_INTEROCULAR, DetectedFace, square_crop
from fitdiff.alignment.photo import load_photo
from fitdiff.evaluation.shipped_photos import SHIPPED
from fitdiff.registry import build, config_of
from fitdiff.types import Detector, IdentityNetwork, LandmarkDetector

CROP_SIZE = 224
USABLE = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True)
class RealFace:
    """One face of a photo.

    Attributes:
        name: of the photo, with a number where it shows several faces. licence, free: of the photo.
        image: (S, S, 3) uint8 sRGB, the square around the face. embedding: (D,).
    """

    name: str
    licence: str
    free: bool
    image: np.ndarray
    embedding: np.ndarray


@dataclass(frozen=True)
class PhotoFace:
    """One face: `name` of its photo, with a number where that shows several; `licence`, `free` of the photo."""

    name: str
    licence: str
    free: bool
    face: DetectedFace


def photo_faces(detector: Detector, landmark_detector: LandmarkDetector, folder: Path | None) -> list[PhotoFace]:
    """Every usable face of the shipped photos, and of the user's own in `folder`."""
    faces = []
    for path, licence, free in _paths(folder):
        photo = load_photo(path)
        usable = [(d, landmark_detector(photo.image, d)) for d in detector(photo.image)]
        usable = [(d, p) for d, p in usable if np.linalg.norm(p[36] - p[45]) >= SMALLEST_INTEROCULAR]
        for number, (detection, points) in enumerate(usable, 1):
            name = path.stem + (f" {number}" if len(usable) > 1 else "")
            faces.append(PhotoFace(name, licence, free, DetectedFace(photo, detection, points)))
    return faces


def real_faces(identity: IdentityNetwork, detector: Detector, folder: Path | None) -> list[RealFace]:
    """What `photo_faces` finds, cut out and embedded."""
    faces = []
    for found in photo_faces(detector, build(config_of("landmarks", "dlib68"), "landmarks"), folder):
        square = square_crop(found.face, CROP_SIZE)
        with torch.inference_mode():
            aligned = crop(square.image, crop_transform(identity, square.landmarks), identity.size)
            embedding = identity(aligned).embedding[0].numpy()
        pixels = (square.image[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        faces.append(RealFace(found.name, found.licence, found.free, pixels, embedding))
    return faces


def _paths(folder: Path | None) -> list[tuple[Path, str, bool]]:
    found = [(source.find(), source.licence, source.free) for source in SHIPPED]
    own = sorted(p for p in folder.iterdir() if p.suffix.lower() in USABLE) if folder else []
    return [item for item in found if item[0].is_file()] + [(path, "yours", False) for path in own]


@dataclass(frozen=True)
class Nearest:
    """The nearest synthetic portraits of each of F faces.

    Attributes:
        distance: (F, k) ascending. person, view: (F, k), of different people.
    """

    distance: np.ndarray
    person: np.ndarray
    view: np.ndarray


def nearest_people(embedding_FD: np.ndarray, people_NVD: np.ndarray, k: int) -> Nearest:
    """The k nearest people of each face, each by the nearest of their portraits."""
    n, views, _ = people_NVD.shape
    distance = cdist(embedding_FD, people_NVD.reshape(n * views, -1)).reshape(-1, n, views)
    person = distance.min(2).argsort(1, kind="stable")[:, :k]
    of_person = np.take_along_axis(distance, person[:, :, None], 1)
    return Nearest(of_person.min(2), person, of_person.argmin(2))
