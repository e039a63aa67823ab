"""`shape_model=hifi3d`: HIFI3D++ (Chai et al. 2022) and HIFI3D (Bao et al. 2021), MATLAB files of one layout.

Centimetres, +x to the subject's left, +y up, +z out of the face. `mu_shape` (1, 3V), `basis_shape` (526, 3V) and
`basis_exp` (203, 3V) are scaled to one standard deviation; triangles `tri`, their texture corners `tri_vt` and
texture coordinates `vt_list` (v up) are the topology of FFHQ-UV and of FFHQ-UV-Intrinsics. Its 86 keypoints are not
iBUG's, so the 68 are carried over from the embedded face.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fitdiff.registry import MISSING, register
from fitdiff.shape_model.complete import complete
from fitdiff.shape_model.face_basis import FaceBasis, component_range, components
from fitdiff.shape_model.linear import LinearFaceModel
from fitdiff.shape_model.model_files import Source, read_mat

SOURCE = Source(
    "hifi3d",
    "HIFI3D++",
    "hifi3dpp.mat (or AI-NExT-Shape.mat of HIFI3D)",
    "Tencent AI Lab, research only",
    "https://github.com/czh-98/REALY (folder HIFI3D++)",
)
MM = 10.0


@register("shape_model", "hifi3d")
class Hifi3d(LinearFaceModel):
    """HIFI3D++, whole head with its own UVs."""

    def __init__(self, *, path: str = MISSING, n_identity: int | None = None, n_expression: int | None = None) -> None:
        """`path`: the model's file; `n_identity`, `n_expression`: see `LinearFaceModel`."""
        super().__init__(complete(*read(path)), n_identity, n_expression)


def read(path: str | Path) -> tuple[FaceBasis, np.ndarray]:
    """The model's arrays in mm and its texture coordinates.

    Raises:
        ModelFileError: the file is missing or not of this layout.
    """
    path = SOURCE.find(path)
    arrays = read_mat(path)
    SOURCE.require(arrays, ("mu_shape", "basis_shape", "tri", "tri_vt", "vt_list"), path)
    mean = arrays["mu_shape"].reshape(-1, 3) * MM
    expression = arrays.get("basis_exp", np.zeros((0, mean.size))).reshape(-1, len(mean), 3) * MM
    faces, uv_faces = (_from_zero(arrays[name]) for name in ("tri", "tri_vt"))
    basis = SOURCE.basis(
        mean=mean,
        faces=faces,
        identity_basis=arrays["basis_shape"].reshape(-1, len(mean), 3) * MM,
        expression_basis=expression,
        expression_names=components(len(expression)),
        expression_range=component_range(len(expression)),
    )
    return basis, (arrays["vt_list"] * [1, -1] + [0, 1])[uv_faces]


def _from_zero(ids: np.ndarray) -> np.ndarray:
    """MATLAB counts from 1; every vertex of these meshes is used, so the least id tells."""
    return ids.astype(np.int64) - int(ids.min())
