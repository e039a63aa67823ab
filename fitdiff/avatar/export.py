"""An avatar as files: GLB for viewers and engines, OBJ for modelling tools, PNG maps for everything else.

Reflectance in the GLB (glTF 2.0, Appendix B, with the extension KHR_materials_specular)
    - base colour = diffuse albedo, metallic 0.
    - F0 = min(0.04 specularColorFactor specularColorTexture, 1). Our F0 is 0.08 specular_albedo, so the factor is 2 and
      the texture is the specular albedo, encoded as sRGB as the extension asks. F90 stays 1, as for every dielectric.
    - roughness: glTF's lobe is GGX of width alpha = roughness^2, ours is Blinn-Phong of exponent k. The peaks of
      the two normal distributions, 1 / (pi alpha^2) and (k + 2) / (2 pi), agree for alpha^2 = 2 / (k + 2).
    - normals = 0.5 n + 0.5. glTF's +X right, +Y up of the texture are our +u, -v. Tangents are written, so that readers
      use exactly this frame instead of making their own (MikkTSpace).
    - doubleSided: the mesh is a mask without a back; culled from behind it would look half missing.
"""

from __future__ import annotations

import io
import json
import os
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as nnf
from PIL import Image
from torch import Tensor

from fitdiff.avatar.avatar import Avatar
from fitdiff.avatar.pictures import encode_png, save_png, to_uint8
from fitdiff.colour import linear_to_srgb
from fitdiff.geometry import vertex_normals, vertex_tangents
from fitdiff.storage import write_atomically
from fitdiff.types import SPECULAR_SCALE, FaceMaps

GENERATOR = "FitDiff"
DIELECTRIC_F0 = 0.04
"""glTF's F0 of a dielectric (index of refraction 1.5), which `specularColorFactor` scales."""
MAP_NAMES = ("diffuse", "specular", "normals")

SMALLEST_MOVE, SMALLEST_TURN = 1e-6, 1e-3
"""A blendshape leaves out what moves a vertex by less than a micrometre, or its normal by less than 0.06 degrees."""

# Enumerations of glTF 2.0 (sections 5.1.3, 5.11.5 and 5.26).
FLOAT, UNSIGNED_INT, UNSIGNED_SHORT = 5126, 5125, 5123
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
LINEAR, LINEAR_MIPMAP_LINEAR, CLAMP_TO_EDGE = 9729, 9987, 33071


def save_maps(maps: FaceMaps, folder: str | os.PathLike[str]) -> list[Path]:
    """Write diffuse.png (sRGB), specular.png (linear, 255 is F0 = 0.08) and normals.png (0.5 n + 0.5), 8 bits each.

    Args:
        maps: a batch of one.
        folder: made if missing; files in it are replaced, each atomically.

    Returns:
        The three paths.
    """
    images = maps.to_images()
    return [save_png(images[name][0], Path(folder) / f"{name}.png") for name in MAP_NAMES]


def load_maps(folder: str | os.PathLike[str]) -> FaceMaps:
    """Read what `save_maps` wrote: a batch of one, float32, exact to the 8 bits of the files.

    Raises:
        FileNotFoundError: one of the three files is missing.
        ValueError: the files are not square images of one size.
    """
    images = [_read_rgb(Path(folder) / f"{name}.png") for name in MAP_NAMES]
    shapes = {image.shape for image in images}
    if len(shapes) > 1 or images[0].shape[0] != images[0].shape[1]:
        raise ValueError(f"{folder}: maps have shapes {sorted(shapes)}, expected three square images of one size")
    packed = torch.from_numpy(np.concatenate(images, -1)).movedim(-1, 0)[None].float()
    return FaceMaps.from_tensor(packed * (2 / 255) - 1)


