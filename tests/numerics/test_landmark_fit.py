"""The classical 3DMM fit on a linear model whose answer is known."""

from types import SimpleNamespace

import pytest
import torch

from fitdiff.evaluation.landmark_fit import JAW_WEIGHT, N_JAW, fit_identity, fit_landmarks
from fitdiff.geometry import project, rotation_matrix, to_camera_space
from fitdiff.types import Camera

K, E, BATCH = 10, 3, 4


class LinearHead:
    """68 points that are their own landmarks, moved by K components and E expressions, in mm."""

    n_identity, n_expression = K, E

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.mean = torch.randn(68, 3, generator=generator) * torch.tensor([35.0, 45.0, 22.0])
        self.components = torch.randn(K, 68, 3, generator=generator) * 2
        self.expressions = torch.randn(E, 68, 3, generator=generator) * 3
        self.topology = SimpleNamespace(landmarks=lambda vertices: vertices)

    def __call__(self, identity, expression=None):
        vertices = self.mean + torch.einsum("bk,knc->bnc", identity, self.components)
        return vertices if expression is None else vertices + torch.einsum("be,enc->bnc", expression, self.expressions)


@pytest.fixture
def head():
    return LinearHead()


@pytest.fixture
def setting(head):
    generator = torch.Generator().manual_seed(1)
    identity = torch.randn(BATCH, K, generator=generator)
    expression = torch.rand(BATCH, E, generator=generator) * 0.5
    angles = (torch.rand(BATCH, 3, generator=generator) - 0.5) * torch.tensor([0.4, 1.2, 0.3])
    focal = torch.full((BATCH,), 4.0)
    camera = Camera(angles, torch.tensor([[5.0, -3.0, -700.0]]).expand(BATCH, -1), focal, torch.zeros(BATCH, 2))
    landmarks = project(to_camera_space(head(identity, expression), camera), camera)
    return identity, expression, camera, landmarks


def test_identity_comes_back_where_landmarks_are_trusted(head, setting):
    identity, expression, camera, landmarks = setting
    assert torch.allclose(fit_identity(head, landmarks, camera, expression, noise=0.01), identity, atol=0.02)


def test_untrusted_landmarks_leave_the_mean(head, setting):
    _, expression, camera, landmarks = setting
    assert fit_identity(head, landmarks, camera, expression, noise=1e4).abs().max() < 1e-3


def test_it_is_the_minimum_of_its_objective(head, setting):
    _, expression, camera, landmarks = setting
    noise = 2.0
    weights = torch.ones(68, dtype=torch.float64)
    weights[:N_JAW] = JAW_WEIGHT

    def objective(code):
        points = head(code, expression) @ rotation_matrix(camera.rotation).mT + camera.translation[:, None]
        rays = (landmarks - camera.principal_point[:, None]) / camera.focal[:, None, None]
        offset = points[..., :2] + points[..., 2:] * rays
        return (weights * offset.square().sum(-1)).sum() / noise**2 + code.square().sum()

    found = fit_identity(head, landmarks, camera, expression, noise).requires_grad_(True)
    (gradient,) = torch.autograd.grad(objective(found), found)
    start = torch.zeros_like(found).requires_grad_(True)
    (at_start,) = torch.autograd.grad(objective(start), start)
    assert gradient.norm() < 1e-3 * at_start.norm()


def test_pose_and_identity_together_explain_the_landmarks(head, setting):
    identity, _, camera, landmarks = setting
    code, found, expression = fit_landmarks(head, landmarks, camera.focal, camera.principal_point, noise=0.5)
    ours = project(to_camera_space(head(code, expression), found), found)
    mean = project(to_camera_space(head(torch.zeros_like(code)), camera), camera)
    assert (ours - landmarks).norm(dim=2).mean() < 0.2 * (mean - landmarks).norm(dim=2).mean()
    assert (code - identity).norm() < 0.7 * identity.norm()
