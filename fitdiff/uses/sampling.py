"""Draw faces from a trained model, and write what was drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fitdiff.alignment.photo import Photo
from fitdiff.avatar import Avatar, expression_offsets, save_glb, save_maps, save_obj
from fitdiff.avatar.pictures import contact_sheet, save_png
from fitdiff.avatar.relight import frontal_camera, studio_lighting
from fitdiff.diffusion.sampler import Known, conditioned, row_generators, sample
from fitdiff.faces import Faces, embed_photo, save_faces
from fitdiff.fitting import first_noise
from fitdiff.registry import build
from fitdiff.types import FaceMaps, composite

ACROSS = 10
"""Faces in a row of a contact sheet, and faces that are rendered at once."""


@torch.no_grad()
def render_neutral(
    model: Any, z_BN: Tensor, size: int, background: float = 0.85, expression_BE: Tensor | None = None,
    maps: FaceMaps | None = None,
) -> Tensor:  # fmt: skip
    """(B, 3, size, size) frontal studio renders of z on light grey, sRGB; neutral unless an expression is given.

    Args:
        maps: reflectance to show instead of that of z.
    """
    neutral, vertices = model.vertices(z_BN), model.vertices(z_BN, expression_BE)
    lighting = studio_lighting(len(vertices), vertices.device)
    maps = model.maps(z_BN) if maps is None else maps
    rendering = model.renderer(vertices, maps, frontal_camera(neutral), lighting, size)
    return composite(rendering, background)


@torch.no_grad()
def avatar_of(
    model: Any,
    z_1N: Tensor,
    expression_1E: Tensor | None = None,
    maps: FaceMaps | None = None,
    provenance: Mapping[str, str] | None = None,
) -> Avatar:
    """The avatar of one face, with its expressions as blendshapes; an expression that is given becomes its rest shape.

    Args:
        maps: reflectance instead of that of z, a batch of one.
    """
    identity, _ = model.latent.unpack(z_1N)
    return Avatar(
        model.shape_model(identity, expression_1E)[0].cpu(),
        model.shape_model.topology,
        (model.maps(z_1N) if maps is None else maps).to("cpu"),
        {name: offsets.cpu() for name, offsets in expression_offsets(model.shape_model, identity).items()},
        shininess=model.renderer.shininess,
        provenance={"generator": "fitdiff", **(provenance or {})},
    )


@dataclass(frozen=True)
class Samples:
    """Faces drawn from a model. What is saved as z is the neutral face with the maps that the autoencoder decodes.

    Attributes:
        model: that drew them. z: (n, N). photo: crop of the photo whose identity they have, (3, S, S), or None.
        embedding: (n, D) that they were drawn for, or None. expression: (n, E) that they show, or None: neutral.
        maps: of n faces, where they are not simply those of z. captions: one a face, or none.
    """

    model: Any
    z: Tensor
    photo: Tensor | None = None
    embedding: Tensor | None = None
    expression: Tensor | None = None
    maps: FaceMaps | None = None
    captions: Sequence[str] = ()

    @torch.no_grad()
    def reflectance(self, rows: slice = slice(None)) -> FaceMaps:
        """The faces' maps, or those of some of them."""
        return self.model.maps(self.z[rows]) if self.maps is None else self.maps[rows]

    def beside(self, photo: Tensor) -> Samples:
        """The same faces, shown with the photo (3, S, S) that their identity is from."""
        return replace(self, photo=photo)

    def sheet(self, size: int = 256) -> np.ndarray:
        """Contact sheet: each face, frontal, above its three maps; `ACROSS` faces, then the next below."""
        strips = [self._strip(first, size) for first in range(0, len(self.z), ACROSS)]
        width = strips[0].shape[1]
        return np.concatenate(
            [np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in strips]
        )

    def _strip(self, first: int, size: int) -> np.ndarray:
        """The part of the sheet that begins with a face."""
        some = slice(first, first + ACROSS)
        maps, expression = self.reflectance(some), self.expression if self.expression is None else self.expression[some]
        faces = render_neutral(self.model, self.z[some], size, expression_BE=expression, maps=maps)
        rows = {"face": list(faces), **{name: list(images) for name, images in maps.to_images().items()}}
        if self.photo is not None and not first:
            rows = {"photo": [self.photo], **rows}
        return contact_sheet(list(rows.values()), rows=list(rows), columns=self.captions[some], cell=size)

    def save(self, folder: str | Path, avatars: bool = False) -> Path:
        """Write samples.png and z.safetensors; with `avatars`, every face in a folder of its own, 00, 01, ...

        Maps that are not simply those of z, as of a completed texture, are written into these folders either way.
        """
        folder = Path(folder)
        save_png(self.sheet(), folder / "samples.png")
        save_faces(self.model, Faces(self.z, self.embedding), folder)
        if avatars:
            self.save_avatars(folder)
        elif self.maps is not None:
            for i in range(len(self.z)):
                save_maps(self.maps[i : i + 1].to("cpu"), folder / f"{i:02d}")
        return folder

    def save_avatars(self, folder: Path) -> None:
        """Write every face as GLB, OBJ, maps and z into `folder/00`, `folder/01`, ..."""
        for i in range(len(self.z)):
            row = slice(i, i + 1)
            expression = None if self.expression is None else self.expression[row]
            avatar = avatar_of(self.model, self.z[row], expression, self.reflectance(row))
            target = folder / f"{i:02d}"
            save_glb(avatar, target / "avatar.glb")
            save_obj(avatar, target / "avatar.obj")
            save_maps(avatar.maps, target)
            embedding = None if self.embedding is None else self.embedding[row]
            save_faces(self.model, Faces(self.z[row], embedding), target)