def save_obj(avatar: Avatar, path: str | os.PathLike[str]) -> Path:
    """Write path (.obj, mm), its .mtl and three textures beside it, all named after the path.

    Texture coordinates are flipped, as OBJ's v points up. The normal map is given as `norm` (the PBR extension of MTL):
    `map_Bump` means a height map, and readers that know both would apply the picture twice. `Ns` is the Blinn-Phong
    exponent k; MTL's lobe is not normalised, so `Ks` holds the factor that normalises one, times 0.08. The OBJ is
    written last, so that it never points at a missing file.

    Returns:
        The path of the .obj.
    """
    path = Path(path)
    # MTL and OBJ separate words by spaces: a name with a space in it is lost by many readers.
    stem = re.sub(r"\s+", "_", path.stem)
    for name, image in avatar.maps.to_images().items():
        save_png(image[0], path.with_name(f"{stem}_{name}.png"))
    write_atomically(path.with_name(f"{stem}.mtl"), _mtl(stem, avatar.shininess).encode())
    return write_atomically(path, _obj(avatar, f"{stem}.mtl"))


def save_glb(avatar: Avatar, path: str | os.PathLike[str]) -> Path:
    """Write one self-contained glTF 2.0 binary file: metres, +y up, the face looks along +z, textures inside.

    Expressions become morph targets, sparse where they leave vertices alone, named in `mesh.extras.targetNames`, the
    place where engines look for them; the provenance goes to `asset.extras`, its licence to `asset.copyright` too. See
    the module's head for the material.

    Returns:
        The path.
    """
    return write_atomically(path, _Glb().encode(avatar))


def roughness(shininess: float) -> float:
    """glTF's perceptual roughness of a Blinn-Phong exponent: (2 / (k + 2))^(1/4), in (0, 1]."""
    return (2 / (shininess + 2)) ** 0.25


