"""Samplers against diffusers, and against Gaussian data, for which the best denoiser is known exactly."""

import diffusers
import pytest
import torch

from fitdiff.diffusion import DDIM, DDPM, Diffusers, ScaledLinear, conditioned, sample
from fitdiff.diffusion.sampler import adds_noise, fresh_noise, row_generators
from fitdiff.registry import build, config_of, names

SCHEDULE = ScaledLinear()
LDM = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear", "clip_sample_range": 4.0}


def wavy_eps(z, t):
    """A nonlinear stand-in for a denoiser."""
    return torch.sin(z * 1.3 + t[:, None] * 0.01) * 0.5 + 0.7 * z


def gaussian_eps(mean, std):
    """The exact denoiser of data N(mean, std^2)."""

    def eps(z, t):
        signal, noise = SCHEDULE.signal_and_noise(t, z)
        return noise * (z - signal * mean) / (signal**2 * std**2 + noise**2)

    return eps


def run_diffusers(scheduler, z, n_steps, **options):
    scheduler.set_timesteps(n_steps)
    for t in scheduler.timesteps.tolist():
        eps = wavy_eps(z, torch.full((len(z),), t))
        z = scheduler.step(eps, t, z, **options).prev_sample
    return z


def noise(batch=6, length=16, dtype=torch.float32):
    torch.manual_seed(0)
    return torch.randn(batch, length, dtype=dtype)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("clip", [None, 4.0])
@pytest.mark.parametrize("eta", [0.0, 0.6])
def test_ddim_trajectory_equals_diffusers(eta, clip, spacing):
    theirs = diffusers.DDIMScheduler(**LDM, clip_sample=clip is not None, timestep_spacing=spacing)
    options = {"eta": eta, "use_clipped_model_output": True, "generator": torch.Generator().manual_seed(1)}
    expected = run_diffusers(theirs, noise(), 50, **options)
    ours = DDIM(eta=eta, clip=clip, spacing=spacing)
    result = sample(wavy_eps, ours, SCHEDULE, noise(), 50, torch.Generator().manual_seed(1))
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_ddpm_trajectory_equals_diffusers():
    theirs = diffusers.DDPMScheduler(**LDM, clip_sample=True, variance_type="fixed_small")
    expected = run_diffusers(theirs, noise(), 1000, generator=torch.Generator().manual_seed(1))
    result = sample(wavy_eps, DDPM(), SCHEDULE, noise(), 1000, torch.Generator().manual_seed(1))
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("t", "t_prev"), [(980, 960), (500, 499), (20, 0), (0, -1)])
def test_ddpm_step_has_the_posteriors_mean_and_variance(t, t_prev):
    z0, z_t = torch.tensor(0.7).double(), torch.tensor(-0.4).double()
    alpha_bar = torch.cat([SCHEDULE.alpha_bar, torch.ones(1)])
    now, previous = alpha_bar[t], alpha_bar[t_prev]
    alpha = now / previous
    # Ho et al. 2020, Eqs. 6-7, for a step from t to any earlier t_prev.
    mean = (previous.sqrt() * (1 - alpha) * z0 + alpha.sqrt() * (1 - previous) * z_t) / (1 - now)
    variance = (1 - previous) / (1 - now) * (1 - alpha)
    z = z_t.expand(200_000, 1)
    eps = SCHEDULE.predict_eps(z, t, z0)
    drawn = DDPM().step(SCHEDULE, z, t, t_prev, eps, torch.Generator().manual_seed(0))
    assert drawn.mean() == pytest.approx(mean.item(), abs=4e-3)
    assert drawn.var() == pytest.approx(variance.item(), rel=2e-2, abs=1e-12)


@pytest.mark.parametrize(("sampler", "n_steps"), [(DDIM(), 100), (DDIM(eta=0.5), 200), (DDPM(), 1000)])
def test_samples_of_gaussian_data_have_its_moments(sampler, n_steps):
    generator = torch.Generator().manual_seed(0)
    z_T = torch.randn(20000, 1, generator=generator)
    z0 = sample(gaussian_eps(0.8, 0.5), sampler, SCHEDULE, z_T, n_steps, generator)
    assert z0.mean() == pytest.approx(0.8, abs=0.02)
    assert z0.std() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    "sampler", [DDPM(), DDIM(eta=0.5), Diffusers(scheduler="DDPMScheduler")], ids=["ddpm", "eta", "diffusers"]
)
def test_a_row_of_a_stochastic_sampler_does_not_depend_on_the_batch(sampler):
    few, many = (sample(wavy_eps, sampler, SCHEDULE, noise()[:n], 10, row_generators(3, n)) for n in (2, 5))
    torch.testing.assert_close(many[:2], few)
    alone = sample(wavy_eps, sampler, SCHEDULE, noise()[:1], 10, row_generators(3, 1))
    torch.testing.assert_close(many[:1], alone)
    other = sample(wavy_eps, sampler, SCHEDULE, noise()[:2], 10, row_generators(4, 2))
    assert (few - other).abs().mean() > 0.1


def test_the_noise_of_rows_is_normal_and_their_own():
    rows = fresh_noise(torch.empty(200, 2000), row_generators(0, 100, people=2))
    assert torch.equal(rows[:100], rows[100:])
    assert rows.mean() == pytest.approx(0, abs=0.01)
    assert rows.std() == pytest.approx(1, abs=0.01)
    cosines = torch.corrcoef(rows[:100]).fill_diagonal_(0)
    assert cosines.abs().max() < 0.15
    shifted = fresh_noise(torch.empty(1, 2000), row_generators(1, 1))
    assert (rows[1] - shifted[0]).abs().mean() > 0.5  # (seed, k) = (0, 1) is not (1, 0)


