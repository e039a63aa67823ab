"""Fit synthetic people whose truth is known, by any method, and score the result."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from fitdiff.alignment.crop import crop_transform
from fitdiff.alignment.photo import Photo
from fitdiff.data.shards import ShardedDataset, dequantise
from fitdiff.diffusion.sampler import conditioned, sample
from fitdiff.evaluation.metrics import identity_cosine, map_psnr, shape_error
from fitdiff.fitting import FitProblem, observed_features
from fitdiff.observe import first_scene, observe
from fitdiff.photo_fit import render_embedding
from fitdiff.registry import build, config_of
from fitdiff.types import SCENE_KEYS, FaceMaps, Observation, Scene

METHODS = ("mean face", "ridge", "unguided", "guided", "adam")
PHOTO, NOVEL = 0, 1
"""Views of a person: the one that is fitted, and one that no method sees."""


class RidgeRegression:
    """z from the identity embedding, linearly: the baseline that a real conditional model must beat."""

    def __init__(self, model: Any, train: ShardedDataset, latents: Tensor, alpha: float = 100.0) -> None:
        embedding = train.load("embedding")
        z = model.latent.pack(train.load("identity"), latents)
        self.mean, self.std = embedding.mean((0, 1)), embedding.std((0, 1))
        views = embedding.shape[1]
        inputs = ((embedding - self.mean) / self.std).flatten(0, 1).numpy()
        self.ridge = Ridge(alpha=alpha).fit(inputs, z.repeat_interleave(views, 0).numpy())

    def __call__(self, embedding_BD: Tensor) -> Tensor:
        """(B, D) -> (B, N)."""
        inputs = ((embedding_BD.cpu() - self.mean) / self.std).numpy()
        return torch.from_numpy(self.ridge.predict(inputs)).float().to(embedding_BD.device)


def problem_of(
    model: Any, people: dict[str, Tensor], terms: dict[str, Any], known_scene: bool, size: int
) -> tuple[FitProblem, list[int]]:
    """A fitting problem from the first view of people (tensors of `PeopleMaker.make`).

    With `known_scene` the portrait, its landmarks and its scene are given as they were made; without, everything comes
    from the pixels, through the same detectors as for a photo.

    Returns:
        The problem and the rows of the people that are in it: those in whom a face was found.
    """
    view = {key: people[key][:, PHOTO].to(model.device) for key in ("image", "landmarks", *SCENE_KEYS)}
    if known_scene:
        image = view["image"].float() / 255
        transform = crop_transform(model.identity, view["landmarks"])
        features = observed_features(model, image, transform)
        observation = Observation(image, view["landmarks"], transform, features)
        return FitProblem(model, terms, observation, Scene.from_tensors(view), fit_scene=False), list(range(len(image)))
    detector, landmarks = (build(model.config[kind], kind) for kind in ("detector", "landmarks"))
    photos = [Photo(picture.permute(1, 2, 0).cpu().numpy()) for picture in view["image"]]
    found = [row for row, photo in enumerate(photos) if detector(photo.image)]
    observation, crops, _ = observe([photos[row] for row in found], model, detector, landmarks, size)
    scene = first_scene(model, observation, crops.principal_point, crops.focal)
    return FitProblem(model, terms, observation, scene), found


def solve(method: str, problem: FitProblem, ridge: RidgeRegression, seed: int = 0) -> tuple[Tensor, Scene, float]:
    """z, scene and seconds of one of `METHODS`.

    Raises:
        ValueError: an unknown method.
    """
    model, start = problem.model, time.perf_counter()
    embedding = problem.observation.features.embedding
    generator = torch.Generator().manual_seed(seed)
    sampler = build(model.config["sampler"], "sampler")
    z, scene = torch.zeros(len(embedding), model.latent.length, device=model.device), problem.scene
    if method in ("guided", "adam"):
        node = model.config["fitting"] if method == "guided" else config_of("fitting", "adam")
        noise = torch.randn(z.shape, generator=generator).to(z)
        result = build(node, "fitting")(problem, sampler, noise, generator)
        z, scene = result.z, result.scene
    elif method == "ridge":
        z = ridge(embedding)
    elif method == "unguided":
        noise = torch.randn(z.shape, generator=generator).to(z)
        with torch.no_grad():
            z = sample(conditioned(model.denoiser, embedding), sampler, model.schedule, noise, 50, generator)
    elif method != "mean face":
        raise ValueError(f"method {method!r} is unknown: expected one of {METHODS}")
    return z, scene, time.perf_counter() - start


@torch.no_grad()
def score(problem: FitProblem, people: dict[str, Tensor], z: Tensor, scene: Scene) -> dict[str, Tensor]:
    """Metrics of z against the people's truth, each (B,): see `metrics`; `photo` is the fitted view, `novel` not."""
    model = problem.model
    device, mean = model.device, model.embedding_mean
    truth = model.shape_model(people["identity"].to(device))
    psnr = map_psnr(model.maps(z), FaceMaps.from_tensor(dequantise(people["maps"].to(device))))
    photo = problem.predict(z, scene).features.embedding
    target = problem.observation.features.embedding
    novel_view = {key: people[key][:, NOVEL].to(device) for key in ("image", "embedding", *SCENE_KEYS)}
    novel_scene = Scene.from_tensors(novel_view)
    background = novel_view["image"].float() / 255
    size = background.shape[-1]
    novel = render_embedding(
        model, z, novel_scene.camera, novel_scene.lighting, novel_scene.expression, size, background
    )
    return {
        "photo_id": identity_cosine(photo, target),
        "photo_id_centred": identity_cosine(photo, target, mean),
        "novel_id": identity_cosine(novel, novel_view["embedding"]),
        "novel_id_centred": identity_cosine(novel, novel_view["embedding"], mean),
        "shape_mm": shape_error(model.vertices(z), truth),
        **{f"{name}_db": value for name, value in psnr.items()},
    }


def compare(
    model: Any,
    held_out: ShardedDataset,
    n: int,
    ridge: RidgeRegression,
    known_scene: bool,
    methods: Sequence[str] = METHODS,
    batch: int = 4,
) -> dict[str, dict[str, np.ndarray]]:
    """Score each method on the first `n` held-out people: method -> metric -> (n,), `seconds` a photo among them."""
    keys = ("identity", "maps", "image", "embedding", "landmarks", *SCENE_KEYS)
    terms = {name: build(node, "guidance") for name, node in model.config["guidance"].items()}
    rows: dict[str, list[dict[str, Tensor]]] = {method: [] for method in methods}
    size = build(model.config["fitting"], "fitting").size
    for start in range(0, n, batch):
        everyone = held_out.gather(range(start, min(start + batch, n)), keys)
        problem, found = problem_of(model, everyone, terms, known_scene, size)
        people = {key: value[found] for key, value in everyone.items()}
        for method in methods:
            z, scene, seconds = solve(method, problem, ridge)
            per_photo = torch.full((len(z),), seconds / len(z))
            rows[method].append(score(problem, people, z, scene) | {"seconds": per_photo})
    return {
        method: {key: torch.cat([row[key].cpu() for row in parts]).numpy() for key in parts[0]}
        for method, parts in rows.items()
    }
