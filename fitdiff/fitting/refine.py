"""The last part of a fit: descent on G at t = 0, held by the denoiser's own opinion of z.

The pull is that of RED-diff (Mardani et al. 2024): noise z to a random step t, let the denoiser guess the clean latent,
and move towards the guess. It is the gradient of a prior p(z | V) that the diffusion model has learned, in place of the
Gaussian that plain Adam on z assumes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fitdiff.diffusion.sampler import EpsFunction
from fitdiff.diffusion.schedule import Schedule
from fitdiff.randomness import draw_normals

SPAN = (0.02, 0.4)
"""Steps t of the pull as parts of the schedule: earlier the guess is z itself, later it is the mean face."""

GOLDEN_RATIO = (5**0.5 - 1) / 2
NOISE_SEED, FIRST_STREAM = 0, 1


class LearnedPrior:
    """Gradient of the prior that a denoiser has learned.

    Args:
        schedule: of the denoiser. predict_eps: the denoiser, conditioned. used: length of z without its pad.
    """

    def __init__(self, schedule: Schedule, predict_eps: EpsFunction, used: int) -> None:
        self.schedule, self.predict_eps, self.used = schedule, predict_eps, used

    @torch.no_grad()
    def gradient(self, z: Tensor, i: int) -> Tensor:
        """(P, N) gradient of mean((z - guess)^2) with the guess held, at the i-th of a fixed sequence of steps.

        Steps are spread evenly over `SPAN` however many are taken (multiples of the golden ratio), and the noise is a
        function of i alone: a fit depends neither on a generator nor on what it is batched with.
        """
        low, high = (part * self.schedule.steps for part in SPAN)
        t = int(low + (i * GOLDEN_RATIO) % 1 * (high - low))
        noise = draw_normals(NOISE_SEED, torch.zeros(1, dtype=torch.int64), FIRST_STREAM + i, z.shape[1:]).to(z)
        z_t = self.schedule.add_noise(z, t, noise)
        guess = self.schedule.predict_z0(z_t, t, self.predict_eps(z_t, torch.full((len(z),), t, device=z.device)))
        return 2 * (z - guess) / self.used
