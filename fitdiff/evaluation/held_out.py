"""How well a denoiser knows people it was not trained on: figures for learning curves, the same at every call.

Their random numbers are functions of the person alone; no random generator is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from fitdiff.diffusion.sampler import conditioned, sample
from fitdiff.evaluation.chunks import chunks
from fitdiff.evaluation.metrics import identity_cosine, shape_error
from fitdiff.photo_fit import frontal_embedding
from fitdiff.randomness import draw_normals
from fitdiff.registry import build
from fitdiff.types import Denoiser

Gather = Callable[[range], tuple[Tensor, Tensor]]
"""People -> their z (B, N) and the embeddings of their portraits (B, views, D), on the CPU."""

SEED, SAMPLE_STREAM, FIRST_NOISE_STREAM = 0, 1 << 30, (1 << 30) + 1
LEAST_EVALUATIONS = 800
SAMPLING_STEPS = 25


@torch.no_grad()
def noise_losses(model: Any, denoiser: Denoiser, gather: Gather, n: int) -> dict[str, float]:
    """Mean squared error of the predicted noise, beside what predicting nothing scores.

    z is standardised, so the best guess without looking at the person is eps = sqrt(1 - alpha_bar) z_t, whose error is
    mean(alpha_bar_t).

    Args:
        model: whose latent space and schedule it is. denoiser: conditioned on each person's first portrait.
        gather: gives the people. n: people, each at as many steps t as make 800 evaluations of all; the steps are
            spread evenly over the schedule.

    Returns:
        `noise_loss`, `noise_loss_predicting_nothing`, `mean_alpha_bar`.
    """
    schedule, used = model.schedule, model.latent.used
    rounds = -(-LEAST_EVALUATIONS // n)
    totals = torch.zeros(2, dtype=torch.float64, device=model.device)
    for people in chunks(n):
        index = torch.arange(people.start, people.stop)
        z0, embeddings = (x.to(model.device) for x in gather(people))
        for i in range(rounds):
            t = ((index + (i + 0.5) / rounds) * schedule.steps / n).long().to(model.device)
            noise = draw_normals(SEED, index, FIRST_NOISE_STREAM + i, z0.shape[1:]).to(z0)
            z_t = schedule.add_noise(z0, t, noise)
            nothing = (1 - schedule.alpha_bar[t]).sqrt()[:, None].to(z_t) * z_t
            guesses = torch.stack([denoiser(z_t, t, embeddings[:, 0]), nothing])
            totals += (guesses - noise)[..., :used].square().mean(2).sum(1)
    loss, nothing_loss = (totals / (n * rounds)).tolist()
    return {
        "noise_loss": loss,
        "noise_loss_predicting_nothing": nothing_loss,
        "mean_alpha_bar": schedule.alpha_bar.mean().item(),
    }


@torch.no_grad()
def sample_metrics(model: Any, denoiser: Denoiser, gather: Gather, n: int) -> dict[str, float]:
    """One face sampled from each person's first embedding, beside the person; and the mean face (z = 0) beside all.

    Args:
        model: decodes, renders and recognises; its `sampler` is used. denoiser: that draws. gather: gives the people.
        n: people.

    Returns:
        `identity_cosine`: of the sample, frontal and neutral in studio light, with the mean embedding of the person's
        portraits; `identity_cosine_centred`: after subtraction of the training portraits' mean; `shape_mm`: see
        `metrics.shape_error`. Each also with the suffix `_mean_face`.
    """
    sampler = build(model.config["sampler"], "sampler")
    generator = torch.Generator(model.device).manual_seed(SEED)
    mean_face = torch.zeros(1, model.latent.length, device=model.device)
    mean_embedding = frontal_embedding(model, mean_face)
    rows: list[dict[str, Tensor]] = []
    for people in chunks(n, model.config["resolution"]):
        truth, embeddings = (x.to(model.device) for x in gather(people))
        noise = draw_normals(SEED, torch.tensor(people), SAMPLE_STREAM, truth.shape[1:]).to(truth)
        predict_eps = conditioned(denoiser, embeddings[:, 0])
        z = sample(predict_eps, sampler, model.schedule, noise, SAMPLING_STEPS, generator)
        of_samples = _compare(model, z, frontal_embedding(model, z), truth, embeddings.mean(1))
        of_mean = _compare(model, mean_face, mean_embedding, truth, embeddings.mean(1))
        rows.append(of_samples | {f"{name}_mean_face": value for name, value in of_mean.items()})
    return {name: _mean(row[name] for row in rows) for name in rows[0]}


def _compare(model: Any, z: Tensor, embedding: Tensor, truth: Tensor, target: Tensor) -> dict[str, Tensor]:
    return {
        "identity_cosine": identity_cosine(embedding, target),
        "identity_cosine_centred": identity_cosine(embedding, target, model.embedding_mean),
        "shape_mm": shape_error(model.vertices(z).expand(len(truth), -1, -1), model.vertices(truth)),
    }


def _mean(parts: Iterable[Tensor]) -> float:
    return torch.cat(list(parts)).mean().item()
