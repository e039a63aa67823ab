"""Reverse diffusion: steps from z_t to z_{t_prev} given the predicted noise, and the loop over them.

A sampler sees numbers only, never a network or a condition: guidance wraps the function that predicts the noise.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fitdiff.diffusion.schedule import Schedule
from fitdiff.registry import ComponentError, register
from fitdiff.types import Denoiser

EpsFunction = Callable[[Tensor, Tensor], Tensor]
"""(B, N) latent z_t and (B,) int64 step t -> (B, N) predicted noise."""

Generators = torch.Generator | Sequence[torch.Generator]
"""Of the noise that stochastic samplers add: one for the batch, or, so that no row depends on the others, one a row."""


def row_generators(seed: int, samples: int, people: int = 1, stream: int = 0) -> list[torch.Generator]:
    """A generator for each of people * samples rows, a person's samples side by side: a function of (seed, stream, k).

    They lie on the CPU, so that every device adds the same noise.
    """
    digests = [hashlib.sha256(f"{seed} {stream} {k}".encode()).digest() for k in range(samples)]
    seeds = [int.from_bytes(digest[:4], "little") for digest in digests]  # as much as the CPU's generator takes
    return [torch.Generator().manual_seed(value) for _ in range(people) for value in seeds]


def fresh_noise(like: Tensor, generator: Generators | None) -> Tensor:
    """Standard normal noise of the shape (B, ...), dtype and device of `like`, drawn where the generators lie."""
    if isinstance(generator, Sequence):
        return torch.cat([fresh_noise(row[None], g) for row, g in zip(like, generator, strict=True)])
    device = like.device if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, device=device, dtype=like.dtype).to(like.device)


class Sampler(Protocol):
    """What `sample` and guided fitting ask of a sampler."""

    def timesteps(self, schedule: Schedule, n_steps: int) -> tuple[int, ...]:
        """Steps to visit, from noisy to clean; starts a new trajectory."""

    def step(
        self,
        schedule: Schedule,
        z_t: Tensor,
        t: int,
        t_prev: int,
        eps: Tensor,
        generator: Generators | None = None,
    ) -> Tensor:
        """z_t at step t -> z at the cleaner step t_prev (-1: clean). Tensors are (B, ...)."""


@register("sampler", "ddim")
class DDIM:
    """Denoising diffusion implicit models (Song et al. 2021, Eqs. 12 and 16).

    Stateless and differentiable in z_t and eps.

    Args:
        eta: 0 is deterministic; 1 adds as much noise as `ddpm`.
        clip: clamp the predicted z_0 to plus or minus this many standard deviations and use the noise that agrees
            with it; None does not. Chosen: the errors of ẑ_0 are large at high t, and the latent is whitened.
        spacing: of the steps, see `Schedule.timesteps`.
    """

    def __init__(self, *, eta: float = 0.0, clip: float | None = 4.0, spacing: str = "leading"):
        self.eta, self.clip, self.spacing = eta, clip, spacing

    def timesteps(self, schedule: Schedule, n_steps: int) -> tuple[int, ...]:
        """Steps to visit, from noisy to clean."""
        return schedule.timesteps(n_steps, self.spacing)

    def step(
        self,
        schedule: Schedule,
        z_t: Tensor,
        t: int,
        t_prev: int,
        eps: Tensor,
        generator: Generators | None = None,
    ) -> Tensor:
        """One step from t to t_prev.

        Args:
            schedule: on the device of `z_t`.
            z_t: (B, ...) latent at step t.
            t: step in [0, T).
            t_prev: cleaner step; -1 gives z_0.
            eps: (B, ...) predicted noise.
            generator: of the added noise; only used where eta > 0.

        Returns:
            (B, ...) latent at step t_prev.
        """
        z0 = schedule.predict_z0(z_t, t, eps)
        if self.clip is not None:
            z0 = z0.clamp(-self.clip, self.clip)
            eps = schedule.predict_eps(z_t, t, z0)
        signal, noise = schedule.signal_and_noise(t, z_t)
        signal_prev, noise_prev = schedule.signal_and_noise(t_prev, z_t)
        if self.eta == 0:
            return signal_prev * z0 + noise_prev * eps
        variance = (noise_prev / noise).square() * (1 - (signal / signal_prev).square())
        sigma = self.eta * variance.sqrt()
        kept = (noise_prev.square() - sigma.square()).clamp_min(0).sqrt()
        return signal_prev * z0 + kept * eps + sigma * fresh_noise(z_t, generator)


@register("sampler", "ddpm")
class DDPM(DDIM):
    """Ancestral sampling with the posterior's variance (Ho et al. 2020, Eqs. 6-7): DDIM with eta = 1.

    Args:
        clip: see `DDIM`.
        spacing: of the steps, see `Schedule.timesteps`.
    """

    def __init__(self, *, clip: float | None = 4.0, spacing: str = "leading"):
        super().__init__(eta=1.0, clip=clip, spacing=spacing)


@register("sampler", "diffusers")
class Diffusers:
    """Any scheduler of the diffusers library that denoises z_t itself, such as multistep solvers for few steps.

    Such solvers remember earlier steps: `timesteps` starts a new trajectory, and the steps must then be taken in
    order, with one sampler object per trajectory.

    Args:
        scheduler: name of the class in `diffusers`.
        options: its further constructor arguments. `clip_sample` is off unless given: diffusers would clip at 1, which
            suits pixels; a whitened latent reaches 4.
    """

    def __init__(self, *, scheduler: str = "DPMSolverMultistepScheduler", options: dict[str, Any] = {}):  # noqa: B006
        import diffusers

        found = getattr(diffusers, scheduler, None)
        if not (inspect.isclass(found) and issubclass(found, diffusers.SchedulerMixin)):
            raise ComponentError(
                f"scheduler={scheduler!r} is not a scheduler class of diffusers {diffusers.__version__}"
            )
        self._class, parameters = found, inspect.signature(found.__init__).parameters
        self._options = {**({"clip_sample": False} if "clip_sample" in parameters else {}), **options}

    def timesteps(self, schedule: Schedule, n_steps: int) -> tuple[int, ...]:
        """Steps to visit, from noisy to clean; starts a new trajectory.

        Raises:
            ComponentError: the scheduler has noise levels of its own, or works on a latent scaled by them (such as
                Euler's), not on z_t.
        """
        if "trained_betas" not in inspect.signature(self._class.__init__).parameters:
            raise ComponentError(
                f"{self._class.__name__} has noise levels of its own: use one that takes trained_betas"
            )
        alpha_bar = schedule.alpha_bar.cpu()
        betas = 1 - alpha_bar / torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
        self._scheduler = self._class(num_train_timesteps=schedule.steps, trained_betas=betas.tolist(), **self._options)
        self._scheduler.set_timesteps(n_steps)
        if float(self._scheduler.init_noise_sigma) != 1:
            raise ComponentError(f"{self._class.__name__} scales its latent: use a scheduler that starts from N(0, 1)")
        return tuple(self._scheduler.timesteps.tolist())

    def step(
        self,
        schedule: Schedule,
        z_t: Tensor,
        t: int,
        t_prev: int,
        eps: Tensor,
        generator: Generators | None = None,
    ) -> Tensor:
        """One step; `t_prev` is the scheduler's own. See `DDIM.step`."""
        # Only schedulers that add noise take a generator, and not all take one.
        takes_one = "generator" in inspect.signature(self._scheduler.step).parameters
        rows = list(generator) if isinstance(generator, Sequence) else generator  # as diffusers knows them
        return self._scheduler.step(eps, t, z_t, return_dict=False, **({"generator": rows} if takes_one else {}))[0]


def adds_noise(sampler: Sampler, schedule: Schedule) -> bool:
    """Whether a sampler's steps are random, found by a step of two equal rows: any sampler can be asked."""
    first, second = sampler.timesteps(schedule, 2)
    z = torch.ones(2, 16, device=schedule.alpha_bar.device)
    a, b = sampler.step(schedule, z, first, second, torch.zeros_like(z), row_generators(0, 2))
    return not torch.equal(a, b)


@dataclass(frozen=True)
class Known:
    """Parts of z that are given: the reverse process fills in the rest (replacement, Song et al. 2021, "Score-based
    generative modeling", appendix I.2).

    Attributes:
        z: (P, N) clean latents. mask: (N,) or (P, N) bool, True where z is given.
    """

    z: Tensor
    mask: Tensor

    def at(self, schedule: Schedule, z_t: Tensor, t: int, noise: Tensor) -> Tensor:
        """z_t with the known parts as they are at step t under the given noise (P, N); t = -1: clean."""
        known = self.z if t < 0 else schedule.add_noise(self.z, t, noise)
        return torch.where(self.mask, known, z_t)

    def repeat(self, samples: int) -> Known:
        """Each person `samples` times, side by side."""
        mask = self.mask if self.mask.ndim == 1 else self.mask.repeat_interleave(samples, 0)
        return Known(self.z.repeat_interleave(samples, 0), mask)


def sample(
    eps_function: EpsFunction,
    sampler: Sampler,
    schedule: Schedule,
    z_T: Tensor,
    n_steps: int,
    generator: Generators | None = None,
    known: Known | None = None,
) -> Tensor:
    """Run the reverse process from noise to a clean latent.

    Args:
        eps_function: predicts the noise; for a network see `conditioned`. Gradients flow if enabled by the caller.
        sampler: takes the steps.
        schedule: on the device of `z_T`.
        z_T: (B, N) standard normal noise.
        n_steps: number of network evaluations.
        generator: of the noise that stochastic samplers add.
        known: parts of z that are given.

    Returns:
        (B, N) z_0.
    """
    z = z_T
    steps = sampler.timesteps(schedule, n_steps)
    for t, t_prev in zip(steps, (*steps[1:], -1), strict=True):
        z = z if known is None else known.at(schedule, z, t, z_T)
        eps = eps_function(z, torch.full((len(z),), t, device=z.device))
        z = sampler.step(schedule, z, t, t_prev, eps, generator)
    return z if known is None else known.at(schedule, z, -1, z_T)


def conditioned(denoiser: Denoiser, embedding_BD: Tensor | None, guidance_scale: float = 1.0) -> EpsFunction:
    """Bind a denoiser to a condition, with classifier-free guidance: eps = eps_null + scale (eps_cond - eps_null).

    Source: Ho & Salimans 2022, Eq. 6 with scale = 1 + w. What does not depend on z_t or t is computed once, here.

    Args:
        denoiser: predicts the noise.
        embedding_BD: (B, D) identity embeddings; None: unconditional.
        guidance_scale: 1 is the plain conditional model, 0 the unconditional one; others cost two evaluations a step.

    Returns:
        Function of (z_t, t) for `sample`.
    """
    conditional = _bind(denoiser, embedding_BD)
    if embedding_BD is None or guidance_scale == 1:
        return conditional
    unconditional = _bind(denoiser, None)
    if guidance_scale == 0:
        return unconditional

    def eps_function(z_t: Tensor, t: Tensor) -> Tensor:
        return torch.lerp(unconditional(z_t, t), conditional(z_t, t), guidance_scale)

    return eps_function


def _bind(denoiser: Denoiser, embedding_BD: Tensor | None) -> EpsFunction:
    if hasattr(denoiser, "condition"):
        condition = denoiser.condition(embedding_BD)
        return lambda z_t, t: denoiser(z_t, t, condition=condition)
    return lambda z_t, t: denoiser(z_t, t, embedding_BD)
