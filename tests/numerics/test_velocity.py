"""The velocity wrapper against the closed forms of Salimans & Ho."""

import torch
from torch import nn

from fitdiff.diffusion.schedule import ScaledLinear
from fitdiff.diffusion.velocity import VelocityDenoiser


class Constant(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, z_t, t, embedding=None):
        return self.value.expand_as(z_t)


def test_the_true_velocity_gives_the_true_noise_and_z0():
    schedule = ScaledLinear()
    generator = torch.Generator().manual_seed(0)
    z0, eps = (torch.randn(5, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    t = torch.tensor([0, 10, 400, 900, 999])
    signal, noise = schedule.signal_and_noise(t, z0)
    z_t = schedule.add_noise(z0, t, eps)
    predicted = VelocityDenoiser(Constant(signal * eps - noise * z0), schedule)(z_t, t)
    assert torch.allclose(predicted, eps, atol=1e-12)
    assert torch.allclose(schedule.predict_z0(z_t, t, predicted), z0, atol=1e-9)


def test_a_silent_network_is_the_best_guess_and_errors_are_not_magnified():
    schedule = ScaledLinear()
    z_t = torch.randn(1, 8, dtype=torch.float64)
    t = torch.tensor([999])
    silent = VelocityDenoiser(Constant(torch.zeros(1, dtype=torch.float64)), schedule)(z_t, t)
    assert torch.allclose(silent, (1 - schedule.alpha_bar[999]).sqrt() * z_t)
    off = VelocityDenoiser(Constant(torch.full((1,), 0.01, dtype=torch.float64)), schedule)(z_t, t)
    shift = schedule.predict_z0(z_t, t, off) - schedule.predict_z0(z_t, t, silent)
    assert shift.abs().max() < 0.0101
