"""Reflectance maps <-> latent: the branched VQGAN, its quantiser, its discriminator and the adversarial losses."""

from fitdiff.autoencoder.discriminator import BranchedDiscriminator
from fitdiff.autoencoder.quantiser import Quantised, VectorQuantiser
from fitdiff.autoencoder.vqgan import AutoencoderOutput, BranchedVQGAN

__all__ = ["AutoencoderOutput", "BranchedDiscriminator", "BranchedVQGAN", "Quantised", "VectorQuantiser"]
