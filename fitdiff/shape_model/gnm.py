"""`shape_model=gnm`: Google's GNM head, version 3 (`gnm_head.npz`).

Metres, +x to the subject's left, +y up, +z out of the face. `template_vertex_positions` (17821, 3),
`vertex_identity_basis` (253, V, 3) and `expression_basis` (383, V, 3) in standard deviations; `triangle_uvs` (F, 3, 2)
are UDIM coordinates, v up: their integer parts number textures, which are packed into one map (`charts.pack`).
`vertex_groups` (G, V) name parts. The 68 landmarks are `head_sparse_68.txt` of the same repository, if it lies beside
the file or in its `data/landmarks`; else they are carried over from the embedded face.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fitdiff.registry import MISSING, register
from fitdiff.shape_model.charts import from_udim, pack
from fitdiff.shape_model.complete import complete
from fitdiff.shape_model.face_basis import FaceBasis, component_range, components, read_npz
from fitdiff.shape_model.linear import LinearFaceModel
from fitdiff.shape_model.model_files import Source, read_landmarks

SOURCE = Source(
    "gnm",
    "Google's GNM head",
    "gnm_head.npz (version 3)",
    "Apache-2.0",
    "https://github.com/google/GNM (gnm/shape/data/versions/v3_0)",
)
MM = 1000.0
LANDMARKS = ("head_sparse_68.txt", "../../landmarks/head_sparse_68.txt")
REGIONS = {
    "eyes": ("eyes", "left_eye", "right_eye"),
    "teeth": ("teeth", "upper_teeth_and_gums", "lower_teeth_and_gums"),
    "inner_mouth": ("mouth_sock", "tongue", "teeth", "upper_teeth_and_gums", "lower_teeth_and_gums"),
    "lips": ("upper_lip", "lower_lip"),
}
"""Our regions and GNM's vertex groups they are made of."""
CORNEA, UNDER_CORNEA = ("eye_exteriors",), ("eye_interiors", "scleras", "irises", "pupils")


@register("shape_model", "gnm")
class Gnm(LinearFaceModel):
    """GNM head without its joints; the clear cornea over the eye is left out. Components come strongest first."""

    def __init__(self, *, path: str = MISSING, n_identity: int | None = None, n_expression: int | None = None) -> None:
        """`path`: the model's file; `n_identity`, `n_expression`: see `LinearFaceModel`."""
        super().__init__(complete(*read(path)), n_identity, n_expression)


def read(path: str | Path) -> tuple[FaceBasis, np.ndarray]:
    """The model's arrays in mm, and texture coordinates packed into one map.

    Raises:
        ModelFileError: the file is missing or not of this layout.
    """
    path = SOURCE.find(path)
    arrays = read_npz(path)
    needed = ("template_vertex_positions", "vertex_identity_basis", "expression_basis", "triangles", "triangle_uvs")
    SOURCE.require(arrays, needed, path)
    mean = arrays["template_vertex_positions"] * MM
    group_names = [str(name) for name in arrays.get("vertex_group_names", [])]
    groups = dict(zip(group_names, np.asarray(arrays.get("vertex_groups", [])) > 0.5, strict=False))
    faces = arrays["triangles"].astype(np.int64)
    solid = ~(_union(groups, CORNEA, len(mean)) & ~_union(groups, UNDER_CORNEA, len(mean)))[faces].all(1)
    identity, _ = _strongest_first(arrays["vertex_identity_basis"] * MM)
    expression, order = _strongest_first(arrays["expression_basis"] * MM)
    names = arrays.get("expression_names", components(len(expression)))
    landmarks = next((file for name in LANDMARKS if (file := path.parent / name).is_file()), None)
    marks = (
        dict(zip(("landmark_vertices", "landmark_weights"), read_landmarks(landmarks), strict=True))
        if landmarks
        else {}
    )
    basis = SOURCE.basis(
        mean=mean,
        faces=faces[solid],
        identity_basis=identity,
        expression_basis=expression,
        expression_names=tuple(str(names[i]) for i in order),
        expression_range=component_range(len(expression)),
        regions={name: _union(groups, members, len(mean)) for name, members in REGIONS.items() if groups},
        **marks,
    )
    return basis, _packed_uv(arrays["triangle_uvs"][solid].astype(np.float64), mean[faces[solid]])


def _union(groups: dict[str, np.ndarray], names: tuple[str, ...], n: int) -> np.ndarray:
    """(n,) bool: vertices of any of the groups that the file has."""
    return np.any([np.zeros(n, bool), *(groups[name] for name in names if name in groups)], 0)


def _strongest_first(basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Components (K, V, 3) by falling size, and their old numbers: GNM orders them by part of the head."""
    order = np.argsort(-np.linalg.norm(basis, axis=(1, 2)), kind="stable")
    return basis[order], order


def _packed_uv(udim: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """UDIM tiles in one map; the main one is that of the largest surface."""
    uv, number = from_udim(udim)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    kinds, index = np.unique(number, return_inverse=True)
    return pack(uv, number, int(kinds[np.bincount(index, area).argmax()]))
