"""Embeddings of photos and of their fits by one or two recognition networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitdiff.alignment.crop import crop, crop_transform
from fitdiff.alignment.face import find_face, square_crop
from fitdiff.alignment.photo import load_photo
from fitdiff.avatar.relight import frontal_camera, studio_lighting
from fitdiff.evaluation.benchmark import Context
from fitdiff.evaluation.identity_photos import PersonPhoto
from fitdiff.evaluation.judge import build_judge
from fitdiff.evaluation.people import NOVEL, PHOTO
from fitdiff.evaluation.portraits import HeldOutPeople
from fitdiff.photo_fit import PICTURE_SIZE
from fitdiff.registry import build, name_of
from fitdiff.types import composite

GREY = 0.5
"""Behind the frontal face."""


@dataclass(frozen=True)
class Network:
    """A judge: its registered name, the network, the (D,) mean embedding of the training portraits where it guides."""

    name: str
    network: Any
    mean: NDArray | None = None

    def centred(self, embedding_ND: NDArray) -> NDArray | None:
        """Less the mean; None where there is none."""
        return None if self.mean is None else embedding_ND - self.mean


@dataclass(frozen=True)
class Embeddings:
    """(N, D) by one network: of the photos, of the fits in their scenes, of the fits frontal and neutral."""

    photo: NDArray
    fit: NDArray
    frontal: NDArray


def networks_of(model: Any, judge: str | None) -> list[Network]:
    """The network that guides the fits, and the held-out one.

    Raises:
        BenchmarkError, ComponentError, FileNotFoundError: see `build_judge`.
    """
    name = name_of("identity", model.config["identity"])
    networks = [Network(name, model.identity, model.embedding_mean.cpu().numpy())]
    if judge is not None:
        networks.append(Network(judge, build_judge(model, judge)))
    return networks


@torch.no_grad()
def embed_fits(
    context: Context, photos: Iterable[PersonPhoto], folders: Mapping[str, Any], networks: list[Network]
) -> dict[str, Embeddings]:
    """Embeddings by each network, a row a photo.

    Photo and fit are cut out alike, by the photo's landmarks: what differs is the face, not the crop.

    Args:
        folders: photo's name -> folder of its fit.
    """
    detectors = [build(context.node(kind), kind) for kind in ("detector", "landmarks")]
    rows: dict[str, list[list[Tensor]]] = {network.name: [] for network in networks}
    for photo in photos:
        square = square_crop(find_face(load_photo(photo.path), *detectors), PICTURE_SIZE).to(context.model.device)
        fit = torch.from_numpy(load_photo(folders[photo.name] / "render.png").image.copy()).permute(2, 0, 1)[None] / 255
        front, landmarks = frontal(context.model, context.model.load_faces(folders[photo.name]).require_z())
        for network in networks:
            seen = ((square.image, square.landmarks), (fit.to(square.image), square.landmarks), (front, landmarks))
            rows[network.name].append([embed(network.network, *image) for image in seen])
    return {
        name: Embeddings(*(torch.cat(column).cpu().numpy() for column in zip(*of, strict=True)))
        for name, of in rows.items()
    }


def frontal(model: Any, z: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 3, S, S) neutral faces from the front in studio light on grey, and their landmarks."""
    vertices = model.vertices(z)
    lighting = studio_lighting(len(z), z.device)
    rendering = model.renderer(vertices, model.maps(z), frontal_camera(vertices), lighting, PICTURE_SIZE)
    return composite(rendering, GREY), rendering.landmarks


def embed(network: Any, image_B3SS: Tensor, landmarks_B682: Tensor) -> Tensor:
    """(B, D)."""
    return network(crop(image_B3SS, crop_transform(network, landmarks_B682), network.size)).embedding


@torch.no_grad()
def embed_people(people: HeldOutPeople, n: int, network: Network, batch: int = 8) -> tuple[NDArray, list[int]]:
    """(2 n, D) embeddings of both portraits of synthetic people, and whose they are."""
    rows, whose = [], []
    for start in range(0, n, batch):
        some = people.gather(range(start, min(start + batch, n)))
        for view in (PHOTO, NOVEL):
            image = some["image"][:, view].to(people.model.device).float() / 255
            rows.append(embed(network.network, image, some["landmarks"][:, view].to(image)).cpu())
            whose += range(start, start + len(image))
    return np.concatenate([row.numpy() for row in rows]), whose
