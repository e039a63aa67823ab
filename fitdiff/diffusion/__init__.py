"""Latent diffusion: the schedule's closed forms, the denoiser and the samplers."""

from fitdiff.diffusion.sampler import DDIM, DDPM, Diffusers, Sampler, conditioned, sample
from fitdiff.diffusion.schedule import Linear, ScaledLinear, Schedule
from fitdiff.diffusion.unet1d import SpadeUNet1d

__all__ = [
    "DDIM",
    "DDPM",
    "Diffusers",
    "Linear",
    "Sampler",
    "ScaledLinear",
    "Schedule",
    "SpadeUNet1d",
    "conditioned",
    "sample",
]
