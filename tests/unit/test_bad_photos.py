"""Every one of 300 bad photos ends in a usable face or in one clear line; nothing hangs, nothing is a traceback."""

import os
import time

import numpy as np
import pytest
from PIL import ExifTags, Image

from fitdiff.alignment.dlib68 import Dlib68
from fitdiff.alignment.face import SMALLEST_INTEROCULAR, find_face, square_crop
from fitdiff.alignment.mtcnn import Mtcnn
from fitdiff.alignment.photo import LARGEST_SIDE, PhotoError, load_photo
from tests.bad_photos import astronaut, bad_photos

SLOWEST = 30.0
"""Seconds of processor time: a hundred times what a usual photo takes, and a tenth of what a hang would be."""

USABLE = (
    "overwritten-0.jpg", "mode-P.png", "mode-CMYK.jpg", "nan-0.01.tif", "uint16.tif", "float16.tif", "animated.gif",
    "is-a-png.jpg", "orientation-1.jpg", "orientation-65535.jpg", "focal-65535.jpg", "icc-noise-3.jpg",
    "exif-noise-3.jpg", "large-face.jpg", "small-160.png", "crop-tight.png", "fifty-faces.png",
)  # fmt: skip
"""Odd photos in which a person sees a face that is large enough."""

HOPELESS = (
    "cut-0.jpg", "cut-4.png", "says-30000.png", "says-30000.bmp", "says-100000.tif", "bomb.png", "brick.png",
    "noise-300.png", "blank-300-255.png", "tiny-1x1.png", "crop-mouth.png", "back-of-the-head.png", "nan-1.0.tif",
    "invisible.png", "volume.tif", "complex.tif", "empty.png", "text.jpg", "folder.jpg", "loop.jpg", "nowhere.jpg",
    "pipe.jpg", "long.png",
)  # fmt: skip
"""Photos in which nobody could find a face, or no photos."""


@pytest.fixture(scope="module")
def parts():
    return Mtcnn(), Dlib68()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, parts):
    """Name -> the face, or the message; every file is written, read and deleted."""
    folder = tmp_path_factory.mktemp("bad")
    results = {}
    for name, write in bad_photos().items():
        path = folder / name
        write(path)
        start = time.process_time()
        try:
            results[name] = find_face(load_photo(path), *parts)
        except PhotoError as error:
            results[name] = str(error).removeprefix(f"{path}: ")
        assert time.process_time() - start < SLOWEST, name
        path.rmdir() if path.is_dir() else path.unlink()
    return results


def test_three_hundred_photos_are_read_or_refused(outcomes):
    assert len(outcomes) >= 300
    for name, outcome in outcomes.items():
        if isinstance(outcome, str):
            assert 10 < len(outcome) < 300, name
            assert "\n" not in outcome, name
        else:
            crop = square_crop(outcome, 64)
            assert crop.image.isfinite().all(), name
            assert outcome.interocular >= SMALLEST_INTEROCULAR, name
            assert max(outcome.photo.image.shape) <= LARGEST_SIDE, name


@pytest.mark.parametrize("name", USABLE)
def test_what_a_person_can_use_is_used(outcomes, name):
    assert not isinstance(outcomes[name], str), outcomes[name]


@pytest.mark.parametrize("name", HOPELESS)
def test_what_nobody_can_use_is_refused(outcomes, name):
    assert isinstance(outcomes[name], str)


def test_all_orientations_give_the_same_face(outcomes):
    # The stored pixels are the same, so the upright picture is found only where the orientation is 1 or unknown.
    upright = [outcomes[f"orientation-{value}.jpg"] for value in (0, 1, 9, 65535)]
    assert len({face.detection.box for face in upright}) == 1


def test_a_large_photo_is_reduced_and_its_focal_length_with_it(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = 35
    large = astronaut().resize((6000, 3000))
    large.save(tmp_path / "large.jpg", exif=exif)
    large.save(tmp_path / "large.png")
    photo, lossless = load_photo(tmp_path / "large.jpg"), load_photo(tmp_path / "large.png")
    assert photo.image.shape == lossless.image.shape == (LARGEST_SIDE // 2, LARGEST_SIDE, 3)
    assert photo.focal_pixels / LARGEST_SIDE == pytest.approx(35 * np.hypot(2, 1) / 2 / np.hypot(36, 24), rel=1e-3)


def test_doubtful_faces_are_told(outcomes):
    for name in ("drawing-8.png", "turned-210.jpg"):
        assert "not sure" in outcomes[name].notes[0]
    assert outcomes["crop-lower-border.png"].notes == ()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_told(tmp_path):
    path = tmp_path / "secret.png"
    astronaut().save(path)
    path.chmod(0)
    with pytest.raises(PhotoError, match="Permission denied"):
        load_photo(path)


def test_a_name_that_is_too_long_is_told(tmp_path):
    with pytest.raises(PhotoError, match="too long"):
        load_photo(tmp_path / ("x" * 300))
