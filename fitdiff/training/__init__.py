"""Training: stages (the mathematics) and the trainer (the loop)."""

from fitdiff.training import autoencoder_stage, diffusion_stage, trainer

__all__ = ["autoencoder_stage", "diffusion_stage", "trainer"]
