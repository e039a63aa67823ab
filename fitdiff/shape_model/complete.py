"""Fills in what a model's own files leave open: landmarks, regions, texture coordinates, the place of the origin.

What is computed is cached under `storage.cache_folder()` by the content of the mesh, so it costs seconds only once.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import torch
from safetensors.torch import load_file

from fitdiff.shape_model import anny_build
from fitdiff.shape_model.charts import parts, split_seams, unwrap_any
from fitdiff.shape_model.correspondence import Surface, correspond
from fitdiff.shape_model.face_basis import REGION, FaceBasis, ModelFileError
from fitdiff.shape_model.unwrap import signed_areas
from fitdiff.storage import cache_folder, write_tensors

VERSION = 2
"""Part of the cache's key: raise it with every change of what is computed."""

LANDMARK_CENTROID_MM = (0.0, -13.0, 12.5)
"""Where the centroid of the mean face's 68 landmarks is put: where the embedded face has it, whose origin is the
centroid of its surface. Cameras and near lamps then fit every model, with or without ears, neck and shoulders."""

UNWRAP_CENTRE_MM = (0.0, -15.0, -70.0)
"""From the point between the eyes."""

FACE_HEIGHT_MM = (75.0, 170.0)
"""Plausible distances of the chin (landmark 8) from the root of the nose (27): anything else is a wrong unit."""

LOST_MM = 6.0
"""Mean distance of the embedded face's skin from a surface on which it did not find a face."""

PLACES = ("nose", "mouth", "forehead", "cheek")
HIDDEN = ("eyes", "inner_mouth", "teeth")


def complete(basis: FaceBasis, corner_uv: np.ndarray | None = None) -> FaceBasis:
    """Make a face basis usable: outside out, landmarks, regions, UVs, origin.

    Args:
        basis: in mm and the axes of head space, anywhere. Known landmarks and regions are kept.
        corner_uv: (F, 3, 2) the model's own texture coordinates of triangle corners, UV space in [0, 1]; vertices on
            seams are doubled. None keeps `basis.uv` or, without one, unwraps (`charts.unwrap_any`).

    Returns:
        A basis that `LinearFaceModel` takes; its vertices may be fewer (without texture) or more (on seams).

    Raises:
        ModelFileError: impossible size, no face found, UVs outside [0, 1], or an unwrap that folds.
    """
    basis = _outside_out(basis)
    tensors = _cached(basis, corner_uv)
    basis = replace(
        basis,
        mean=basis.mean + tensors["shift"],
        landmark_vertices=tensors["landmark_vertices"],
        landmark_weights=tensors["landmark_weights"],
        regions={name.removeprefix(REGION): mask for name, mask in tensors.items() if name.startswith(REGION)},
    )
    return basis.take(tensors["vertices"], tensors["faces"], tensors["uv"])


def _outside_out(basis: FaceBasis) -> FaceBasis:
    """Turn all triangles round if together they face the middle."""
    a, b, c = (basis.mean[basis.faces[:, k]].astype(np.float64) for k in range(3))
    outward = (np.cross(b - a, c - a) * (a + b + c - 3 * basis.mean.mean(0))).sum()
    return basis if outward > 0 else replace(basis, faces=basis.faces[:, ::-1])


def _cached(basis: FaceBasis, corner_uv: np.ndarray | None) -> dict[str, np.ndarray]:
    digest = hashlib.sha256(f"{VERSION} {anny_build.VERSION}".encode())
    own_uv = basis.uv if corner_uv is None else corner_uv
    for array in (basis.mean, basis.faces, basis.landmark_vertices, basis.landmark_weights, own_uv):
        digest.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
    for name, mask in sorted(basis.regions.items()):
        digest.update(name.encode() + mask.tobytes())
    path = cache_folder() / f"face-{digest.hexdigest()[:16]}.safetensors"
    if not path.is_file():
        computed = _compute(basis, corner_uv)
        write_tensors(path, {name: torch.from_numpy(np.array(value)) for name, value in computed.items()})
    return {name: tensor.numpy() for name, tensor in load_file(path).items()}


