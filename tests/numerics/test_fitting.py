"""Algorithm 1 on problems whose answer is known."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fitdiff.diffusion.sampler import DDIM, Known, sample
from fitdiff.diffusion.schedule import ScaledLinear
from fitdiff.fitting import LIGHT_STRENGTH, AdamFitting, FitProblem, GuidedFitting, SceneOptimiser
from fitdiff.types import Camera, IdentityFeatures, Lighting, Observation, Scene


class GaussianDenoiser(nn.Module):
    """The exact noise predictor of z ~ N(0, 1): eps = sqrt(1 - alpha_bar) z_t."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def forward(self, z_t, t, embedding=None):
        return (1 - self.schedule.alpha_bar[t]).sqrt().to(z_t)[:, None] * z_t


class TargetProblem(FitProblem):
    """G = 4 |z0 - target|^2 per photo: no rendering, a known minimum."""

    def losses(self, z0, scene):
        distance = 4 * (self.of_photos(z0) - self.observation.image[:, 0, 0]).square().sum(1)
        return {"distance": self.per_person(distance)}


def scene(batch: int) -> Scene:
    camera = Camera(torch.zeros(batch, 3), torch.zeros(batch, 3), torch.ones(batch), torch.zeros(batch, 2))
    lighting = Lighting(torch.full((batch, 3), 0.5), torch.ones(batch, 2, 3), torch.full((batch, 2, 3), 0.3))
    return Scene(camera, lighting, torch.zeros(batch, 4))


def problem(target):
    schedule = ScaledLinear()
    model = SimpleNamespace(
        denoiser=GaussianDenoiser(schedule), schedule=schedule, device=torch.device("cpu"),
        latent=SimpleNamespace(length=target.shape[1]),
    )  # fmt: skip
    features = IdentityFeatures(torch.zeros(len(target), 2))
    observation = Observation(target[:, None, None], torch.zeros(1), torch.zeros(1), features)
    return TargetProblem(model, {}, observation, scene(len(target)), fit_scene=False)


def noise(target):
    return torch.randn(target.shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("through_unet", [True, False])
def test_guidance_reaches_the_target(through_unet):
    target = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    fitting = GuidedFitting(steps=50, scale=1.0, through_unet=through_unet)
    result = fitting(problem(target), DDIM(), noise(target))
    unguided = GuidedFitting(steps=50, scale=0.0)(problem(target), DDIM(), noise(target))
    assert (result.z - target).norm() < 0.25 * (unguided.z - target).norm()
    assert len(result.history) == 50
    assert result.history[-1]["G"].mean() < result.history[0]["G"].mean()


def test_without_guidance_it_is_plain_ddim():
    target = torch.zeros(2, 8)
    p = problem(target)
    z = GuidedFitting(steps=20, scale=0.0)(p, DDIM(), noise(target)).z
    expected = sample(p.model.denoiser, DDIM(), p.model.schedule, noise(target), 20)
    assert torch.allclose(z, expected, atol=1e-6)


def test_photos_of_a_batch_do_not_influence_each_other():
    target = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    far = torch.stack([target[0], 100 * target[1]])
    fit = GuidedFitting(steps=10, scale=0.5)
    first = fit(problem(target), DDIM(), noise(target)).z[0]
    beside_outlier = fit(problem(far), DDIM(), noise(target)).z[0]
    assert torch.allclose(first, beside_outlier, atol=1e-6)


def test_adam_balances_target_and_prior():
    target = torch.full((1, 4), 2.0)
    z = AdamFitting(steps=400, prior=64.0)(problem(target), DDIM(), noise(target)).z
    # min 4 (z - 2)^2 + 64 z^2 / 4 per coordinate: z = 8 / (4 + 16)
    assert torch.allclose(z, torch.full((1, 4), 0.4), atol=1e-2)


def test_gradient_norms_are_those_of_the_result():
    target = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    result = GuidedFitting(steps=5, scale=0.1)(problem(target), DDIM(), noise(target))
    expected = (8 * (result.z - target)).norm(dim=1)
    assert torch.allclose(result.grad_norms["distance"], expected, rtol=1e-4)


def test_scene_updates_stay_possible_and_decay():
    scenes = SceneOptimiser(scene(1), steps=100, light_prior=0.0, expression_prior=0.0)
    for _ in range(100):
        s = scenes.scene
        pull = 10 * s.lighting.ambient.sum() + 10 * s.expression[:, 0].sum() - 10 * s.expression[:, 1].sum()
        pull.backward()
        for key in scenes.RATES:
            if scenes.leaves[key].grad is None:
                scenes.leaves[key].grad = torch.zeros_like(scenes.leaves[key])
        scenes.step()
    final = scenes.scene
    assert (final.lighting.ambient == 0).all()
    assert final.expression[0, 0] == 0
    assert 0.3 < final.expression[0, 1] <= 1
    assert torch.equal(final.camera.translation, torch.zeros(1, 3))


def test_light_prior_prefers_grey_of_the_usual_strength():
    grey, tinted, bright = scene(1), scene(1), scene(1)
    usual = LIGHT_STRENGTH / 1.1  # of the scene's 0.5 + 2 x 0.3
    grey = replace(grey, lighting=replace(grey.lighting, ambient=grey.lighting.ambient * usual, colours=grey.lighting.colours * usual))  # fmt: skip # noqa: E501
    scenes = SceneOptimiser(grey, 1, light_prior=1.0, expression_prior=0.0)
    assert scenes.prior().item() == pytest.approx(0, abs=1e-9)
    with torch.no_grad():
        scenes.leaves["ambient"].copy_(tinted.lighting.ambient * torch.tensor([1.2, 1.0, 0.8]))
    assert scenes.prior().item() > 0.01
    with torch.no_grad():
        scenes.leaves["ambient"].copy_(bright.lighting.ambient * 2)
    assert scenes.prior().item() > 0.05


def test_known_parts_come_out_as_they_went_in():
    target = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    given = Known(torch.full((2, 8), 0.7), torch.arange(8) < 3)
    z = GuidedFitting(steps=10, scale=0.5)(replace(problem(target), known=given), DDIM(), noise(target)).z
    assert torch.equal(z[:, :3], given.z[:, :3])
    assert (z[:, 3:] - target[:, 3:]).norm() < (noise(target)[:, 3:] - target[:, 3:]).norm()


def test_photos_of_one_person_pull_at_one_z():
    target = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    alone = problem(target.mean(0, keepdim=True))
    together = replace(problem(target), person=torch.zeros(2, dtype=torch.int64))
    z = AdamFitting(steps=400, prior=0.0)(together, DDIM(), torch.zeros(1, 2)).z
    expected = AdamFitting(steps=400, prior=0.0)(alone, DDIM(), torch.zeros(1, 2)).z
    assert torch.allclose(z, expected, atol=1e-2)
