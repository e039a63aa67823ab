"""Rival methods on problems whose answer is known."""

from types import SimpleNamespace

import pytest
import torch

from fitdiff.data.shards import MemorySamples
from fitdiff.evaluation.methods import RidgeRegression, around, fitted, mean_face, recast, unguided
from fitdiff.evaluation.people import cut_camera, frame_of
from fitdiff.fitting import FitProblem
from fitdiff.geometry import project, to_camera_space
from fitdiff.registry import build, config_of
from fitdiff.types import Camera
from tests.numerics.test_fitting import problem

TARGET = torch.tensor([[2.0, -1.0, 0.5, 0.0, 0.0, 0.0, 1.0, 3.0]])


def adam(prior):
    return fitted(
        config_of("fitting", "adam", prior=prior, steps=200), config_of("sampler", "ddim"), {"distance": Distance()}
    )


class Distance:
    """4 |z - target|^2 of a prediction that is z itself."""

    weight = 4.0

    def __call__(self, prediction, observation):
        return (prediction - TARGET).square().sum(1)


@pytest.fixture
def plain(monkeypatch):
    """A problem that renders nothing: what it predicts is z."""
    monkeypatch.setattr(FitProblem, "predict", lambda self, z0, scene, *rest: z0)
    return recast(problem(TARGET), FitProblem)


def test_a_heavy_prior_holds_a_fit_at_its_centre(plain):
    centre = torch.full_like(TARGET, 0.7)
    z, _ = around(adam(1e6), lambda _: centre)(plain)
    assert torch.allclose(z, centre, atol=0.01)
    z, _ = adam(1e6)(plain)
    assert z.abs().max() < 0.01


def test_a_light_prior_lets_it_go_to_the_target_from_any_centre(plain):
    z, _ = around(adam(1e-6), lambda _: torch.full_like(TARGET, 0.7))(plain)
    assert torch.allclose(z, TARGET, atol=0.05)


def test_the_mean_face_is_zero():
    z, scene = mean_face(problem(TARGET))
    assert torch.equal(z, torch.zeros_like(TARGET))
    assert torch.equal(scene.expression, problem(TARGET).scene.expression)


def test_the_mean_of_samples_is_smaller_than_one():
    sampler = build(config_of("sampler", "ddim"), "sampler")
    target = torch.zeros(1, 512)
    one, mean = (unguided(sampler, 10, samples)(problem(target))[0] for samples in (1, 16))
    assert mean.square().mean().item() == pytest.approx(one.square().mean().item() / 16, rel=0.25)


def test_ridge_regression_finds_a_linear_relation():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(6, 8, generator=generator)
    embedding = torch.randn(200, 2, 6, generator=generator)
    embedding[:, 1] = embedding[:, 0]
    z = embedding[:, 0] @ matrix
    samples = MemorySamples({"embedding": embedding, "identity": z[:, :3]})
    model = SimpleNamespace(latent=SimpleNamespace(pack=lambda identity, rest: torch.cat([identity, rest], 1)))
    ridge = RidgeRegression(model, samples, z[:, 3:], alpha=1e-3)
    new = torch.randn(5, 6, generator=generator)
    assert torch.allclose(ridge(new), new @ matrix, atol=1e-2)


def test_a_cut_camera_sees_what_the_image_shows_there():
    points = torch.randn(1, 20, 3) * 60
    rotation, translation = torch.tensor([[0.1, 0.5, 0.0]]), torch.tensor([[8.0, 4.0, -700.0]])
    camera = Camera(rotation, translation, torch.tensor([5.0]), torch.tensor([[0.02, 0.1]]))
    square = torch.tensor([[30.0, 12.0, 150.0]])
    scale, shift = frame_of(square, 224)
    cut = cut_camera(camera, scale, shift)
    whole, ours = (project(to_camera_space(points, c), c) for c in (camera, cut))
    x = ((whole[..., 0] + 1) * 112 - 30) / 75 - 1  # through pixels, whose rows count downwards
    y = 1 - ((1 - whole[..., 1]) * 112 - 12) / 75
    assert torch.allclose(ours, torch.stack([x, y], -1), atol=1e-5)
