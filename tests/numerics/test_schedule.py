"""The forward process: closed forms, inverses, and parity with diffusers."""

import diffusers
import numpy as np
import pytest
import torch

from fitdiff.diffusion import Linear, ScaledLinear
from fitdiff.registry import build, config_of, names

SCHEDULES = {"scaled_linear": (ScaledLinear, 0.0015, 0.0195), "linear": (Linear, 0.0001, 0.02)}
EACH = pytest.mark.parametrize("name", SCHEDULES)


def latent(batch=5, length=7):
    return torch.randn(batch, length, dtype=torch.float64)


@EACH
def test_alpha_bar_is_diffusers(name):
    schedule, start, end = SCHEDULES[name]
    theirs = diffusers.DDIMScheduler(beta_start=start, beta_end=end, beta_schedule=name)
    ours = schedule()
    assert ours.steps == 1000  # Table 2
    assert ours.alpha_bar.dtype == torch.float64
    torch.testing.assert_close(ours.alpha_bar.float(), theirs.alphas_cumprod, rtol=2e-5, atol=1e-9)


@EACH
def test_one_step_at_a_time_reaches_the_closed_form(name):
    schedule = SCHEDULES[name][0](steps=40, beta_end=0.3)
    alpha_bar = schedule.alpha_bar
    signal, variance = 1.0, 0.0
    previous = 1.0
    for t in range(40):
        alpha = alpha_bar[t] / previous
        signal, variance = alpha.sqrt() * signal, alpha * variance + (1 - alpha)
        previous = alpha_bar[t]
        factors = schedule.signal_and_noise(t, latent())
        torch.testing.assert_close(torch.stack(factors), torch.stack([signal, variance.sqrt()]))


def test_closed_forms_invert_one_another():
    torch.manual_seed(0)
    schedule, z0, eps = ScaledLinear(), latent(), latent()
    for t in (0, 500, 999, torch.tensor([0, 3, 250, 998, 999])):
        z_t = schedule.add_noise(z0, t, eps)
        torch.testing.assert_close(schedule.predict_z0(z_t, t, eps), z0)
        torch.testing.assert_close(schedule.predict_eps(z_t, t, z0), eps)
    assert torch.equal(schedule.add_noise(z0, -1, eps), z0)  # the clean end


def test_a_step_per_sample_equals_samples_alone():
    torch.manual_seed(0)
    schedule, z0, eps = ScaledLinear(), torch.randn(3, 2, 4), torch.randn(3, 2, 4)
    t = torch.tensor([5, -1, 900])
    batch = schedule.add_noise(z0, t, eps)
    assert batch.dtype == torch.float32
    for i, step in enumerate(t.tolist()):
        assert torch.equal(batch[i : i + 1], schedule.add_noise(z0[i : i + 1], step, eps[i : i + 1]))


def test_variance_is_preserved_and_predicting_nothing_scores_the_mean_of_alpha_bar():
    torch.manual_seed(0)
    schedule = ScaledLinear()
    t = torch.arange(1000).repeat(40)
    z0, eps = torch.randn(40000, 4), torch.randn(40000, 4)
    z_t = schedule.add_noise(z0, t, eps)
    assert z_t.var() == pytest.approx(1, abs=0.02)
    _, noise = schedule.signal_and_noise(t, z_t)
    assert (noise * z_t - eps).square().mean() == pytest.approx(schedule.alpha_bar.mean().item(), abs=0.01)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("n", [1, 3, 7, 25, 50, 999, 1000])
def test_timesteps_are_diffusers(n, spacing):
    theirs = diffusers.DDIMScheduler(timestep_spacing=spacing)
    theirs.set_timesteps(n)
    ours = ScaledLinear().timesteps(n, spacing)
    assert np.array_equal(ours, theirs.timesteps[:n])
    assert len(ours) == n
    assert list(ours) == sorted(set(ours), reverse=True)


@EACH
def test_registered(name):
    assert name in names("schedule")
    assert build(config_of("schedule", name, steps=10), "schedule").steps == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0,), "expected 1 to 1000"), ((1001,), "expected 1 to 1000"), ((10, "cosine"), "use 'leading' or 'trailing'")],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ScaledLinear().timesteps(*arguments)