def _compute(basis: FaceBasis, corner_uv: np.ndarray | None) -> dict[str, np.ndarray]:
    known = basis.landmark_weights.any(1)
    basis = _mark(basis) if not known.all() or any(name not in basis.regions for name in PLACES) else basis
    marks = basis.landmarks().astype(np.float64)
    height = float(np.linalg.norm(marks[27] - marks[8]))
    if not FACE_HEIGHT_MM[0] < height < FACE_HEIGHT_MM[1]:
        raise ModelFileError(
            f"the mean face measures {height:.3g} mm from chin to nose root, expected {FACE_HEIGHT_MM[0]:.0f} to "
            f"{FACE_HEIGHT_MM[1]:.0f}: its unit is not the one this model is known for"
        )
    vertices, faces, uv = _texture(basis, corner_uv, marks[36:48].mean(0) + UNWRAP_CENTRE_MM)
    if not set(basis.landmark_vertices[basis.landmark_weights > 0]) <= set(vertices):
        raise ModelFileError("a landmark lies where the mesh has no texture coordinates: give UVs for it")
    return {
        "shift": (LANDMARK_CENTROID_MM - marks.mean(0)).astype(np.float32),
        "landmark_vertices": basis.landmark_vertices,
        "landmark_weights": basis.landmark_weights,
        "vertices": vertices,
        "faces": faces,
        "uv": uv.astype(np.float32),
        **{REGION + name: mask for name, mask in basis.regions.items()},
    }


def _texture(
    basis: FaceBasis, corner_uv: np.ndarray | None, centre: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices that have texture, faces over them, and their UVs."""
    faces = basis.faces
    if corner_uv is None and basis.uv is not None:
        corner_uv = basis.uv[faces].astype(np.float64)
    if corner_uv is None:
        uv, kept = unwrap_any(basis.mean.astype(np.float64), faces, centre)
        faces, corner_uv = faces[kept], uv[faces[kept]]
        if (folded := signed_areas(uv, faces) >= 0).any():
            raise ModelFileError(
                f"{int(folded.sum())} of {len(faces)} triangles fold in our unwrap: give UVs for the mesh"
            )
    if corner_uv.min() < -1e-6 or corner_uv.max() > 1 + 1e-6:
        raise ModelFileError(f"UVs span {corner_uv.min():.3g} to {corner_uv.max():.3g}, expected [0, 1]")
    return split_seams(faces, corner_uv.clip(0, 1))


def _mark(basis: FaceBasis) -> FaceBasis:
    """Landmarks and regions that are unknown, from the embedded face laid on the skin."""
    mean = basis.mean.astype(np.float64)
    hidden = np.any([np.zeros(len(mean), bool), *(basis.regions[name] for name in HIDDEN if name in basis.regions)], 0)
    skin_faces = basis.faces[~hidden[basis.faces].any(1)]
    skin_faces = skin_faces[parts(len(mean), skin_faces)[skin_faces[:, 0]] == 0]
    eye_faces = basis.faces[basis.regions.get("eyes", np.zeros(len(mean), bool))[basis.faces].all(1)]
    ids, skin = _piece(mean, skin_faces)
    laid = correspond(skin, _piece(mean, eye_faces)[1] if len(eye_faces) else None)
    if laid.error > LOST_MM:
        raise ModelFileError(
            f"the embedded face stays {laid.error:.1f} mm from this mean face on average, so its landmarks cannot be "
            "carried over: check unit and axes (mm, +x to the subject's left, +y up, +z out of the face), or give all "
            "68 landmarks and the regions nose, mouth, forehead, cheek"
        )
    vertices, weights = laid.landmarks(skin)
    known = basis.landmark_weights.any(1)[:, None]
    regions = laid.regions(Surface.of(mean, basis.faces)) | basis.regions
    covered = np.any([regions[name] for name in ("lips", *HIDDEN)], 0)
    return replace(
        basis,
        landmark_vertices=np.where(known, basis.landmark_vertices, ids[vertices]),
        landmark_weights=np.where(known, basis.landmark_weights, weights),
        regions={**regions, "skin": basis.regions.get("skin", ~covered)},
    )


def _piece(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, Surface]:
    """The vertices of some faces, by their ids, and the surface they make."""
    ids, local = np.unique(faces, return_inverse=True)
    return ids, Surface.of(vertices[ids], local.reshape(-1, 3))
