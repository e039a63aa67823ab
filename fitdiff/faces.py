"""Faces as files: z, and the identity embedding it was drawn or fitted for. What every use of a checkpoint starts from.

Legend of shape suffixes: P people · N length of z · D length of an embedding.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fitdiff.storage import CheckpointError, read_tensors, write_tensors
from fitdiff.types import TensorRecord

FILE = "z.safetensors"
"""Name of the file in the folder of a fit, or of samples."""

CROP_SIZE = 224
"""Side of the photo's crop from which an identity is read, in pixels."""


class UseError(ValueError):
    """A request that cannot be served; the message says what to give instead."""


@dataclass(frozen=True)
class Faces(TensorRecord):
    """People, as far as they are known.

    Attributes:
        z: (P, N), or None: only the identity is known. embedding: (P, D), or None: nobody's in particular.
        photo: (P, 3, S, S) sRGB crops of the photos that the embeddings are from, for pictures.
    """

    z: Tensor | None = None
    embedding: Tensor | None = None
    photo: Tensor | None = None

    def require_z(self) -> Tensor:
        """z, or say how to get it.

        Raises:
            UseError: only an identity is known.
        """
        if self.z is None:
            raise UseError(
                "got an identity without a face: fit it first (python fit.py photo=me.jpg), and give the fit's folder, "
                "face=outputs/fits/me"
            )
        return self.z


def save_faces(model: Any, faces: Faces, folder: str | Path) -> Path:
    """Write z and embeddings as `z.safetensors` into a folder, with a digest of what gives z its meaning."""
    tensors = {"z": faces.require_z(), "embedding": faces.embedding, "meaning": meaning(model)}
    path = Path(folder) / FILE
    write_tensors(path, {name: value for name, value in tensors.items() if value is not None})
    return path


def load_faces(model: Any, path: str | Path) -> Faces:
    """Read what `save_faces` wrote: a file, or the folder that holds it. On the model's device.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: not such a file, or of a checkpoint to which z means something else.
    """
    path = Path(path)
    path = path / FILE if os.path.isdir(path) else path
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such face; give the folder that fit.py or sample.py wrote")
    tensors = read_tensors(path)
    z, embedding = tensors.get("z"), tensors.get("embedding")
    if z is None or z.ndim != 2 or not len(z) or not _are_numbers(z):
        raise CheckpointError(f"{path}: holds no faces; give the folder that fit.py or sample.py wrote")
    if z.shape[1] != model.latent.length or not torch.equal(tensors.get("meaning", z.new_zeros(0)), meaning(model)):
        raise CheckpointError(
            f"{path}: these faces are of another checkpoint, to whose z this one gives another meaning: give theirs"
        )
    expected = (len(z), model.identity.dim)
    if embedding is not None and (embedding.shape != expected or not _are_numbers(embedding)):
        raise CheckpointError(
            f"{path}: embeddings of shape {list(embedding.shape)} and type {embedding.dtype}, expected finite float32 "
            f"of shape {list(expected)}"
        )
    return Faces(z, embedding).to(model.device)


def _are_numbers(values: Tensor) -> bool:
    """As `save_faces` writes them: float32, all finite."""
    return values.dtype == torch.float32 and bool(values.isfinite().all())


def meaning(model: Any) -> Tensor:
    """(32,) uint8 digest of what turns z into a face: shape model and latent space.

    The statistics of the latent stand for the autoencoder whose latents they are. Denoisers do not count: models that
    share an autoencoder share their z.
    """
    digest = hashlib.sha256(json.dumps(model.versions, sort_keys=True).encode())
    for part in (model.latent.mean, model.latent.std):
        digest.update(part.detach().cpu().numpy().astype("<f4").tobytes())
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)


def load_embedding(model: Any, path: str | Path) -> Tensor:
    """(P, D) identity embeddings from a .npy file of shape (D,) or (P, D).

    Raises:
        UseError: the file is not readable, or of another network.
    """
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)  # a header's claims of a size get no memory
    except Exception as error:  # damaged headers raise whatever the reader stumbles over
        raise UseError(f"{path}: cannot be read as a .npy file of numbers ({error})") from error
    if (
        not isinstance(values, np.ndarray)
        or values.dtype.kind not in "fiu"
        or values.ndim not in (1, 2)
        or values.shape[-1] != model.identity.dim
        or not values.size
    ):
        shape = getattr(values, "shape", None)
        raise UseError(
            f"{path}: got an array of shape {shape}, expected numbers of shape ({model.identity.dim},): the embedding "
            f"of {type(model.identity).__name__}, as FitDiff.embed gives it"
        )
    embedding = torch.from_numpy(values.astype(np.float32)).view(-1, model.identity.dim)
    if not embedding.isfinite().all():
        raise UseError(f"{path}: holds numbers that are not finite")
    return embedding.to(model.device)


def find_faces(model: Any, source: str | Path, nodes: Mapping[str, Any]) -> Faces:
    """Whoever a path names: a photo, an embedding (.npy), or the folder of a fit or of samples.

    Args:
        nodes: configs of `detector` and `landmarks`, for photos.

    Raises:
        PhotoError: the photo has no usable face. FileNotFoundError, CheckpointError, UseError: see the loaders.
    """
    path = Path(source)
    if os.path.isdir(path) or path.suffix == ".safetensors":  # False of names that no file can have
        return load_faces(model, path)
    if path.suffix == ".npy":
        return Faces(embedding=load_embedding(model, path))
    return embed_photo(model, path, nodes)


def embed_photo(model: Any, photo: Any, nodes: Mapping[str, Any]) -> Faces:
    """The identity of the largest face in a photo (a path or a `Photo`), with the crop that it was read from.

    Raises:
        PhotoError: the photo cannot be read, or has no usable face.
    """
    from fitdiff.alignment.photo import load_photo
    from fitdiff.observe import observe
    from fitdiff.registry import build

    photo = load_photo(photo) if isinstance(photo, (str, Path)) else photo
    parts = (build(nodes[kind], kind) for kind in ("detector", "landmarks"))
    observation, _, _ = observe([photo], model, *parts, CROP_SIZE)
    return Faces(embedding=observation.features.embedding, photo=observation.image)
