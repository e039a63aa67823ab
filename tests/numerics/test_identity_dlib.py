"""identity=dlib against dlib itself: network, template and the whole way from photo to embedding."""

from functools import cache

import dlib
import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from fitdiff.alignment.crop import crop, crop_transform
from fitdiff.geometry import ndc_to_pixels, pixels_to_ndc
from fitdiff.identity.dlib_resnet import FILE, PACKAGE, DlibResNet
from fitdiff.weights import package_folder

FACE = (179, 83, 266, 170)
"""dlib's own detection in the 512 x 512 astronaut."""


@pytest.fixture(scope="module")
def network():
    return DlibResNet()


@pytest.fixture(scope="module")
def reference():
    return dlib.face_recognition_model_v1(str(package_folder(PACKAGE) / FILE))


@cache
def face(scale):
    """Photo at a scale, dlib's landmarks in it, and dlib's chip."""
    side = round(512 * scale)
    image = np.asarray(Image.fromarray(skimage.data.astronaut()).resize((side, side), Image.Resampling.LANCZOS))
    predictor = dlib.shape_predictor(str(package_folder(PACKAGE) / "models/shape_predictor_68_face_landmarks.dat"))
    shape = predictor(image, dlib.rectangle(*(round(edge * scale) for edge in FACE)))
    landmarks = torch.tensor([[p.x + 0.5, p.y + 0.5] for p in shape.parts()])
    return to_tensor(image), pixels_to_ndc(landmarks, side)[None], shape, dlib.get_face_chip(image, shape)


def to_tensor(image):
    return torch.tensor(np.asarray(image)).permute(2, 0, 1)[None] / 255


@pytest.mark.parametrize("scale", [0.7, 1.32])
def test_embeddings_equal_dlibs(network, reference, scale):
    chip = face(scale)[3]
    expected = torch.tensor(list(reference.compute_face_descriptor(chip)))
    assert (network(to_tensor(chip)).embedding[0] - expected).abs().max() < 1e-5


def test_embeddings_of_other_images_equal_dlibs(network, reference):
    noise = np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8)
    expected = torch.tensor(list(reference.compute_face_descriptor(noise)))
    assert (network(to_tensor(noise)).embedding[0] - expected).abs().max() < 1e-5


def test_crop_equals_dlibs_chip_at_equal_resolution(network):
    # dlib spaces the pixels of its chip (150 s - 1) / 149 apart, s the scale that it announces, so only at s = 1 is its
    # chip the crop that its own template asks for. Its pixels are truncated, which costs half a grey level.
    image, landmarks, shape, chip = face(1.32)
    assert dlib.get_face_chip_details(shape, 150, 0.25).rect.width() == pytest.approx(150, abs=0.7)
    ours = crop(image, crop_transform(network, landmarks), 150)
    difference = (ours - to_tensor(chip)) * 255
    assert difference.mean() == pytest.approx(0.5, abs=0.05)
    assert difference.abs().max() < 1.5
    assert (network(ours).embedding - network(to_tensor(chip)).embedding).norm() < 0.01


@pytest.mark.parametrize(("scale", "tolerance"), [(0.7, 0.03), (1.0, 0.015), (2.0, 0.02)])
def test_embedding_of_our_crop_is_near_dlibs(network, scale, tolerance):
    image, landmarks, _, chip = face(scale)
    ours = crop(image, crop_transform(network, landmarks), 150)
    # Two photos of one person lie within 0.6.
    assert (network(ours).embedding - network(to_tensor(chip)).embedding).norm() < tolerance


def test_template_equals_dlibs_chip_geometry(network):
    # Large whole-numbered landmarks, because dlib rounds them.
    generator = np.random.default_rng(0)
    size = 1_000_000
    points = generator.integers(size // 4, 3 * size // 4, (68, 2))
    shape = dlib.full_object_detection(dlib.rectangle(0, 0, 9, 9), [dlib.point(int(x), int(y)) for x, y in points])
    details = dlib.get_face_chip_details(shape, 150, 0.25)
    landmarks = pixels_to_ndc(torch.tensor(points + 0.5, dtype=torch.float64), size)[None]
    transform = crop_transform(network, landmarks)[0]
    centre = ndc_to_pixels(transform[:, 2], size) - 0.5
    assert torch.allclose(centre, torch.tensor([details.rect.center().x, details.rect.center().y]).double(), atol=1)
    side = transform[:, 0].norm().item() * size
    assert side == pytest.approx(details.rect.width(), rel=1e-5)
    assert torch.atan2(-transform[1, 0], transform[0, 0]).item() == pytest.approx(details.angle, abs=1e-5)
