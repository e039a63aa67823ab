"""`shape_model=bfm`: the Basel Face Models of 2009 (`01_MorphableModel.mat`) and 2017 (`.h5`).

2009 (Paysan et al.): micrometres, 199 identity components with standard deviations `shapeEV`, triangles `tl` from 1,
no expressions. 2017 (Gerig et al.): millimetres, statismo layout with variances, 199 identity and 100 expression
components; the mean face is the sum of both means. Axes of both: +x to the subject's left, +y up, +z out of the face.
Neither ships texture coordinates or the 68 landmarks: the unwrap is ours, the landmarks are carried over.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fitdiff.registry import MISSING, register
from fitdiff.shape_model.complete import complete
from fitdiff.shape_model.face_basis import FaceBasis, ModelFileError, component_range, components
from fitdiff.shape_model.linear import LinearFaceModel
from fitdiff.shape_model.model_files import Source, read_h5, read_mat

SOURCE = Source(
    "bfm",
    "the Basel Face Model",
    "01_MorphableModel.mat (2009) or model2017-1_bfm_nomouth.h5, model2017-1_face12_nomouth.h5 (2017)",
    "University of Basel, non-commercial research",
    "https://faces.dmi.unibas.ch/bfm (form)",
)
MICROMETRE = 1e-3


@register("shape_model", "bfm")
class Bfm(LinearFaceModel):
    """Basel Face Model 2009 or 2017, told apart by their arrays."""

    def __init__(self, *, path: str = MISSING, n_identity: int | None = None, n_expression: int | None = None) -> None:
        """`path`: the model's file; `n_identity`, `n_expression`: see `LinearFaceModel`."""
        super().__init__(complete(*read(path)), n_identity, n_expression)


def read(path: str | Path) -> tuple[FaceBasis, None]:
    """The model's arrays in mm.

    Raises:
        ModelFileError: the file is missing or of neither layout.
    """
    path = SOURCE.find(path)
    if path.suffix == ".mat":
        return _read_2009(path), None
    if path.suffix in (".h5", ".hdf5"):
        return _read_2017(path), None
    raise ModelFileError(f"{path}: expected {SOURCE.file}")


def _read_2009(path: Path) -> FaceBasis:
    arrays = read_mat(path)
    SOURCE.require(arrays, ("shapeMU", "shapePC", "shapeEV", "tl"), path)
    mean = arrays["shapeMU"].reshape(-1, 3) * MICROMETRE
    basis = arrays["shapePC"] * arrays["shapeEV"].ravel() * MICROMETRE
    return SOURCE.basis(
        mean=mean,
        faces=arrays["tl"].astype(np.int64) - 1,
        identity_basis=basis.T.reshape(-1, len(mean), 3),
        expression_basis=np.zeros((0, len(mean), 3)),
        expression_names=(),
        expression_range=np.zeros((0, 2)),
    )


def _read_2017(path: Path) -> FaceBasis:
    arrays = read_h5(path)
    needed = [
        f"{part}/model/{name}" for part in ("shape", "expression") for name in ("mean", "pcaBasis", "pcaVariance")
    ]
    SOURCE.require(arrays, (*needed, "shape/representer/cells"), path)
    means, bases = zip(*(_statismo(arrays, part) for part in ("shape", "expression")), strict=True)
    n_expression = len(bases[1])
    return SOURCE.basis(
        mean=means[0] + means[1],
        faces=arrays["shape/representer/cells"].astype(np.int64).T,
        identity_basis=bases[0],
        expression_basis=bases[1],
        expression_names=components(n_expression),
        expression_range=component_range(n_expression),
    )


def _statismo(arrays: dict[str, np.ndarray], part: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean (V, 3) and components (K, V, 3) scaled to one standard deviation, in mm."""
    mean = arrays[f"{part}/model/mean"].reshape(-1, 3)
    scaled = arrays[f"{part}/model/pcaBasis"] * np.sqrt(arrays[f"{part}/model/pcaVariance"].ravel())
    return mean, scaled.T.reshape(-1, len(mean), 3)
