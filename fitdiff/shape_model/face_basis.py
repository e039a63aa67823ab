"""The linear face that every brought model becomes: a record of arrays, and its file `pca_npz` (see README.md)."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fitdiff.storage import write_atomically

LAYOUT = 1
"""Value of `fitdiff_pca` in a file: raise it when a reader of the old layout would misread the new one."""

REQUIRED = ("fitdiff_pca", "mean", "faces", "identity_basis")
REGION = "region."
PCA_RANGE = (-3.0, 3.0)
"""Standard deviations that a statistical expression component spans."""


class ModelFileError(ValueError):
    """A face model's file is missing, of another layout, or holds impossible values."""


@dataclass(frozen=True)
class FaceBasis:
    """vertices = mean + code @ identity_basis + weights @ expression_basis, in mm and the axes of head space.

    Attributes:
        mean: (V, 3) float32. faces: (F, 3) int64, counter-clockwise seen from outside.
        identity_basis: (K, V, 3) float32, mm per standard deviation.
        expression_basis: (E, V, 3) float32, mm per unit of weight. expression_names: (E,) names.
        expression_range: (E, 2) float32, least and greatest weight; [0, 1] for an action, [-3, 3] for a component.
        uv: (V, 2) float32 UV space, v down, or None.
        landmark_vertices: (68, 3) int64 and landmark_weights: (68, 3) float32, iBUG 68; a row of zero weights is an
            unknown landmark.
        regions: name -> (V,) bool, those that are known.
        source, licence: where the model came from, in words.
        file_vertices: (V,) int64, which vertex of the model's own mesh each one is, where they differ (doubled on seams
            of the texture, left out without one); n_file_vertices: how many that mesh has. None and 0: the same.
    """

    mean: np.ndarray
    faces: np.ndarray
    identity_basis: np.ndarray
    expression_basis: np.ndarray
    expression_names: tuple[str, ...]
    expression_range: np.ndarray
    uv: np.ndarray | None = None
    landmark_vertices: np.ndarray = field(default_factory=lambda: np.zeros((68, 3), np.int64))
    landmark_weights: np.ndarray = field(default_factory=lambda: np.zeros((68, 3), np.float32))
    regions: dict[str, np.ndarray] = field(default_factory=dict)
    source: str = ""
    licence: str = ""
    file_vertices: np.ndarray | None = None
    n_file_vertices: int = 0

    def __post_init__(self) -> None:
        """Normalise the types, and refuse shapes that do not fit together.

        Raises:
            ModelFileError: naming the array, its shape and the expected one.
        """
        n_expression = len(self.expression_names)
        for name, dtype, shape in (
            ("mean", np.float32, (None, 3)),
            ("faces", np.int64, (None, 3)),
            ("identity_basis", np.float32, (None, len(self.mean), 3)),
            ("expression_basis", np.float32, (n_expression, len(self.mean), 3)),
            ("expression_range", np.float32, (n_expression, 2)),
            ("uv", np.float32, (len(self.mean), 2)),
            ("landmark_vertices", np.int64, (68, 3)),
            ("landmark_weights", np.float32, (68, 3)),
            ("file_vertices", np.int64, (len(self.mean),)),
        ):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _checked(name, getattr(self, name), dtype, shape))
        for name in ("faces", "landmark_vertices"):
            ids = getattr(self, name)
            if ids.size and not 0 <= ids.min() <= ids.max() < len(self.mean):
                raise ModelFileError(
                    f"{name} names vertices {ids.min()} to {ids.max()}, but the mean has {len(self.mean)}, from 0 on"
                )
        regions = {name: _checked(REGION + name, mask, bool, (len(self.mean),)) for name, mask in self.regions.items()}
        object.__setattr__(self, "regions", regions)

    def landmarks(self) -> np.ndarray:
        """(68, 3) landmarks of the mean face in mm; unknown ones are at the origin."""
        return np.einsum("lcx,lc->lx", self.mean[self.landmark_vertices], self.landmark_weights)

    def take(self, vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray) -> FaceBasis:
        """The same face over copies of some of its vertices, by their ids (W,), among them those of all landmarks."""
        place = np.full(len(self.mean), -1)
        # The last copy wins; any would do, as copies move together.
        place[vertices] = np.arange(len(vertices))
        return replace(
            self,
            mean=self.mean[vertices],
            faces=faces,
            identity_basis=self.identity_basis[:, vertices],
            expression_basis=self.expression_basis[:, vertices],
            uv=uv,
            landmark_vertices=np.where(self.landmark_weights > 0, place[self.landmark_vertices], 0),
            regions={name: mask[vertices] for name, mask in self.regions.items()},
            file_vertices=vertices if self.file_vertices is None else self.file_vertices[vertices],
            n_file_vertices=self.n_file_vertices or len(self.mean),
        )


