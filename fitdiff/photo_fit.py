"""Fit photos with a trained model, and write what came out."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as nnf
from rich.table import Table
from torch import Tensor

from fitdiff.alignment.crop import crop, crop_transform
from fitdiff.alignment.face import FaceCrop
from fitdiff.alignment.photo import Photo, load_photo
from fitdiff.avatar import Avatar, expression_offsets, save_glb, save_maps, save_obj
from fitdiff.avatar.pictures import comparison, save_png
from fitdiff.avatar.relight import frontal_camera, standard_views, studio_lighting
from fitdiff.diffusion.sampler import conditioned, sample
from fitdiff.evaluation.metrics import identity_cosine, landmark_error
from fitdiff.fitting import FitProblem, FitResult, OnStep
from fitdiff.observe import first_scene, observe
from fitdiff.registry import build
from fitdiff.storage import write_json
from fitdiff.types import Camera, Lighting, Observation, composite

CHOICES = ("sampler", "guidance", "fitting", "detector", "landmarks")
"""Kinds that a call of `fit_photo` may choose anew."""

PICTURE_SIZE = 512
"""Side of the pictures that a fit writes, in pixels."""


@dataclass(frozen=True)
class PhotoFit:
    """One fitted photo.

    Attributes:
        model: that made it. photo, crop, observation: what was fitted. result: of the fit; batch of one.
        metrics: `id_cosine` and `landmark_error` of the fit and of its baselines. seconds: of all, and of the guidance.
        notes: what a user should know.
    """

    model: Any
    photo: Photo
    crop: FaceCrop
    observation: Observation
    result: FitResult
    metrics: dict[str, Any]
    seconds: dict[str, float]
    notes: list[str] = field(default_factory=list)

    def avatar(self) -> Avatar:
        """The neutral face with its expressions as blendshapes."""
        with torch.no_grad():
            identity, _ = self.model.latent.unpack(self.result.z)
            return Avatar(
                self.model.shape_model(identity)[0].cpu(),
                self.model.shape_model.topology,
                self.model.maps(self.result.z).to("cpu"),
                {name: offsets.cpu() for name, offsets in expression_offsets(self.model.shape_model, identity).items()},
                shininess=self.model.renderer.shininess,
                provenance={"generator": "fitdiff", "photo": self.photo.path.name if self.photo.path else "array"},
            )

    def save(self, folder: str | Path) -> Path:
        """Write avatar.glb/.obj/.mtl, the maps, render.png, comparison.png and fit.json into a folder."""
        folder = Path(folder)
        avatar = self.avatar()
        save_glb(avatar, folder / "avatar.glb")
        save_obj(avatar, folder / "avatar.obj")
        save_maps(avatar.maps, folder)
        model, scene, z = self.model, self.result.scene, self.result.z
        photo = nnf.interpolate(self.observation.image, size=(PICTURE_SIZE,) * 2, mode="bicubic").clamp(0, 1)
        with torch.no_grad():
            vertices, neutral, maps = model.vertices(z, scene.expression), model.vertices(z), model.maps(z)
            views = standard_views(model.renderer, vertices, neutral, maps, scene, PICTURE_SIZE)
        save_png(composite(views["fit"], photo)[0], folder / "render.png")
        save_png(
            comparison(photo, views["fit"], views["relit_left"], views["frontal"], maps), folder / "comparison.png"
        )
        write_json(folder / "fit.json", self.report())
        return folder

    def report(self) -> dict[str, Any]:
        """What fit.json holds. Angles in radians, lengths in mm, NDC of the crop; `crop_square` leads to pixels."""
        scene = {name: _rounded(value[0]) for name, value in self.result.scene.to_tensors().items()}
        names = self.model.shape_model.expression_names
        scene["expression"] = dict(zip(names, scene["expression"], strict=True))
        return {
            "photo": self.photo.path.name if self.photo.path else None,
            **self.metrics,
            "seconds": {name: round(value, 2) for name, value in self.seconds.items()},
            "notes": self.notes,
            "crop_square": _rounded(self.crop.square[0]),
            "scene": scene,
            "identity_code": _rounded(self.model.latent.unpack(self.result.z)[0][0]),
            "grad_norms": {name: round(value.item(), 6) for name, value in self.result.grad_norms.items()},
            "steps": [{name: round(v[0].item(), 6) for name, v in step.items()} for step in self.result.history],
        }

    def summary(self) -> Table:
        """The figures that matter, for the terminal."""
        table = Table("", "fit", "unguided", "mean face")
        for key, label in (
            ("id_cosine", "identity cosine, this view"),
            ("id_cosine_centred", "… centred on the training mean"),
            ("id_cosine_frontal", "identity cosine, frontal neutral"),
            ("landmark_error", "landmark error / eye distance"),
        ):
            table.add_row(
                label, *(f"{self.metrics[key][method]:.3f}" for method in ("guided", "unguided", "mean_face"))
            )
        table.caption = f"{self.seconds['total']:.1f} s"
        return table


def fit_photo(
    model: Any,
    photo: Photo | str | Path | np.ndarray,
    *,
    seed: int = 0,
    on_step: OnStep | None = None,
    **choices: Mapping[str, Any] | None,
) -> PhotoFit:
    """Fit one photo: `FitDiff.fit`.

    Args:
        photo: a path, a `Photo`, or a uint8 RGB array (H, W, 3).
        seed: of the noise that the reverse diffusion starts from.
        on_step: progress callback.
        choices: config nodes that replace the checkpoint's `sampler`, `guidance`, `fitting`, `detector`, `landmarks`.

    Raises:
        PhotoError: the photo cannot be read or has no usable face.
        ComponentError: a choice is not registered.
    """
    start = time.perf_counter()
    if isinstance(photo, (str, Path)):
        photo = load_photo(photo)
    elif isinstance(photo, np.ndarray):
        photo = Photo(photo)
    nodes = {key: choices.get(key) or model.config[key] for key in CHOICES}
    sampler, fitting, detector, landmarks = (
        build(nodes[k], k) for k in ("sampler", "fitting", "detector", "landmarks")
    )
    terms = {name: build(node, "guidance") for name, node in nodes["guidance"].items()}
    observation, face_crop, notes = observe([photo], model, detector, landmarks, fitting.size)
    scene = first_scene(model, observation, face_crop.principal_point, face_crop.focal)
    problem = FitProblem(model, terms, observation, scene)
    guided_from = time.perf_counter()
    result = fitting(problem, sampler, torch.Generator().manual_seed(seed), on_step)
    fitted = time.perf_counter()
    notes += [f"G_vgg is {term.name}" for name, term in terms.items() if name == "vgg"]
    metrics = _metrics(problem, result, sampler, fitting.steps, seed)
    seconds = {"guidance": fitted - guided_from, "total": time.perf_counter() - start}
    return PhotoFit(model, photo, face_crop, observation, result, metrics, seconds, notes)


@torch.no_grad()
def _metrics(problem: FitProblem, result: FitResult, sampler: Any, steps: int, seed: int) -> dict[str, Any]:
    """The fit beside an unguided sample and the mean face (z = 0), all in the fitted scene."""
    model, observation = problem.model, problem.observation
    target = observation.features.embedding
    noise = torch.randn(1, model.latent.length, generator=torch.Generator().manual_seed(seed)).to(model.device)
    unguided = sample(conditioned(model.denoiser, target), sampler, model.schedule, noise, steps)
    rows = {"guided": result.z, "unguided": unguided, "mean_face": torch.zeros_like(result.z)}
    keys = ("id_cosine", "id_cosine_centred", "id_cosine_frontal", "landmark_error")
    figures: dict[str, dict[str, float]] = {key: {} for key in keys}
    for name, z in rows.items():
        prediction = problem.predict(z, result.scene)
        embedding = prediction.features.embedding
        figures["id_cosine"][name] = identity_cosine(embedding, target).item()
        figures["id_cosine_centred"][name] = identity_cosine(embedding, target, model.embedding_mean).item()
        figures["id_cosine_frontal"][name] = identity_cosine(frontal_embedding(model, z), target).item()
        figures["landmark_error"][name] = landmark_error(prediction.rendering.landmarks, observation.landmarks).item()
    return {key: {name: round(value, 4) for name, value in row.items()} for key, row in figures.items()}


def render_embedding(model: Any, z: Tensor, camera: Camera, lighting: Lighting, expression: Tensor | None, size: int = 224, background: Tensor | float = 0.5) -> Tensor:  # fmt: skip # noqa: E501
    """(B, D) identity embedding of z rendered in a scene over a background."""
    rendering = model.renderer(model.vertices(z, expression), model.maps(z), camera, lighting, size)
    transform = crop_transform(model.identity, rendering.landmarks)
    return model.identity(crop(composite(rendering, background), transform, model.identity.size)).embedding


def frontal_embedding(model: Any, z: Tensor) -> Tensor:
    """(B, D) identity embedding of z, frontal, neutral, in studio light."""
    return render_embedding(model, z, frontal_camera(model.vertices(z)), studio_lighting(len(z), z.device), None)


def _rounded(value: Tensor) -> Any:
    return json.loads(json.dumps(np.round(value.detach().cpu().double().numpy(), 6).tolist()))