class _Glb:
    """Collects binary data and its description, then packs both (glTF 2.0, section 4.4)."""

    def __init__(self) -> None:
        self.blob = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def encode(self, avatar: Avatar) -> bytes:
        """The whole file."""
        document = {
            "asset": _asset(avatar),
            "extensionsUsed": ["KHR_materials_specular"],
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"name": "face", "mesh": 0}],
            "meshes": [self._mesh(avatar)],
            "materials": [_material(avatar.shininess)],
            "samplers": [
                {
                    "magFilter": LINEAR,
                    "minFilter": LINEAR_MIPMAP_LINEAR,
                    "wrapS": CLAMP_TO_EDGE,
                    "wrapT": CLAMP_TO_EDGE,
                }
            ],
            "textures": [{"source": i, "sampler": 0} for i in range(len(MAP_NAMES))],
            "images": self._images(avatar.maps),
            "accessors": self.accessors,
            "bufferViews": self.views,
            "buffers": [{"byteLength": len(self.blob)}],
        }
        return _container(json.dumps(document, separators=(",", ":")).encode(), bytes(self.blob))

    def _mesh(self, avatar: Avatar) -> dict[str, Any]:
        faces, uv = avatar.topology.faces, avatar.topology.uv
        shapes = torch.stack([avatar.vertices, *(avatar.vertices + d for d in avatar.expressions.values())])
        metres = shapes.detach().double().cpu() / 1000
        normals, tangents = _frames(metres, faces.cpu(), uv.cpu())
        primitive: dict[str, Any] = {
            "attributes": {
                "POSITION": self._accessor(metres[0], "VEC3"),
                "NORMAL": self._accessor(normals[0], "VEC3"),
                "TANGENT": self._accessor(tangents, "VEC4"),
                "TEXCOORD_0": self._accessor(uv, "VEC2"),
            },
            "indices": self._accessor(faces.reshape(-1), "SCALAR"),
            "material": 0,
        }
        mesh: dict[str, Any] = {"name": "face", "primitives": [primitive]}
        if avatar.expressions:
            primitive["targets"] = [
                {"POSITION": self._sparse(position, SMALLEST_MOVE), "NORMAL": self._sparse(normal, SMALLEST_TURN)}
                for position, normal in zip(metres[1:] - metres[0], normals[1:] - normals[0], strict=True)
            ]
            mesh |= {"weights": [0.0] * len(avatar.expressions), "extras": {"targetNames": list(avatar.expressions)}}
        return mesh

    def _images(self, maps: FaceMaps) -> list[dict[str, Any]]:
        """Base colour and specular colour as sRGB, normals as they are: the textures of `_material`, in its order."""
        images = maps.to_images() | {"specular": linear_to_srgb(maps.specular_albedo)}
        pngs = {name: encode_png(to_uint8(images[name][0])) for name in MAP_NAMES}
        return [{"name": n, "mimeType": "image/png", "bufferView": self._view(png)} for n, png in pngs.items()]

    def _accessor(self, values: Tensor, kind: str) -> int:
        """Append an array; float unless it is a list of vertex ids. Returns the accessor's index."""
        indices = kind == "SCALAR"
        array = np.ascontiguousarray(values.detach().cpu().numpy(), dtype="<u4" if indices else "<f4")
        accessor = {
            "bufferView": self._view(array.tobytes(), ELEMENT_ARRAY_BUFFER if indices else ARRAY_BUFFER),
            "componentType": UNSIGNED_INT if indices else FLOAT,
            "count": len(array),
            "type": kind,
        }
        if kind == "VEC3":  # mandatory for positions
            accessor |= {"min": array.min(0).tolist(), "max": array.max(0).tolist()}
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def _sparse(self, offsets_V3: Tensor, smallest: float) -> int:
        """Append offsets, of which only those of a length from `smallest` on are stored; the others are zero.

        An accessor without a buffer view is all zeros, which `sparse` replaces in part (glTF 2.0, section 3.6.2.3).
        Dense if that is smaller. Returns the accessor's index.
        """
        offsets = offsets_V3.detach().cpu().numpy().astype("<f4")
        moved = np.flatnonzero(np.linalg.norm(offsets, axis=1) >= smallest)
        if len(moved) > 0.8 * len(offsets):  # 14 to 16 bytes each instead of 12
            return self._accessor(offsets_V3, "VEC3")
        kept = np.zeros_like(offsets)
        kept[moved] = offsets[moved]
        accessor: dict[str, Any] = {
            "componentType": FLOAT,
            "count": len(offsets),
            "type": "VEC3",
            "min": kept.min(0).tolist(),
            "max": kept.max(0).tolist(),
        }
        if len(moved):  # an empty list is not allowed
            short = len(offsets) <= 1 << 16
            accessor["sparse"] = {
                "count": len(moved),
                "indices": {
                    "bufferView": self._view(moved.astype("<u2" if short else "<u4").tobytes()),
                    "componentType": UNSIGNED_SHORT if short else UNSIGNED_INT,
                },
                "values": {"bufferView": self._view(offsets[moved].tobytes())},
            }
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def _view(self, data: bytes, target: int | None = None) -> int:
        """Append bytes at a multiple of four. Returns the buffer view's index."""
        view: dict[str, Any] = {"buffer": 0, "byteOffset": len(self.blob), "byteLength": len(data)}
        self.views.append(view if target is None else view | {"target": target})
        self.blob += data + bytes(-len(data) % 4)
        return len(self.views) - 1


def _frames(shapes_BV3: Tensor, faces_F3: Tensor, uv_V2: Tensor) -> tuple[Tensor, Tensor]:
    """Normals (B, V, 3) of all shapes and tangents (V, 4) of the first, of unit length everywhere, as glTF demands.

    Vertices of no face, or of faces without area, have no direction: any one does.
    """
    normals = vertex_normals(shapes_BV3, faces_F3)
    axes = torch.eye(3).to(normals)
    normals = torch.where(normals.norm(dim=-1, keepdim=True) > 0.5, normals, axes[2])
    tangents, sign = vertex_tangents(shapes_BV3[:1], faces_F3, uv_V2, normals[:1])[0].split([3, 1], -1)
    across = nnf.normalize(torch.linalg.cross(normals[0], axes[normals[0].abs().argmin(-1)]), dim=-1)
    return normals, torch.cat([torch.where(tangents.norm(dim=-1, keepdim=True) > 0.5, tangents, across), sign], -1)