@torch.no_grad()
def draw(
    model: Any,
    noise_BN: Tensor,
    embedding_BD: Tensor | None = None,
    *,
    steps: int = 50,
    cfg_scale: float = 1.0,
    seed: int = 0,
    stream: int = 0,
    known: Known | None = None,
    sampler: Mapping[str, Any] | None = None,
) -> Tensor:
    """(B, N) faces by the reverse process from given noise, which every use of a checkpoint goes through.

    Args:
        noise_BN: standard normal, as from `fitting.first_noise`.
        embedding_BD: identities; None is unconditional.
        steps: of the sampler. cfg_scale: classifier-free guidance, 1 is off, 0 is unconditional.
        seed, stream: of the noise that stochastic samplers add, to row k a function of the two and k.
        known: parts of z that are given.
        sampler: config node; None is the checkpoint's.
    """
    predict_eps = conditioned(model.denoiser, embedding_BD, cfg_scale)
    generators = row_generators(seed, len(noise_BN), stream=stream)
    chosen = build(sampler or model.config["sampler"], "sampler")
    return sample(predict_eps, chosen, model.schedule, noise_BN, steps, generators, known)


def sample_faces(
    model: Any,
    n: int,
    photo: Photo | str | Path | None = None,
    *,
    embedding: Tensor | None = None,
    seed: int = 0,
    detector: Mapping[str, Any] | None = None,
    landmarks: Mapping[str, Any] | None = None,
    **options: Any,
) -> Samples:
    """Draw `n` faces. Face k is a function of (seed, k, condition): more faces begin with the fewer.

    Args:
        photo: condition on the identity in it. embedding: (D,) or (1, D), condition on this identity; without either,
            faces of nobody in particular.
        seed: of the noise. detector, landmarks: config nodes that replace the checkpoint's.
        options: of `draw`.

    Raises:
        PhotoError: the photo has no usable face.
    """
    faces = Faces(embedding=None if embedding is None else embedding.to(model.device).view(1, -1))
    if photo is not None:
        nodes = {"detector": detector, "landmarks": landmarks}
        faces = embed_photo(model, photo, {kind: node or model.config[kind] for kind, node in nodes.items()})
    condition = None if faces.embedding is None else faces.embedding.expand(n, -1)
    z = draw(model, first_noise(model, 1, n, seed), condition, seed=seed, **options)
    return Samples(model, z, None if faces.photo is None else faces.photo[0], condition)
