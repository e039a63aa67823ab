"""Adversarial losses of VQGAN as pure functions. Source: Esser et al. 2021, Eqs. 5-7."""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor

from fitdiff.autoencoder.processes import mean_over_processes


def hinge_discriminator_loss(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """Hinge loss of a discriminator: mean of (relu(1 - real) + relu(1 + fake)) / 2.

    Args:
        logits_real: any shape, of data. logits_fake: any shape, of detached reconstructions.

    Returns:
        () loss, at least 0.
    """
    return 0.5 * (nnf.relu(1 - logits_real).mean() + nnf.relu(1 + logits_fake).mean())


def generator_loss(logits_fake: Tensor) -> Tensor:
    """Adversarial loss of the autoencoder: minus the mean logit of reconstructions, any shape -> ()."""
    return -logits_fake.mean()


def adaptive_weight(
    reconstruction_loss: Tensor, adversarial_loss: Tensor, last_layer: Tensor, maximum: float = 1e4
) -> Tensor:
    """Weight that gives the adversarial loss the reconstruction's gradient norm at the last layer (VQGAN, Eq. 7).

    The gradients are those of the batches of all processes together, so that the weight is the same everywhere.

    Args:
        reconstruction_loss: () loss in whose graph `last_layer` is.
        adversarial_loss: () loss in whose graph `last_layer` is.
        last_layer: weight of the decoder's last convolution.
        maximum: upper bound of the weight.

    Returns:
        () weight without gradient. Both graphs are kept for the backward pass.
    """
    losses = reconstruction_loss, adversarial_loss
    gradients = torch.stack([torch.autograd.grad(loss, last_layer, retain_graph=True)[0] for loss in losses])
    wanted, actual = mean_over_processes(gradients).flatten(1).norm(dim=1)
    return (wanted / (actual + 1e-4)).clamp(0, maximum).detach()
