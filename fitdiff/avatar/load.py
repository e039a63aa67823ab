"""Read an exported avatar back from its GLB alone: no checkpoint, no shape model."""

from __future__ import annotations

import io
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fitdiff.avatar.avatar import Avatar
from fitdiff.avatar.export import DIELECTRIC_F0, GENERATOR, MAP_NAMES
from fitdiff.colour import srgb_to_linear
from fitdiff.types import SPECULAR_SCALE, FaceMaps, Topology

DTYPES = {5126: "<f4", 5125: "<u4", 5123: "<u2"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


class AvatarError(ValueError):
    """A file that is not an avatar of ours; the message names it and says what to do."""


def load_avatar(path: str | os.PathLike[str]) -> Avatar:
    """Read an avatar from a .glb that `save_glb` wrote, or from the folder that holds it.

    Vertices are in mm again, exact to float32; maps to the 8 bits of the file. The 68 landmarks are not part of a
    GLB: those of the topology are all vertex 0.

    Raises:
        FileNotFoundError: there is no such file, or not exactly one .glb (or `avatar.glb`) in the folder.
        AvatarError: the file was not written by `save_glb`.
    """
    path = _find(Path(path))
    document, blob = _chunks(path)
    if document.get("asset", {}).get("generator") != GENERATOR:
        raise AvatarError(f"{path}: not written by {GENERATOR}, whose meshes and materials this reader knows")
    try:
        return _avatar(document, blob)
    except (KeyError, IndexError, TypeError, ValueError, OSError) as error:
        raise AvatarError(f"{path}: damaged ({type(error).__name__}: {error}); export the avatar again") from error


def _find(path: Path) -> Path:
    if path.is_dir():
        found = [path / "avatar.glb"] if (path / "avatar.glb").is_file() else sorted(path.glob("*.glb"))
        if len(found) != 1:
            raise FileNotFoundError(f"{path}: holds {len(found)} .glb files; name one, as in avatar={path}/face.glb")
        return found[0]
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such avatar; give a .glb or the folder that fit.py wrote")
    return path


def _chunks(path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON and the binary chunk (glTF 2.0, section 4.4)."""
    data = path.read_bytes()
    try:
        magic, version, _ = struct.unpack_from("<4sII", data)
        length, kind = struct.unpack_from("<I4s", data, 12)
        if (magic, version, kind) != (b"glTF", 2, b"JSON"):
            raise ValueError("no glTF 2.0 header")
        return json.loads(data[20 : 20 + length]), data[20 + length + 8 :]
    except (struct.error, ValueError) as error:
        raise AvatarError(f"{path}: not a binary glTF 2.0 file ({error})") from error


def _avatar(document: dict[str, Any], blob: bytes) -> Avatar:
    mesh = document["meshes"][0]
    primitive = mesh["primitives"][0]

    def array(accessor: int) -> Tensor:
        return torch.from_numpy(_accessor(document, blob, accessor))

    faces = array(primitive["indices"]).long().view(-1, 3)
    weights = torch.tensor([1.0, 0.0, 0.0]).repeat(68, 1)
    topology = Topology(faces, array(primitive["attributes"]["TEXCOORD_0"]), torch.zeros(68, 3).long(), weights)
    names = mesh.get("extras", {}).get("targetNames", [])
    targets = [array(target["POSITION"]) * 1000 for target in primitive.get("targets", [])]
    roughness = document["materials"][0]["pbrMetallicRoughness"]["roughnessFactor"]
    return Avatar(
        array(primitive["attributes"]["POSITION"]) * 1000,
        topology,
        _maps(document, blob),
        dict(zip(names, targets, strict=True)),
        shininess=2 / roughness**4 - 2,  # the inverse of `export.roughness`
        provenance=document["asset"].get("extras", {}),
    )


def _accessor(document: dict[str, Any], blob: bytes, index: int) -> np.ndarray:
    """(count, width) array of a dense or sparse accessor."""
    accessor = document["accessors"][index]
    dtype, count, width = DTYPES[accessor["componentType"]], accessor["count"], WIDTHS[accessor["type"]]
    if "bufferView" in accessor:
        values = np.frombuffer(_view(document, blob, accessor["bufferView"]), dtype).reshape(count, width).copy()
    else:
        values = np.zeros((count, width), dtype)
    if "sparse" in accessor:
        indices, replaced = accessor["sparse"]["indices"], accessor["sparse"]["values"]
        rows = np.frombuffer(_view(document, blob, indices["bufferView"]), DTYPES[indices["componentType"]])
        values[rows] = np.frombuffer(_view(document, blob, replaced["bufferView"]), dtype).reshape(-1, width)
    return values.astype(np.int64) if dtype != "<f4" else values


def _view(document: dict[str, Any], blob: bytes, index: int) -> bytes:
    view = document["bufferViews"][index]
    return blob[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]


def _maps(document: dict[str, Any], blob: bytes) -> FaceMaps:
    """Textures in the order of `MAP_NAMES`; base and specular colour are sRGB, normals 0.5 n + 0.5."""
    views = [document["images"][texture["source"]]["bufferView"] for texture in document["textures"]]
    pictures = [_picture(_view(document, blob, view)) for view in views[: len(MAP_NAMES)]]
    extension = document["materials"][0]["extensions"]["KHR_materials_specular"]
    factor = torch.tensor(extension["specularColorFactor"]).view(1, 3, 1, 1)
    specular = srgb_to_linear(pictures[1]) * factor * (DIELECTRIC_F0 / SPECULAR_SCALE)
    normals = FaceMaps.from_tensor(torch.cat([pictures[0], pictures[1], pictures[2]], 1) * 2 - 1).normals
    return FaceMaps(srgb_to_linear(pictures[0]), specular.clamp(0, 1), normals)


def _picture(data: bytes) -> Tensor:
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:  # all that glTF 2.0 knows
        return torch.from_numpy(np.array(image.convert("RGB"))).movedim(-1, 0)[None].float() / 255