def _asset(avatar: Avatar) -> dict[str, Any]:
    asset: dict[str, Any] = {"version": "2.0", "generator": GENERATOR}
    if "licence" in avatar.provenance:
        asset["copyright"] = avatar.provenance["licence"]
    return asset | ({"extras": dict(avatar.provenance)} if avatar.provenance else {})


def _material(shininess: float) -> dict[str, Any]:
    specular = {
        "specularColorFactor": [SPECULAR_SCALE / DIELECTRIC_F0] * 3,
        "specularColorTexture": {"index": MAP_NAMES.index("specular")},
    }
    return {
        "name": "skin",
        "pbrMetallicRoughness": {
            "baseColorTexture": {"index": MAP_NAMES.index("diffuse")},
            "metallicFactor": 0.0,
            "roughnessFactor": roughness(shininess),
        },
        "normalTexture": {"index": MAP_NAMES.index("normals")},
        "extensions": {"KHR_materials_specular": specular},
        "doubleSided": True,
    }


def _container(document: bytes, blob: bytes) -> bytes:
    """Header, JSON chunk (padded by spaces) and binary chunk (already a multiple of four)."""
    document += b" " * (-len(document) % 4)
    header = struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(document) + 8 + len(blob))
    return (
        header
        + struct.pack("<I4s", len(document), b"JSON")
        + document
        + struct.pack("<I4s", len(blob), b"BIN\0")
        + blob
    )


def _mtl(stem: str, shininess: float) -> str:
    # pi over the integral of cos^k of the half vector times N.L, at normal incidence: the lobe reflects F0 in total.
    normalisation = (shininess + 2) * (shininess + 4) / (8 * (shininess + 2 ** (-shininess / 2)))
    peak = min(1.0, SPECULAR_SCALE * normalisation)
    return (
        f"# {GENERATOR}: {stem}_diffuse.png is sRGB, the other textures are linear\n"
        f"newmtl skin\nillum 2\nKa 0 0 0\nKd 1 1 1\nKs {peak:.4g} {peak:.4g} {peak:.4g}\n"
        f"Ns {shininess:g}\nmap_Kd {stem}_diffuse.png\nmap_Ks {stem}_specular.png\nnorm {stem}_normals.png\n"
    )


def _obj(avatar: Avatar, material_file: str) -> bytes:
    faces = avatar.topology.faces.cpu()
    vertices = avatar.vertices.detach().cpu()
    normals = vertex_normals(vertices[None].double(), faces)[0]
    uv = avatar.topology.uv.cpu() * torch.tensor([1.0, -1.0]) + torch.tensor([0.0, 1.0])
    corners = (faces + 1).repeat_interleave(3, 1)  # position / texture coordinate / normal share one id
    notes = [f"{key}: {value}" for key, value in avatar.provenance.items()]
    head = [f"# {GENERATOR}", "# units: millimetres; +x to the subject's left, +y up, +z out of the face"]
    head += [f"# {' '.join(note.split())}" for note in notes]
    file = io.BytesIO()
    file.write("\n".join([*head, f"mtllib {material_file}", "o face", ""]).encode())
    np.savetxt(file, vertices.numpy(), "v %.5f %.5f %.5f")
    np.savetxt(file, uv.numpy(), "vt %.7f %.7f")
    np.savetxt(file, normals.numpy(), "vn %.5f %.5f %.5f")
    file.write(b"usemtl skin\n")
    np.savetxt(file, corners.numpy(), "f %d/%d/%d %d/%d/%d %d/%d/%d")
    return file.getvalue()


def _read_rgb(path: Path) -> np.ndarray:
    """uint8 (H, W, 3)."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: missing, expected the three files that save_maps writes: {', '.join(MAP_NAMES)}"
        )
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))
