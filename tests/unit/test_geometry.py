"""Rotations against scipy, the projection of known points, and image space against NDC."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from fitdiff import geometry
from fitdiff.types import Camera


def camera(batch=1, focal=2.0, **changes):
    values = {
        "rotation": torch.zeros(batch, 3, dtype=torch.float64),
        "translation": torch.tensor([[0.0, 0.0, -100.0]], dtype=torch.float64).repeat(batch, 1),
        "focal": torch.full((batch,), focal, dtype=torch.float64),
        "principal_point": torch.zeros(batch, 2, dtype=torch.float64),
    }
    return Camera(**(values | changes))


def test_rotation_matches_scipy():
    torch.manual_seed(0)
    axis_angle = torch.randn(50, 3, dtype=torch.float64) * torch.logspace(-8, 0.5, 50, dtype=torch.float64)[:, None]
    expected = Rotation.from_rotvec(axis_angle.numpy()).as_matrix()
    assert np.allclose(geometry.rotation_matrix(axis_angle), expected, atol=1e-12)


def test_rotation_by_zero_is_the_identity_with_the_right_gradient():
    zero = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    assert torch.equal(geometry.rotation_matrix(zero)[0], torch.eye(3, dtype=torch.float64))
    assert torch.autograd.gradcheck(geometry.rotation_matrix, zero)


def test_rotation_gradient():
    axis_angle = torch.tensor([[0.3, -1.2, 0.5], [1e-5, 0, 2e-5]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(geometry.rotation_matrix, axis_angle)


def test_to_camera_space_rotates_then_translates():
    # A quarter turn about +y carries the subject's +z (out of the face) to +x, the right of the image.
    turned = camera(rotation=torch.tensor([[0.0, torch.pi / 2, 0.0]], dtype=torch.float64))
    nose = torch.tensor([[[0.0, 5.0, 10.0]]], dtype=torch.float64)
    expected = torch.tensor([[[10.0, 5.0, -100.0]]], dtype=torch.float64)
    assert torch.allclose(geometry.to_camera_space(nose, turned), expected)


def test_projection_of_known_points():
    # Depth 100, focal 2: 50 mm off the axis is the image's border.
    points = torch.tensor([[[0, 0, -100], [50, 0, -100], [0, 50, -100], [-25, 10, -50]]], dtype=torch.float64)
    expected = torch.tensor([[[0, 0], [1, 0], [0, 1], [-1, 0.4]]], dtype=torch.float64)
    assert torch.allclose(geometry.project(points, camera()), expected)
    shifted = camera(principal_point=torch.tensor([[0.1, -0.2]], dtype=torch.float64))
    assert torch.allclose(geometry.project(points, shifted), expected + shifted.principal_point)


def test_focal_length_is_the_field_of_view():
    half_angle = 0.3
    on_the_border = torch.tensor([[[np.tan(half_angle), 0, -1.0]]], dtype=torch.float64)
    assert geometry.project(on_the_border, camera(focal=1 / np.tan(half_angle)))[0, 0, 0] == pytest.approx(1)


def test_corners_of_the_image():
    corners = torch.tensor([[0.0, 0.0], [64.0, 64.0], [0.5, 0.5]])
    assert torch.allclose(
        geometry.pixels_to_ndc(corners, 64), torch.tensor([[-1.0, 1.0], [1.0, -1.0], [-1 + 1 / 64, 1 - 1 / 64]])
    )


def test_pixels_round_trip():
    torch.manual_seed(0)
    points = torch.rand(3, 7, 2, dtype=torch.float64) * 300 - 50
    assert torch.allclose(geometry.ndc_to_pixels(geometry.pixels_to_ndc(points, 224), 224), points)
    assert torch.allclose(geometry.pixels_to_ndc(geometry.ndc_to_pixels(points, 91.5), 91.5), points)


def test_batch_items_use_their_own_camera():
    torch.manual_seed(0)
    cameras = replace(camera(3, rotation=torch.randn(3, 3).double()), focal=torch.tensor([1.0, 2.0, 3.0]).double())
    points = torch.randn(3, 5, 3, dtype=torch.float64)
    together = geometry.project(geometry.to_camera_space(points, cameras), cameras)
    for i in range(3):
        one = cameras[i : i + 1]
        assert torch.allclose(geometry.project(geometry.to_camera_space(points[i : i + 1], one), one)[0], together[i])
