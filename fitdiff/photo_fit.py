"""Fit photos with a trained model, and write what came out."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as nnf
from rich.table import Table
from torch import Tensor

from fitdiff.alignment.crop import crop, crop_transform
from fitdiff.alignment.face import DetectedFace, FaceCrop, find_faces
from fitdiff.alignment.photo import Photo, load_photo
from fitdiff.avatar import Avatar, expression_offsets, save_glb, save_maps, save_obj
from fitdiff.avatar.pictures import comparison, save_png
from fitdiff.avatar.relight import frontal_camera, standard_views, studio_lighting
from fitdiff.diffusion.sampler import Known, conditioned, row_generators, sample
from fitdiff.evaluation.metrics import identity_cosine, landmark_error
from fitdiff.faces import Faces, save_faces
from fitdiff.fitting import FitProblem, FitResult, OnStep, first_noise
from fitdiff.observe import first_scene, observe_faces
from fitdiff.registry import build
from fitdiff.storage import write_json
from fitdiff.types import Camera, GuidanceTerm, Lighting, Observation, composite

if TYPE_CHECKING:
    from fitdiff.uses.spread import Spread

CHOICES = ("sampler", "guidance", "fitting", "detector", "landmarks")
"""Kinds that a call of `fit_photo` may choose anew."""

PICTURE_SIZE = 512
"""Side of the pictures that a fit writes, in pixels."""


@dataclass(frozen=True)
class Candidates:
    """Several fits of one person: z (K, N), and the loss G (K,) of each in its own fitted scene."""

    z: Tensor
    G: Tensor


@dataclass(frozen=True)
class PhotoFit:
    """One fitted photo.

    Attributes:
        model: that made it. photo, crop, observation: what was fitted. result: of the fit; batch of one.
        metrics: `id_cosine` and `landmark_error` of the fit and of its baselines. seconds: of all, and of the guidance.
        notes: what a user should know. candidates: all samples, where more than one was drawn.
    """

    model: Any
    photo: Photo
    crop: FaceCrop
    observation: Observation
    result: FitResult
    metrics: dict[str, Any]
    seconds: dict[str, float]
    notes: list[str] = field(default_factory=list)
    candidates: Candidates | None = None

    @property
    def finite(self) -> bool:
        """Whether the fit is made of numbers: guidance of too large a scale can overflow."""
        values = (self.result.z, *self.result.scene.to_tensors().values())
        return all(bool(value.isfinite().all()) for value in values)

    def avatar(self) -> Avatar:
        """The neutral face with its expressions as blendshapes."""
        # Bytes of a file name that are no UTF-8 are surrogates, which no file format takes.
        photo = self.photo.path.name.encode("utf-8", "replace").decode() if self.photo.path else "array"
        with torch.no_grad():
            identity, _ = self.model.latent.unpack(self.result.z)
            return Avatar(
                self.model.shape_model(identity)[0].cpu(),
                self.model.shape_model.topology,
                self.model.maps(self.result.z).to("cpu"),
                {name: offsets.cpu() for name, offsets in expression_offsets(self.model.shape_model, identity).items()},
                shininess=self.model.renderer.shininess,
                provenance={"generator": "fitdiff", "photo": photo},
            )

    def save(self, folder: str | Path, avatar: bool = True) -> Path:
        """Write avatar.glb/.obj/.mtl and the maps, unless not asked for; render.png, comparison.png and fit.json."""
        folder = Path(folder)
        if avatar:
            self.save_avatar(folder)
        model, scene, z = self.model, self.result.scene, self.result.z
        photo = nnf.interpolate(self.observation.image, size=(PICTURE_SIZE,) * 2, mode="bicubic").clamp(0, 1)
        with torch.no_grad():
            vertices, neutral, maps = model.vertices(z, scene.expression), model.vertices(z), model.maps(z)
            views = standard_views(model.renderer, vertices, neutral, maps, scene, PICTURE_SIZE)
        save_png(composite(views["fit"], photo)[0], folder / "render.png")
        save_png(
            comparison(photo, views["fit"], views["relit_left"], views["frontal"], maps), folder / "comparison.png"
        )
        save_faces(model, Faces(z, self.observation.features.embedding), folder)
        if self.spread is not None:
            save_png(self.spread.picture(), folder / "spread.png")
        write_json(folder / "fit.json", self.report())
        return folder

    def save_avatar(self, folder: Path) -> None:
        """Write avatar.glb/.obj/.mtl and the maps."""
        avatar = self.avatar()
        save_glb(avatar, folder / "avatar.glb")
        save_obj(avatar, folder / "avatar.obj")
        save_maps(avatar.maps, folder)

    @cached_property
    def spread(self) -> Spread | None:
        """How far the candidates differ; None if there is only one."""
        from fitdiff.uses.spread import spread_of  # brings OpenCV, which no other fit waits for

        return None if self.candidates is None else spread_of(self.model, self.candidates.z)

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
            **self._about_candidates(),
            "grad_norms": {name: round(value.item(), 6) for name, value in self.result.grad_norms.items()},
            "steps": [{name: round(v[0].item(), 6) for name, v in step.items()} for step in self.result.history],
        }

    def _about_candidates(self) -> dict[str, Any]:
        if self.candidates is None:
            return {}
        return {"candidates_G": _rounded(self.candidates.G), "spread": self.spread.figures()}

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
    model: Any, photo: Photo | str | Path | np.ndarray, face: str | int = "largest", **options: Any
) -> PhotoFit:
    """Fit one face of one photo: `FitDiff.fit`.

    Args:
        photo: a path, a `Photo`, or a uint8 RGB array (H, W, 3).
        face: "largest", or a number of which 1 is the largest.
        options: of `fit_faces`.

    Raises:
        PhotoError: the photo cannot be read or has no usable face.
        ComponentError: a choice is not registered.
    """
    if isinstance(photo, (str, Path)):
        photo = load_photo(photo)
    elif isinstance(photo, np.ndarray):
        photo = Photo(photo)
    nodes = {key: options.get(key) or model.config[key] for key in ("detector", "landmarks")}
    found = find_faces(photo, *(build(node, kind) for kind, node in nodes.items()), which=face)
    return fit_faces(model, found[:1], **options)[0]


def fit_faces(
    model: Any,
    faces: Sequence[DetectedFace],
    *,
    shared: bool = False,
    samples: int = 1,
    seed: int = 0,
    on_step: OnStep | None = None,
    known: Known | None = None,
    terms: Mapping[str, GuidanceTerm] | None = None,
    **choices: Mapping[str, Any] | None,
) -> list[PhotoFit]:
    """Fit faces of photos, all at once.

    Args:
        faces: from `alignment.face.find_face`.
        shared: they are of one person: one z for all, a scene for each.
        samples: fits of each person from as many noises (at a `temperature` of 1 where it is 0, which has no noise);
            the one with the least G is the result, all are `candidates`.
        seed: of the noise that the reverse diffusion starts from; a fit does not depend on what it is batched with.
        on_step: progress callback.
        known: parts of z that are given.
        terms: guidance terms beside the chosen ones.
        choices: config nodes that replace the checkpoint's `sampler`, `guidance`, `fitting`; `detector` and `landmarks`
            are of no use here.

    Returns:
        One fit a face, in order.
    """
    start = time.perf_counter()
    nodes = {key: choices.get(key) or model.config[key] for key in CHOICES}
    if samples > 1 and nodes["fitting"].get("temperature") == 0:  # from the mean, every sample would be the same
        nodes["fitting"] = {**nodes["fitting"], "temperature": 1.0}
    sampler, fitting = (build(nodes[k], k) for k in ("sampler", "fitting"))
    guidance = {name: build(node, "guidance") for name, node in nodes["guidance"].items()} | dict(terms or {})
    observation, crops = observe_faces(faces, model, fitting.size)
    scene = first_scene(model, observation, crops.principal_point, crops.focal)
    people = 1 if shared else len(faces)
    person = torch.zeros(len(faces), dtype=torch.int64, device=model.device) if shared else None
    problem = FitProblem(model, guidance, observation, scene, person=person, known=known)
    guided_from = time.perf_counter()
    noise = first_noise(model, people, samples, seed)
    result = fitting(problem.repeat(samples), sampler, noise, row_generators(seed, samples, people), on_step)
    best, candidates = _choose(problem, result, samples)
    fitted = time.perf_counter()
    unguided = _unguided(problem, sampler, fitting.steps, noise[::samples], seed)
    metrics = _metrics(problem, best, unguided)
    about_terms = tuple(f"G_vgg is {term.name}" for name, term in guidance.items() if name == "vgg")
    now = time.perf_counter()
    seconds = {"guidance": (fitted - guided_from) / len(faces), "total": (now - start) / len(faces)}
    rows = torch.arange(len(faces), device=model.device)[:, None]
    fits = []
    for i, face in enumerate(faces):
        who = 0 if shared else i
        figures = {key: {name: values[i] for name, values in row.items()} for key, row in metrics.items()}
        one = best.select(rows[who], rows[i])
        notes = [*face.notes, *about_terms]
        fits.append(
            PhotoFit(
                model, face.photo, crops[rows[i]], observation[rows[i]], one, figures, seconds, notes, candidates[who]
            )
        )
    return fits


def _choose(problem: FitProblem, result: FitResult, samples: int) -> tuple[FitResult, list[Candidates | None]]:
    """The best sample of each person by G at the result, and all of each person."""
    if samples == 1:
        return result, [None] * len(result.z)
    with torch.no_grad():
        losses = torch.stack(list(problem.repeat(samples).losses(result.z, result.scene).values())).sum(0)
    G = losses.view(-1, samples)
    best = G.nan_to_num(torch.inf).argmin(1)  # a sample that diverged is no reason to lose the others
    people, photos = (torch.arange(len(k), device=k.device) * samples + k for k in (best, problem.of_photos(best)))
    candidates = [Candidates(z, g) for z, g in zip(result.z.view(len(G), samples, -1), G, strict=True)]
    return result.select(people, photos), candidates


@torch.no_grad()
def _unguided(problem: FitProblem, sampler: Any, steps: int, noise: Tensor, seed: int) -> Tensor:
    """(P, N) samples for the people's embeddings alone, from the noise of each one's first fit."""
    predict_eps = conditioned(problem.model.denoiser, problem.embedding)
    return sample(predict_eps, sampler, problem.model.schedule, noise, steps, row_generators(seed, 1, len(noise)))


@torch.no_grad()
def _metrics(problem: FitProblem, result: FitResult, unguided: Tensor) -> dict[str, dict[str, list[float]]]:
    """The fits beside unguided samples and the mean face (z = 0), all in the fitted scenes; a number a photo."""
    model, observation = problem.model, problem.observation
    target = observation.features.embedding
    rows = {"guided": result.z, "unguided": unguided, "mean_face": torch.zeros_like(result.z)}
    keys = ("id_cosine", "id_cosine_centred", "id_cosine_frontal", "landmark_error")
    figures: dict[str, dict[str, list[float]]] = {key: {} for key in keys}
    for name, z in rows.items():
        prediction = problem.predict(z, result.scene)
        embedding = prediction.features.embedding
        frontal = problem.of_photos(frontal_embedding(model, z))
        values = (
            identity_cosine(embedding, target),
            identity_cosine(embedding, target, model.embedding_mean),
            identity_cosine(frontal, target),
            landmark_error(prediction.rendering.landmarks, observation.landmarks),
        )
        for key, value in zip(keys, values, strict=True):
            figures[key][name] = [round(x, 4) for x in value.tolist()]
    return figures


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
