"""Algorithm 1 on problems whose answer is known."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fitdiff.diffusion.sampler import DDIM, Known, sample
from fitdiff.diffusion.schedule import ScaledLinear
from fitdiff.fitting import (
    LIGHT_STRENGTH,
    AdamFitting,
    FitProblem,
    GuidedFitting,
    LearnedPrior,
    SceneOptimiser,
    ScenePrior,
)
from fitdiff.fitting.jitter import CropJitter
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

    def losses(self, z0, scene, jitter=None):
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
        latent=SimpleNamespace(length=target.shape[1], used=target.shape[1]),
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
    scenes = SceneOptimiser(scene(1), 100, ScenePrior(0.0, 0.0, 0.0, 0.0))
    for _ in range(100):
        s = scenes.scene
        pull = 10 * s.lighting.ambient.sum() + 10 * s.expression[:, 0].sum() - 10 * s.expression[:, 1].sum()
        pull.backward()
        for key in scenes.rates:
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
    scenes = SceneOptimiser(grey, 1, ScenePrior(1.0, 1.0, 1.0, 0.0))
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


def test_what_is_known_is_what_the_loss_sees():
    seen = []

    class Watched(TargetProblem):
        def losses(self, z0, scene, jitter=None):
            seen.append(z0.detach().clone())
            return super().losses(z0, scene, jitter)

    plain = problem(torch.zeros(2, 8))
    given = Known(torch.full((2, 8), 0.7), torch.arange(8) < 3)
    watched = Watched(plain.model, {}, plain.observation, plain.scene, fit_scene=False, known=given)
    GuidedFitting(steps=5, scale=0.5, refine_steps=3)(watched, DDIM(), noise(torch.zeros(2, 8)))
    assert len(seen) == 9
    assert all(torch.equal(z0[:, :3], given.z[:, :3]) for z0 in seen)


def test_photos_of_one_person_pull_at_one_z():
    target = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    alone = problem(target.mean(0, keepdim=True))
    together = replace(problem(target), person=torch.zeros(2, dtype=torch.int64))
    z = AdamFitting(steps=400, prior=0.0)(together, DDIM(), torch.zeros(1, 2)).z
    expected = AdamFitting(steps=400, prior=0.0)(alone, DDIM(), torch.zeros(1, 2)).z
    assert torch.allclose(z, expected, atol=1e-2)


def test_a_fixed_light_stays_while_the_camera_moves():
    start = scene(1)
    scenes = SceneOptimiser(start, 10, ScenePrior(), light="fixed")
    for _ in range(10):
        sum(x.sum() for x in scenes.leaves.values()).backward()
        scenes.step()
    assert torch.equal(scenes.scene.lighting.ambient, start.lighting.ambient)
    assert torch.equal(scenes.scene.lighting.colours, start.lighting.colours)
    assert scenes.scene.camera.translation.max() < -1
    with pytest.raises(ValueError, match="fitted or fixed"):
        SceneOptimiser(start, 10, ScenePrior(), light="dim")


@pytest.mark.parametrize(("trust", "colour"), [(0.0, 0.5), (100.0, 0.02)])
def test_a_trusted_white_balance_leaves_the_colour_to_the_skin(trust, colour):
    # The photo is redder than grey by 0.2; the light's penalty alone decides how much of that the light takes.
    scenes = SceneOptimiser(scene(1), 400, ScenePrior(trust, 0.0, 0.0, 0.0))
    start = scenes.leaves["ambient"].detach().clone()
    for _ in range(400):
        excess = scenes.leaves["ambient"] - start - torch.tensor([0.2, 0.0, 0.0])
        (excess.square().sum() + scenes.prior().sum()).backward()
        scenes.step()
    tint = scenes.leaves["ambient"].detach() - start
    assert abs((tint[0, 0] - tint[0, 1]) / 0.2 - (1 if trust == 0 else 0)) < colour


def test_temperature_0_does_not_depend_on_the_noise():
    target = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    fit = GuidedFitting(steps=10, scale=0.5, temperature=0.0)
    assert torch.equal(fit(problem(target), DDIM(), noise(target)).z, fit(problem(target), DDIM(), -noise(target)).z)


def test_adaptive_steps_do_not_depend_on_the_units_of_the_loss():
    target = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    fit = GuidedFitting(steps=25, adaptive=0.1, through_unet=False, temperature=0.0)

    class Scaled(TargetProblem):
        def losses(self, z0, scene, jitter=None):
            return {name: 1000 * value for name, value in super().losses(z0, scene, jitter).items()}

    plain = problem(target)
    scaled = Scaled(plain.model, {}, plain.observation, plain.scene, fit_scene=False)
    z = fit(plain, DDIM(), noise(target)).z
    assert torch.allclose(z, fit(scaled, DDIM(), noise(target)).z, atol=1e-5)
    assert (z - target).norm() < 0.8 * target.norm()
    with pytest.raises(ValueError, match="through_unet"):
        GuidedFitting(adaptive=0.1)


def test_the_learned_prior_of_a_gaussian_is_a_gaussian():
    # For z ~ N(0, 1) the guess at step t is E[z | z_t] = sqrt(alpha_bar) z_t: the mean pull is 2 (1 - alpha_bar) z / N.
    schedule = ScaledLinear()
    prior = LearnedPrior(schedule, GaussianDenoiser(schedule), used=4000)
    z = torch.full((1, 4000), 3.0)
    steps = [int(20 + (i * (5**0.5 - 1) / 2) % 1 * 380) for i in range(16)]
    for i, t in enumerate(steps):
        expected = 2 * (1 - float(schedule.alpha_bar[t])) * 3 / 4000
        assert prior.gradient(z, i).mean().item() == pytest.approx(expected, rel=0.05, abs=2e-5)
    assert torch.equal(prior.gradient(z, 3), prior.gradient(z.repeat(5, 1), 3)[:1])


def test_refinement_balances_target_and_learned_prior():
    target = torch.full((1, 8), 2.0)
    loose, tight = (
        GuidedFitting(steps=5, scale=0.1, refine_steps=300, refine_prior=weight)(problem(target), DDIM(), noise(target))
        for weight in (0.0, 200.0)
    )
    assert (loose.z - target).abs().max() < 0.02
    assert tight.z.mean() < 1.8
    assert len(tight.history) == 305


def test_jitter_moves_crops_as_its_transform_says():
    crops = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    still, moved = CropJitter(0.0, 1), CropJitter(1.0, 4)
    assert torch.allclose(still(crops), crops, atol=1e-5) or torch.allclose(still(crops), crops.flip(-1), atol=1e-5)
    mirrored = [bool(CropJitter(1.0, i).transform[0, 0, 0] < 0) for i in range(40)]
    assert 8 < sum(mirrored) < 32
    assert torch.equal(moved.transform, CropJitter(1.0, 4).transform)
    assert not torch.equal(moved.transform, CropJitter(1.0, 5).transform)
    # A linear ramp is resampled exactly: its value is the transformed coordinate, away from the border.
    x = ((torch.arange(40) + 0.5) / 20 - 1).expand(1, 1, 40, 40)
    y = x.mT
    expected = moved.transform[0, 0, 0] * x + moved.transform[0, 0, 1] * y + moved.transform[0, 0, 2]
    inner = expected.abs() < 0.9
    assert torch.allclose(moved(x)[inner], expected[inner], atol=1e-5)
