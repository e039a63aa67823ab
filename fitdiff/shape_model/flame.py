"""`shape_model=flame`: FLAME 2020 and FLAME 2023 (Open), Li et al. 2017.

File: metres, +x to the subject's left, +y up, +z out of the face; `shapedirs` (5023, 3, 400) holds 300 identity and
100 expression components, scaled to unit variance. Beside the model, under the names of its publisher: texture
coordinates in `FLAME_texture.npz` or `head_template.obj`, landmarks in `landmark_embedding.npy` (all 68) or
`flame_static_embedding.pkl` (the inner 51).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fitdiff.registry import MISSING, register
from fitdiff.shape_model.complete import complete
from fitdiff.shape_model.face_basis import (
    FaceBasis,
    ModelFileError,
    action_range,
    component_range,
    components,
    read_npz,
)
from fitdiff.shape_model.inert_pickle import read_pickle
from fitdiff.shape_model.linear import LinearFaceModel
from fitdiff.shape_model.model_files import Source, read_obj

SOURCE = Source(
    "flame",
    "FLAME",
    "generic_model.pkl (FLAME 2020) or flame2023.pkl (FLAME 2023 Open)",
    "FLAME 2020: MPI, non-commercial research; FLAME 2023 Open: CC-BY-4.0",
    "https://flame.is.tue.mpg.de (registration)",
)
MM = 1000.0
N_IDENTITY = 300
EYES = (3931, 5023)
"""The eyeballs' vertices."""
JAW = 2
JAW_OPEN = np.radians(15)
"""Turn of the jaw that is called `jawOpen` = 1; a straight path of it, as all expressions here are linear."""


@register("shape_model", "flame")
class Flame(LinearFaceModel):
    """FLAME without its neck and eye joints; the jaw's turn is the action `jawOpen`, which comes first."""

    def __init__(self, *, path: str = MISSING, n_identity: int | None = None, n_expression: int | None = None) -> None:
        """`path`: the model's file (or npz of the same arrays); `n_identity`, `n_expression`: see `LinearFaceModel`."""
        super().__init__(complete(*read(path)), n_identity, n_expression)


def read(path: str | Path) -> tuple[FaceBasis, np.ndarray | None]:
    """The model's arrays in mm, and the texture coordinates of its triangles' corners if they lie beside it.

    Raises:
        ModelFileError: the file is missing, is not FLAME, or holds anything that would have to be run.
    """
    path = SOURCE.find(path)
    arrays = read_npz(path) if path.suffix == ".npz" else read_pickle(path)
    SOURCE.require(arrays, ("v_template", "shapedirs", "f"), path)
    directions = np.asarray(arrays["shapedirs"]).transpose(2, 0, 1) * MM
    mean, faces = np.asarray(arrays["v_template"]) * MM, np.asarray(arrays["f"]).astype(np.int64)
    n_identity = min(N_IDENTITY, len(directions))
    jaw = _jaw_open(arrays, mean)
    names = (*(["jawOpen"] if len(jaw) else []), *components(len(directions) - n_identity))
    eyes = np.zeros(len(mean), bool)
    eyes[slice(*EYES)] = True
    vertices, weights = _landmarks(path.parent, faces)
    basis = SOURCE.basis(
        mean=mean,
        faces=faces,
        identity_basis=directions[:n_identity],
        expression_basis=np.concatenate([jaw, directions[n_identity:]]),
        expression_names=names,
        expression_range=np.concatenate([action_range(len(jaw)), component_range(len(directions) - n_identity)]),
        landmark_vertices=vertices,
        landmark_weights=weights,
        regions={"eyes": eyes},
    )
    return basis, _corner_uv(path.parent, len(faces))


def _jaw_open(arrays: dict[str, Any], mean: np.ndarray) -> np.ndarray:
    """(1, V, 3) displacements of the mean face when the jaw turns by `JAW_OPEN`, or (0, V, 3) without a skeleton.

    Linear blend skinning with pose correctives, of one joint. (Loper et al. 2015, Eqs. 2 to 4 and 9.)
    """
    if any(name not in arrays for name in ("weights", "J_regressor", "posedirs")):
        return np.zeros((0, *mean.shape))
    joint = np.asarray(arrays["J_regressor"] @ mean)[JAW]
    cos, sin = np.cos(JAW_OPEN), np.sin(JAW_OPEN)
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    corrective = np.asarray(arrays["posedirs"])[..., 9 * (JAW - 1) : 9 * JAW] @ (turn - np.eye(3)).ravel() * MM
    corrected = mean + corrective
    turned = (corrected - joint) @ turn.T + joint
    return (corrected + np.asarray(arrays["weights"])[:, JAW, None] * (turned - corrected) - mean)[None]


def _landmarks(folder: Path, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids and weights (68, 3) of those landmarks that a file in the folder gives; zeros for the others."""
    vertices, weights = np.zeros((68, 3), np.int64), np.zeros((68, 3), np.float32)
    for name, skip, triangle, barycentric, rows in (
        ("landmark_embedding.npy", None, "full_lmk_faces_idx", "full_lmk_bary_coords", slice(68)),
        ("flame_static_embedding_68.pkl", 0, "lmk_face_idx", "lmk_b_coords", slice(68)),
        ("flame_static_embedding.pkl", 0, "lmk_face_idx", "lmk_b_coords", slice(17, 68)),
    ):
        if (file := folder / name).is_file():
            found = read_pickle(file, _pickle_in_npy(file) if skip is None else skip)
            if triangle in found and np.size(found[triangle]) == rows.stop - (rows.start or 0):
                vertices[rows] = faces[np.asarray(found[triangle]).ravel().astype(np.int64)]
                weights[rows] = np.asarray(found[barycentric]).reshape(-1, 3)
                break
    return vertices, weights


def _pickle_in_npy(path: Path) -> int:
    """Where the pickle starts in an `.npy` file of one object."""
    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        header(file)
        return file.tell()


def _corner_uv(folder: Path, n_faces: int) -> np.ndarray | None:
    """(F, 3, 2) FLAME's own texture coordinates, turned v down, if a file in the folder has them."""
    if (file := folder / "FLAME_texture.npz").is_file():
        # The file's albedo components are large; only these two are read.
        arrays = read_npz(file, ("vt", "ft"))
        uv, uv_faces = arrays["vt"], arrays["ft"].astype(np.int64)
    else:
        found = [folder / name for name in ("head_template.obj", "head_template_mesh.obj")]
        template = next((file for file in found if file.is_file()), None)
        if template is None:
            return None
        mesh = read_obj(template)
        uv, uv_faces = mesh.uv, mesh.uv_faces
    if len(uv_faces) != n_faces or not len(uv):
        raise ModelFileError(
            f"{folder}: the texture coordinates are for {len(uv_faces)} triangles, the model has {n_faces}"
        )
    return (uv * [1, -1] + [0, 1])[uv_faces]
