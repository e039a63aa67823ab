"""First camera and expression from landmarks: known poses come back, noise does little, batches equal their items."""

import math
from types import SimpleNamespace

import pytest
import torch
from scipy.optimize import lsq_linear
from scipy.spatial.transform import Rotation

from fitdiff.alignment.camera import (
    _box_least_squares,
    axis_angle,
    estimate_camera,
    estimate_focal,
    estimate_pose_and_expression,
)
from fitdiff.geometry import project, rotation_matrix, to_camera_space
from fitdiff.types import Camera

BATCH = 16


@pytest.fixture
def head():
    """Points with the spread of a face's landmarks: 70 x 90 x 45 mm."""
    torch.manual_seed(0)
    return torch.randn(68, 3) * torch.tensor([35.0, 45.0, 22.0])


@pytest.fixture
def camera():
    torch.manual_seed(1)
    angles = (torch.rand(BATCH, 3) * 2 - 1) * torch.tensor([0.4, 1.0, 0.6])
    focal = torch.rand(BATCH) * 6 + 1.5
    # About half of the image is filled, as in a crop.
    translation = torch.cat([torch.randn(BATCH, 2) * 20, -focal[:, None] * 150], 1)
    return Camera(angles, translation, focal, torch.randn(BATCH, 2) * 0.4)


def landmarks_of(head, camera):
    points = head.expand(len(camera.focal), -1, -1) if head.ndim == 2 else head
    return project(to_camera_space(points, camera), camera)


def degrees_apart(a, b):
    relative = rotation_matrix(a.rotation.double()) @ rotation_matrix(b.rotation.double()).mT
    return axis_angle(relative).norm(dim=1) * 180 / math.pi


def test_known_poses_come_back(head, camera):
    found = estimate_camera(head, landmarks_of(head, camera), camera.focal, camera.principal_point)
    assert degrees_apart(found, camera).max() < 0.05
    assert ((found.translation - camera.translation).norm(dim=1) / camera.translation[:, 2].abs()).max() < 1e-3
    assert torch.equal(found.focal, camera.focal)
    assert torch.equal(found.principal_point, camera.principal_point)


def test_one_percent_noise_moves_the_pose_by_about_half_a_degree(head, camera):
    torch.manual_seed(2)
    landmarks = landmarks_of(head, camera)
    noisy = landmarks + 0.005 * torch.randn_like(landmarks)
    found = estimate_camera(head, noisy, camera.focal, camera.principal_point)
    assert degrees_apart(found, camera).median() < 0.5
    assert ((found.translation - camera.translation)[:, 2] / camera.translation[:, 2]).abs().max() < 0.01


def test_a_jaw_off_by_a_tenth_of_the_image_weighs_little(head, camera):
    landmarks = landmarks_of(head, camera)
    jaw, inner = landmarks.clone(), landmarks.clone()
    jaw[:, 3:8, 0] += 0.1
    inner[:, 33:38, 0] += 0.1
    errors = [
        degrees_apart(estimate_camera(head, x, camera.focal, camera.principal_point), camera).mean()
        for x in (jaw, inner)
    ]
    assert errors[0] < 0.5 * errors[1]


def test_the_result_is_a_minimum_of_the_reprojection_error(head, camera):
    torch.manual_seed(3)
    landmarks = (landmarks_of(head, camera) + 0.02 * torch.randn(BATCH, 68, 2)).double()
    doubled = camera.map(torch.Tensor.double)
    found = estimate_camera(head, landmarks, doubled.focal, doubled.principal_point, iterations=30)
    weights = torch.ones(68).double()
    weights[:17] = 0.3

    def cost(rotation, translation):
        projected = landmarks_of(head.double(), Camera(rotation, translation, found.focal, found.principal_point))
        # In rays: per photo the focal length is a constant factor.
        return ((projected - landmarks).square().sum(-1) @ weights).sum()

    gradients = torch.autograd.functional.jacobian(cost, (found.rotation, found.translation))
    assert gradients[0].abs().max() < 1e-5
    assert gradients[1].abs().max() < 1e-6


def test_a_batch_equals_its_items(head, camera):
    torch.manual_seed(4)
    landmarks = landmarks_of(head, camera) + 0.01 * torch.randn(BATCH, 68, 2)
    together = estimate_camera(head, landmarks, camera.focal, camera.principal_point)
    for i in range(0, BATCH, 5):
        one = slice(i, i + 1)
        alone = estimate_camera(head, landmarks[one], camera.focal[one], camera.principal_point[one])
        assert torch.allclose(together.rotation[one], alone.rotation, atol=1e-6)
        assert torch.allclose(together.translation[one], alone.translation, rtol=1e-6)


