"""`shape_model=pca_npz`: any linear face model in our own layout, which README.md beside this documents."""

from __future__ import annotations

from pathlib import Path

from fitdiff.registry import MISSING, register
from fitdiff.shape_model.complete import complete
from fitdiff.shape_model.face_basis import FaceBasis, load
from fitdiff.shape_model.linear import LinearFaceModel
from fitdiff.shape_model.model_files import Source

SOURCE = Source(
    "pca_npz",
    "a model in fitdiff's own layout",
    "an npz with at least fitdiff_pca, mean, faces, identity_basis",
    "that of the model it was converted from",
    "`python -m fitdiff.shape_model.convert shape_model=<model> path=<file> out=<npz>`, or write one (README beside)",
)


@register("shape_model", "pca_npz")
class PcaNpz(LinearFaceModel):
    """Any linear face model; what the file leaves open (landmarks, regions, UVs) is filled in."""

    def __init__(self, *, path: str = MISSING, n_identity: int | None = None, n_expression: int | None = None) -> None:
        """`path`: the model's file; `n_identity`, `n_expression`: see `LinearFaceModel`."""
        super().__init__(complete(*read(path)), n_identity, n_expression)


def read(path: str | Path) -> tuple[FaceBasis, None]:
    """The file's arrays.

    Raises:
        ModelFileError: the file is missing or not of this layout.
    """
    return load(SOURCE.find(path)), None
