"""`shape_model=ict_facekit`: ICT Face Model Light (Li et al. 2020), a folder of OBJ meshes.

Centimetres, +x to the subject's left, +y up, +z out of the face. `generic_neutral_mesh.obj` is the mean,
`identity000.obj` ... the mean displaced by one standard deviation of each component, and every other mesh an action
at weight 1. `vertex_indices.json` names the actions and the 68 landmarks. Each material of the mesh has a texture of
its own; they are packed into one map (`charts.pack`). The layers of fluid and lashes over the eyes are transparent in
the original and left out.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from fitdiff.registry import MISSING, register
from fitdiff.shape_model.charts import from_udim, pack
from fitdiff.shape_model.complete import complete
from fitdiff.shape_model.face_basis import FaceBasis, ModelFileError, action_range
from fitdiff.shape_model.linear import LinearFaceModel
from fitdiff.shape_model.model_files import Obj, Source, read_obj, read_obj_vertices

SOURCE = Source(
    "ict_facekit",
    "ICT-FaceKit",
    "the folder FaceXModel with generic_neutral_mesh.obj, identity000.obj, ... and vertex_indices.json",
    "MIT",
    "https://github.com/ICT-VGL/ICT-FaceKit",
)
MM = 10.0
TRANSPARENT = ("M_LacrimalFluid", "M_EyeBlend", "M_EyeOcclusion", "M_EyeLashes")
PARTS = {
    "eyes": ("M_ScleraLeft", "M_IrisLeft", "M_ScleraRight", "M_IrisRight"),
    "teeth": ("M_Teeth",),
    "inner_mouth": ("M_Teeth", "M_GumsTongue"),
}
"""Regions and the materials they are made of."""
FACE = "M_Face"


@register("shape_model", "ict_facekit")
class IctFaceKit(LinearFaceModel):
    """ICT Face Model Light: head, neck and shoulders with eyeballs, gums, tongue and teeth; 53 ARKit-like actions."""

    def __init__(self, *, path: str = MISSING, n_identity: int | None = None, n_expression: int | None = None) -> None:
        """`path`: the folder FaceXModel; `n_identity`, `n_expression`: see `LinearFaceModel`."""
        super().__init__(complete(*read(path)), n_identity, n_expression)


def read(path: str | Path) -> tuple[FaceBasis, np.ndarray]:
    """The model's arrays in mm, and texture coordinates packed into one map.

    Raises:
        ModelFileError: the folder or a mesh in it is missing, or meshes differ in their vertices.
    """
    folder = SOURCE.find(path)
    neutral = folder / "generic_neutral_mesh.obj"
    if not neutral.is_file():
        raise ModelFileError(f"{folder} has no generic_neutral_mesh.obj: shape_model.path must be {SOURCE.file}")
    mesh, indices = read_obj(neutral), _indices(folder)
    visible = ~np.isin(np.array(mesh.materials)[mesh.material], TRANSPARENT)
    mesh = Obj(
        mesh.vertices, mesh.uv, mesh.faces[visible], mesh.uv_faces[visible], mesh.material[visible], mesh.materials
    )
    names = [name for name in indices.get("expressions", []) if (folder / f"{name}.obj").is_file()]
    identities = sorted(folder.glob("identity[0-9]*.obj"))
    if not identities:
        raise ModelFileError(f"{folder} has no identity000.obj: shape_model.path must be {SOURCE.file}")
    marks = np.asarray(indices.get("idx_to_landmark_verts", []), np.int64)
    weights = np.zeros((68, 3), np.float32)
    weights[:, 0] = len(marks) == 68
    basis = SOURCE.basis(
        mean=mesh.vertices * MM,
        faces=mesh.faces,
        identity_basis=_displacements(identities, mesh.vertices),
        expression_basis=_displacements([folder / f"{name}.obj" for name in names], mesh.vertices),
        expression_names=tuple(names),
        expression_range=action_range(len(names)),
        landmark_vertices=np.repeat(marks[:, None], 3, 1) if len(marks) == 68 else np.zeros((68, 3), np.int64),
        landmark_weights=weights,
        regions={region: _of_materials(mesh, materials) for region, materials in PARTS.items()},
    )
    return basis, _packed_uv(mesh)


def _indices(folder: Path) -> dict[str, list]:
    file = folder / "vertex_indices.json"
    if not file.is_file():
        raise ModelFileError(f"{folder} has no vertex_indices.json: shape_model.path must be {SOURCE.file}")
    return json.loads(file.read_text())


def _displacements(files: list[Path], neutral: np.ndarray) -> np.ndarray:
    """(N, V, 3) mm from the neutral mesh to each file's."""
    fields = np.zeros((len(files), *neutral.shape), np.float32)
    for field, file in zip(fields, files, strict=True):
        vertices = read_obj_vertices(file)
        if vertices.shape != neutral.shape:
            raise ModelFileError(f"{file} has {len(vertices)} vertices, the neutral mesh {len(neutral)}")
        field[:] = (vertices - neutral) * MM
    return fields


def _of_materials(mesh: Obj, materials: tuple[str, ...]) -> np.ndarray:
    mask = np.zeros(len(mesh.vertices), bool)
    mask[mesh.faces[np.isin(np.array(mesh.materials)[mesh.material], materials)]] = True
    return mask


def _packed_uv(mesh: Obj) -> np.ndarray:
    corner_uv, _ = from_udim(mesh.uv[mesh.uv_faces])
    main = mesh.materials.index(FACE) if FACE in mesh.materials else int(np.bincount(mesh.material).argmax())
    return pack(corner_uv, mesh.material, main)
