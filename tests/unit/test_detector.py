"""Detection and the way from a photo to a square crop, on a real face and on made-up ones."""

import numpy as np
import pytest
import skimage.data
import torch

from fitdiff.alignment.face import FaceCrop, find_face, square_crop
from fitdiff.alignment.mtcnn import Mtcnn
from fitdiff.alignment.photo import Photo, PhotoError
from fitdiff.geometry import ndc_to_pixels
from fitdiff.types import Detection, Detector

FACE_CENTRE = (224, 117)
"""Of the astronaut."""


@pytest.fixture(scope="module")
def detector():
    return Mtcnn()


@pytest.fixture(scope="module")
def astronaut():
    return skimage.data.astronaut()


def centre(detection):
    x0, y0, x1, y1 = detection.box
    return (x0 + x1) / 2, (y0 + y1) / 2


def test_finds_the_astronaut(detector, astronaut):
    assert isinstance(detector, Detector)
    (found,) = detector(astronaut)
    assert np.hypot(*np.subtract(centre(found), FACE_CENTRE)) < 10
    assert 70 < found.box[2] - found.box[0] < 110
    assert 0.99 < found.score <= 1
    assert all(isinstance(edge, float) for edge in found.box)


def test_several_faces_come_largest_first(detector, astronaut):
    small = astronaut[:256:2, 100:356:2]
    canvas = np.concatenate([np.pad(small, ((0, 384), (0, 0), (0, 0))), astronaut], 1)
    found = detector(canvas)
    assert len(found) == 2
    areas = [(d.box[2] - d.box[0]) * (d.box[3] - d.box[1]) for d in found]
    assert areas[0] > 2 * areas[1]
    assert centre(found[0])[0] == pytest.approx(FACE_CENTRE[0] + small.shape[1], abs=10)


def test_large_photos_are_reduced_and_boxes_lead_back(detector, astronaut):
    whole, reduced = detector(astronaut)[0], Mtcnn(max_side=300)(astronaut)[0]
    np.testing.assert_allclose(reduced.box, whole.box, atol=8)


def test_small_faces_of_large_photos_are_found_at_full_size(astronaut):
    # Reduced to 90 pixels, the face has 15, less than the detector looks for.
    assert len(Mtcnn(max_side=90)(astronaut)) == 1


@pytest.mark.parametrize("shape", [(64, 64), (8, 400)])
def test_no_face_gives_an_empty_list(detector, shape):
    assert detector(np.full((*shape, 3), 128, np.uint8)) == []


def marks(centre, interocular):
    """68 landmarks of a face of that size: eye corners and jaw where they belong, the rest at the centre."""
    landmarks = np.tile(np.float32(centre), (68, 1))
    landmarks[36] -= (interocular / 2, 0)
    landmarks[45] += (interocular / 2, 0)
    landmarks[8] += (0, interocular * 1.3)
    landmarks[0] -= (interocular * 0.8, 0)
    landmarks[16] += (interocular * 0.8, 0)
    return landmarks


def found(photo, count=1, interocular=60.0, centre=(100, 90)):
    boxes = [Detection((0.0, 0.0, 50.0, 50.0), 1.0)] * count
    return find_face(photo, lambda image: boxes, lambda image, detection: marks(centre, interocular))


def photo(height=200, width=260, **more):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Photo(image, **more)


def test_nobody_is_an_error_and_several_are_a_note():
    with pytest.raises(PhotoError, match="no face found"):
        found(photo(), count=0)
    assert found(photo(notes=("dark",)), count=3).notes == ("dark", "3 faces found: the largest one is used")


def test_a_tiny_face_is_refused_with_its_size():
    with pytest.raises(PhotoError, match=r"too small, 9 pixels .* at least 12 are needed"):
        found(photo(), interocular=9)


@pytest.mark.parametrize("centre", [(100, 90), (5, 5), (255, 190)])
def test_square_crop_keeps_track_of_where_it_came_from(centre):
    face = found(photo(focal_pixels=500.0), centre=centre)
    crop = square_crop(face, 64)
    assert crop.image.shape == (1, 3, 64, 64)
    assert crop.image.min() >= 0
    assert crop.image.max() <= 1
    np.testing.assert_allclose(crop.to_photo(crop.landmarks)[0], face.landmarks, atol=1e-3)
    np.testing.assert_allclose(crop.to_photo(crop.principal_point[:, None])[0, 0], (130, 100), atol=1e-3)
    assert crop.focal.item() == pytest.approx(500 / (crop.square[0, 2].item() / 2))
    assert crop.landmarks.abs().max() < 1


def test_square_crop_pixels_lie_where_its_landmarks_say():
    image = np.zeros((200, 260, 3), np.uint8)
    image[88:93, 98:103] = 255
    face = found(Photo(image), centre=(100.5, 90.5))
    crop = square_crop(face, 128)
    column, row = ndc_to_pixels(crop.landmarks[0, 30], 128).tolist()
    rows, columns = torch.nonzero(crop.image[0, 0] > 0.5).float().add(0.5).mean(0).tolist()
    assert (column, row) == pytest.approx((columns, rows), abs=0.2)


def test_unknown_focal_length_is_nan_and_crops_join():
    a, b = square_crop(found(photo()), 32), square_crop(found(photo(focal_pixels=400.0)), 32)
    both = FaceCrop.cat([a, b])
    assert both.image.shape == (2, 3, 32, 32)
    assert both.focal.isnan().tolist() == [True, False]
