"""The forward process q(z_t | z_0) of a variance-preserving diffusion and its closed forms (Ho et al. 2020).

Table 2 of the FitDiff supplement says "linear" and builds on latent diffusion, whose "linear" schedule is linear in
the square root of beta; diffusers calls it `scaled_linear`. **Chosen** as the default; both are registered.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fitdiff.registry import register


class Schedule(nn.Module):
    """alpha_bar of each step and the closed forms that follow from it.

    A step is an int for the whole batch or a (B,) int64 tensor, in [0, steps); -1 is the clean end, where alpha_bar
    is 1. All methods are differentiable in the latents; factors are computed in float64 and never leave the device.

    Args:
        betas_T: (T,) float64 variances of the single steps, each in (0, 1).

    Raises:
        ValueError: there are no steps.
    """

    def __init__(self, betas_T: Tensor):
        super().__init__()
        if not len(betas_T):
            raise ValueError("schedule.steps is 0: give 1 or more")
        alpha_bar = (1 - betas_T.double()).cumprod(0)
        # The clean end comes last, so that step -1 finds it by plain indexing.
        self.register_buffer("_alpha_bar", torch.cat([alpha_bar, alpha_bar.new_ones(1)]), persistent=False)

    @property
    def steps(self) -> int:
        """T, the number of diffusion steps."""
        return len(self._alpha_bar) - 1

    @property
    def alpha_bar(self) -> Tensor:
        """(T,) float64, cumulative products of 1 - beta; falls from nearly 1 to nearly 0."""
        return self._alpha_bar[:-1]

    def signal_and_noise(self, t: int | Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t), in `like`'s dtype and broadcastable against it.

        Args:
            t: int or (B,) int64 step.
            like: (B, ...) float.
        """
        alpha_bar = self._alpha_bar[t]
        alpha_bar = alpha_bar.reshape(alpha_bar.shape + (1,) * (like.ndim - 1)) if alpha_bar.ndim else alpha_bar
        return alpha_bar.sqrt().to(like.dtype), (1 - alpha_bar).sqrt().to(like.dtype)

    def add_noise(self, z0: Tensor, t: int | Tensor, eps: Tensor) -> Tensor:
        """z_t = sqrt(alpha_bar_t) z_0 + sqrt(1 - alpha_bar_t) eps (Ho et al. 2020, Eq. 4).

        Args:
            z0: (B, ...) clean latent. t: int or (B,) step. eps: (B, ...) standard normal noise.
        """
        signal, noise = self.signal_and_noise(t, z0)
        return signal * z0 + noise * eps

    def predict_z0(self, z_t: Tensor, t: int | Tensor, eps: Tensor) -> Tensor:
        """z_0 = (z_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t) (Ho et al. 2020, Eq. 15).

        At high t an error of eps is multiplied by up to 1 / sqrt(alpha_bar_T), about 80 by default.

        Args:
            z_t: (B, ...) noisy latent. t: int or (B,) step. eps: (B, ...) predicted noise.
        """
        signal, noise = self.signal_and_noise(t, z_t)
        return (z_t - noise * eps) / signal

    def predict_eps(self, z_t: Tensor, t: int | Tensor, z0: Tensor) -> Tensor:
        """eps = (z_t - sqrt(alpha_bar_t) z_0) / sqrt(1 - alpha_bar_t): the inverse of `predict_z0`.

        Args:
            z_t: (B, ...) noisy latent. t: int or (B,) step, not -1. z0: (B, ...) clean latent.
        """
        signal, noise = self.signal_and_noise(t, z_t)
        return (z_t - signal * z0) / noise

    def timesteps(self, n: int, spacing: str = "leading") -> tuple[int, ...]:
        """`n` of the T steps, from noisy to clean, as diffusers spaces them.

        Args:
            n: number of steps, 1 to T.
            spacing: "leading" takes multiples of T // n down to 0 (DDIM's and latent diffusion's choice: the last
                step is the finest); "trailing" counts down from T - 1, so that even few steps start from pure noise.

        Raises:
            ValueError: n is outside 1..T, or the spacing is unknown.
        """
        if not 1 <= n <= self.steps:
            raise ValueError(f"n={n} sampling steps: expected 1 to {self.steps}, the schedule's steps")
        if spacing == "leading":
            return tuple(range((n - 1) * (self.steps // n), -1, -(self.steps // n)))
        if spacing == "trailing":
            return tuple(round(self.steps * (n - i) / n) - 1 for i in range(n))
        raise ValueError(f"spacing={spacing!r} is unknown: use 'leading' or 'trailing'")


@register("schedule", "scaled_linear")
class ScaledLinear(Schedule):
    """sqrt(beta) grows linearly: the "linear" schedule of latent diffusion (Rombach et al. 2022).

    Args:
        steps: T (Table 2: Diffusion steps).
        beta_start: first variance (latent diffusion's 0.0015).
        beta_end: last variance (latent diffusion's 0.0195).
    """

    def __init__(self, *, steps: int = 1000, beta_start: float = 0.0015, beta_end: float = 0.0195):
        super().__init__(torch.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=torch.float64).square())


@register("schedule", "linear")
class Linear(Schedule):
    """beta grows linearly (Ho et al. 2020).

    Args:
        steps: T (Table 2: Diffusion steps).
        beta_start: first variance (Ho et al.: 0.0001).
        beta_end: last variance (Ho et al.: 0.02).
    """

    def __init__(self, *, steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02):
        super().__init__(torch.linspace(beta_start, beta_end, steps, dtype=torch.float64))