def test_axis_angle_equals_scipys_up_to_half_a_turn():
    torch.manual_seed(5)
    axes = torch.nn.functional.normalize(torch.randn(50, 3).double(), dim=1)
    vectors = axes * torch.cat([torch.tensor([0.0, 1e-9]), torch.linspace(0.01, math.pi - 1e-6, 48)]).double()[:, None]
    rotations = rotation_matrix(vectors)
    reference = torch.tensor(Rotation.from_matrix(rotations.numpy()).as_rotvec())
    assert torch.allclose(axis_angle(rotations), reference, atol=1e-9)


def test_focal_prior_puts_the_face_a_metre_away(head, camera):
    landmarks = landmarks_of(head, camera)
    focal = estimate_focal(head, landmarks)
    depth = camera.translation[:, 2].abs() * focal / camera.focal
    assert torch.allclose(depth, torch.full_like(depth, 1000.0), rtol=0.1)


def test_plausible_exif_is_believed_and_a_later_crop_is_not(head, camera):
    landmarks = landmarks_of(head, camera)
    prior = estimate_focal(head, landmarks)
    unknown = torch.full_like(camera.focal, float("nan"))
    assert torch.equal(estimate_focal(head, landmarks, unknown), prior)
    assert torch.equal(estimate_focal(head, landmarks, prior * 0.1), prior)
    assert torch.equal(estimate_focal(head, landmarks, prior * 0.5), prior * 0.5)


class ToyShapeModel:
    """Landmarks are the vertices; six actions, each of which moves a few landmarks."""

    n_identity, n_expression = 3, 6
    topology = SimpleNamespace(landmarks=lambda vertices: vertices)

    def __init__(self, mean):
        generator = torch.Generator().manual_seed(0)
        self.mean = mean
        self.actions = torch.zeros(6, 68, 3)
        self.actions[:, 36:] = torch.randn(6, 32, 3, generator=generator) * 6
        self.people = torch.randn(3, 68, 3, generator=generator) * 2

    def __call__(self, identity, expression=None):
        vertices = self.mean + torch.einsum("bk,knc->bnc", identity, self.people)
        return vertices if expression is None else vertices + torch.einsum("be,enc->bnc", expression, self.actions)


def test_expression_and_pose_come_back_together(head, camera):
    model = ToyShapeModel(head)
    torch.manual_seed(6)
    expression = torch.rand(BATCH, 6) * (torch.rand(BATCH, 6) > 0.5)
    identity = torch.randn(BATCH, 3)
    landmarks = landmarks_of(model(identity, expression), camera)
    found, weights = estimate_pose_and_expression(
        model, landmarks, camera.focal, camera.principal_point, identity, ridge=1e-3, sparsity=0.0, rounds=20
    )
    assert (weights - expression).abs().max() < 0.05
    assert degrees_apart(found, camera).max() < 0.5


def test_expression_stays_in_its_box_and_neutral_faces_stay_neutral(head, camera):
    model = ToyShapeModel(head)
    torch.manual_seed(7)
    neutral = landmarks_of(model(torch.zeros(BATCH, 3)), camera)
    noisy = neutral + 0.004 * torch.randn_like(neutral)
    _, weights = estimate_pose_and_expression(model, noisy, camera.focal, camera.principal_point)
    assert weights.max() < 0.05
    beyond = landmarks_of(model(torch.zeros(BATCH, 3), torch.full((BATCH, 6), 3.0)), camera)
    _, weights = estimate_pose_and_expression(model, beyond, camera.focal, camera.principal_point)
    assert weights.min() >= 0
    assert weights.max() <= 1
    assert weights.mean() > 0.8


def test_a_model_without_expressions_gives_none(head, camera):
    model = ToyShapeModel(head)
    model.n_expression = 0
    found, weights = estimate_pose_and_expression(
        model, landmarks_of(head, camera), camera.focal, camera.principal_point
    )
    assert weights.shape == (BATCH, 0)
    assert degrees_apart(found, camera).max() < 0.05


def test_box_least_squares_equals_scipys():
    torch.manual_seed(8)
    design, target = torch.randn(3, 30, 8).double(), torch.randn(3, 30).double() * 3
    ours = _box_least_squares(design.mT @ design, (design.mT @ target[..., None])[..., 0], 1000)
    for x, a, b in zip(ours, design, target, strict=True):
        reference = lsq_linear(a.numpy(), b.numpy(), (0, 1), tol=1e-12).x
        assert torch.allclose(x, torch.tensor(reference), atol=1e-5)