def components(n: int, label: str = "expression") -> tuple[str, ...]:
    """Names of `n` statistical components: expression_000, expression_001, ..."""
    return tuple(f"{label}_{i:03d}" for i in range(n))


def component_range(n: int) -> np.ndarray:
    """(n, 2) `expression_range` of statistical components in standard deviations."""
    return np.tile(np.float32(PCA_RANGE), (n, 1))


def action_range(n: int) -> np.ndarray:
    """(n, 2) `expression_range` of actions whose weight 1 is the full action."""
    return np.tile(np.float32([0, 1]), (n, 1))


def save(basis: FaceBasis, path: str | os.PathLike[str]) -> Path:
    """Write `pca_npz`: compressed, no object arrays, whole or not at all."""
    arrays = {
        name: value
        for name, value in vars(basis).items()
        if isinstance(value, np.ndarray) and not (name.startswith("landmark") and not basis.landmark_weights.any())
    }
    arrays |= {REGION + name: mask for name, mask in basis.regions.items()}
    texts = {"expression_names": list(basis.expression_names), "source": basis.source, "licence": basis.licence}
    arrays |= {name: np.array(value, dtype=np.str_) for name, value in texts.items()}
    arrays["n_file_vertices"] = np.int64(basis.n_file_vertices)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, fitdiff_pca=np.int64(LAYOUT), **arrays)
    return write_atomically(path, buffer.getvalue())


def load(path: str | os.PathLike[str]) -> FaceBasis:
    """Read `pca_npz`. Nothing is unpickled.

    Raises:
        ModelFileError: not an npz, object arrays, missing or misshapen arrays, or a newer layout.
    """
    arrays = read_npz(path)
    if missing := [name for name in REQUIRED if name not in arrays]:
        raise ModelFileError(f"{path}: lacks {missing}; a pca_npz holds at least {list(REQUIRED)}")
    if (layout := int(arrays["fitdiff_pca"])) != LAYOUT:
        raise ModelFileError(f"{path}: layout {layout}, but this version reads {LAYOUT}: convert the model again")
    n_vertices = len(arrays["mean"])
    basis = arrays.get("expression_basis", np.zeros((0, n_vertices, 3), np.float32))
    names = tuple(str(name) for name in np.atleast_1d(arrays.get("expression_names", components(len(basis)))))
    marks = {name: arrays[name] for name in ("landmark_vertices", "landmark_weights") if name in arrays}
    try:
        return FaceBasis(
            arrays["mean"],
            arrays["faces"],
            arrays["identity_basis"],
            basis,
            names,
            arrays.get("expression_range", component_range(len(basis))),
            arrays.get("uv"),
            regions={name.removeprefix(REGION): value for name, value in arrays.items() if name.startswith(REGION)},
            source=str(arrays.get("source", "")),
            licence=str(arrays.get("licence", "")),
            file_vertices=arrays.get("file_vertices"),
            n_file_vertices=int(arrays.get("n_file_vertices", 0)),
            **marks,
        )
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from None


def read_npz(path: str | os.PathLike[str], names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays `names` of an npz, or all; pickled ones are refused.

    Raises:
        ModelFileError: not an npz, a damaged one, one with object arrays, or one that lacks a name.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in (file.files if names is None else names)}
    except Exception as error:  # zip, its compressions and NumPy have an exception each for damage
        reason = str(error) or type(error).__name__
        raise ModelFileError(f"{path}: cannot be read as an npz of plain arrays: {reason}") from None


def _checked(name: str, value: np.ndarray, dtype: type, shape: tuple[int | None, ...]) -> np.ndarray:
    array = np.asarray(value)
    if array.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("any" if side is None else str(side) for side in shape)
        raise ModelFileError(f"{name} has shape {array.shape}, expected ({wanted})")
    if array.dtype.kind not in "biuf":
        raise ModelFileError(f"{name} holds {array.dtype}, expected numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ModelFileError(f"{name} holds values that are not finite")
    return np.ascontiguousarray(array, dtype)