@pytest.mark.parametrize(
    ("sampler", "random"),
    [
        (DDIM(), False),
        (DDIM(eta=0.1), True),
        (DDPM(), True),
        (Diffusers(), False),
        (Diffusers(scheduler="DDIMScheduler"), False),
        (Diffusers(scheduler="DDPMScheduler"), True),
        (Diffusers(options={"algorithm_type": "sde-dpmsolver++"}), True),
    ],
)
def test_samplers_that_add_noise_are_told(sampler, random):
    assert adds_noise(sampler, SCHEDULE) == random


def test_diffusers_clips_only_if_asked():
    far = torch.full((1, 4), 2.5)
    eps = gaussian_eps(2.5, 1e-3)
    drawn = sample(eps, Diffusers(scheduler="DDIMScheduler"), SCHEDULE, far, 10)
    torch.testing.assert_close(drawn, far, atol=0.05, rtol=0)
    clipped = Diffusers(scheduler="DDIMScheduler", options={"clip_sample": True})
    assert sample(eps, clipped, SCHEDULE, far, 10).max() <= 1


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DDIMScheduler"])
def test_any_scheduler_of_diffusers_gives_its_own_trajectory(name):
    ldm = (
        {**LDM, "clip_sample": False} if name == "DDIMScheduler" else {k: v for k, v in LDM.items() if "clip" not in k}
    )
    theirs = run_diffusers(getattr(diffusers, name)(**ldm), noise(), 12)
    adapter = Diffusers(scheduler=name)
    for _ in range(2):  # the second trajectory starts afresh
        torch.testing.assert_close(sample(wavy_eps, adapter, SCHEDULE, noise(), 12), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["UniPCMultistepScheduler", "DEISMultistepScheduler", "PNDMScheduler"])
def test_a_generator_is_no_trouble_to_schedulers_without_noise(name):
    adapter = Diffusers(scheduler=name)
    drawn = sample(wavy_eps, adapter, SCHEDULE, noise(), 8, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, sample(wavy_eps, adapter, SCHEDULE, noise(), 8))


def test_distance_to_the_exact_solution():
    # The probability flow of Gaussian data is affine at every time, so its end is known.
    mean, std, z_T = 0.8, 0.5, noise(dtype=torch.float64)
    signal, sigma = SCHEDULE.signal_and_noise(SCHEDULE.steps - 1, z_T)
    exact = mean + std * (z_T - signal * mean) / (signal**2 * std**2 + sigma**2).sqrt()

    def error(solver, n):
        return (sample(gaussian_eps(mean, std), solver, SCHEDULE, z_T, n) - exact).square().mean().sqrt()

    ddim = DDIM(clip=None, spacing="trailing")
    assert 1.7 < error(ddim, 80) / error(ddim, 160) < 2.1  # of first order
    assert error(Diffusers(options={"use_karras_sigmas": True}), 20) < 0.2 * error(ddim, 20)


def test_clip_bounds_the_result():
    assert sample(lambda z, t: -z, DDIM(clip=1.5), SCHEDULE, noise(), 10).abs().max() <= 1.5
    assert sample(lambda z, t: -z, DDIM(clip=None), SCHEDULE, noise(), 10).abs().max() > 1.5


def test_gradients_flow_through_the_whole_trajectory():
    z_T = noise(2, 3, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: sample(wavy_eps, DDIM(), SCHEDULE, z, 4), z_T)


def test_batch_equals_its_items():
    batch = sample(wavy_eps, DDIM(), SCHEDULE, noise(), 10)
    items = [sample(wavy_eps, DDIM(), SCHEDULE, z[None], 10) for z in noise()]
    torch.testing.assert_close(batch, torch.cat(items))


def test_classifier_free_guidance_extrapolates():
    embedding, z, t = torch.full((6, 2), 3.0), noise(), torch.full((6,), 10)

    def denoiser(z_t, t, embedding):
        return z_t * (1.0 if embedding is None else embedding.mean())

    for scale, factor in ((0.0, 1.0), (1.0, 3.0), (2.5, 1 + 2.5 * 2)):
        torch.testing.assert_close(conditioned(denoiser, embedding, scale)(z, t), factor * z)
    torch.testing.assert_close(conditioned(denoiser, None, 2.5)(z, t), z)


def test_the_condition_is_computed_once_per_trajectory():
    calls = []

    class Counting:
        def condition(self, embedding):
            calls.append(embedding)
            return 0.5

        def __call__(self, z_t, t, embedding=None, *, condition=None):
            return condition * z_t

    embedding = torch.ones(6, 2)
    sample(conditioned(Counting(), embedding, 2.0), DDIM(), SCHEDULE, noise(), 10)
    assert len(calls) == 2
    assert calls[0] is embedding
    assert calls[1] is None


def test_registered():
    assert {"ddim", "ddpm", "diffusers"} <= set(names("sampler"))
    assert build(config_of("sampler", "ddim", eta=0.3, clip=None), "sampler").clip is None
    solver = build(config_of("sampler", "diffusers", options={"solver_order": 3}), "sampler")
    assert len(solver.timesteps(SCHEDULE, 12)) == 12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Diffusers(scheduler="MagicScheduler"), "'MagicScheduler' is not a scheduler class"),
        (lambda: Diffusers(scheduler="UNet2DModel"), "'UNet2DModel' is not a scheduler class"),
        (
            lambda: Diffusers(scheduler="EDMDPMSolverMultistepScheduler").timesteps(SCHEDULE, 9),
            "noise levels of its own",
        ),
        (lambda: Diffusers(scheduler="EulerDiscreteScheduler").timesteps(SCHEDULE, 10), "scales its latent"),
        (lambda: sample(wavy_eps, DDIM(spacing="even"), SCHEDULE, noise(), 10), "use 'leading' or 'trailing'"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
