"""Files of other people's face models: what they are, whose they are, and readers of their formats that run no code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse

from fitdiff.shape_model.face_basis import FaceBasis, ModelFileError


@dataclass(frozen=True)
class Source:
    """A published face model: its name in the registry and in words, its file, licence, and where people get it."""

    key: str
    name: str
    file: str
    licence: str
    where: str

    def find(self, path: str | Path) -> Path:
        """The path, if something is there.

        Raises:
            ModelFileError: nothing is; names file, licence and source.
        """
        found = Path(path).expanduser()
        if str(path) in ("", "???", "None") or not found.exists():
            got = "not set" if str(path) in ("", "???", "None") else f"{path}, where nothing is"
            raise ModelFileError(
                f"shape_model={self.key} needs {self.name}: {self.file}. shape_model.path is {got}. Licence: "
                f"{self.licence}. Get it from {self.where} and set shape_model.path=<file>. (shape_model=anny_face "
                "needs no file.)"
            )
        return found

    def require(self, arrays: Mapping[str, object], names: tuple[str, ...], path: Path) -> None:
        """Refuse a file that lacks some arrays.

        Raises:
            ModelFileError: names them, and what is there.
        """
        if missing := [name for name in names if name not in arrays]:
            raise ModelFileError(
                f"{path} is not {self.name}: it lacks {missing}. It holds {sorted(map(str, arrays))[:20]}"
            )

    def basis(self, **arrays: object) -> FaceBasis:
        """A `FaceBasis` that says where it came from."""
        return FaceBasis(**arrays, source=self.name, licence=self.licence)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Obj:
    """A Wavefront mesh.

    Attributes:
        vertices: (N, 3). uv: (T, 2), v up as in the file; (0, 2) if it has none.
        faces: (F, 3) vertex ids; polygons are split into fans. uv_faces: (F, 3) ids of `uv`; -1 where there is none.
        material: (F,) number in `materials`, its names.
    """

    vertices: np.ndarray
    uv: np.ndarray
    faces: np.ndarray
    uv_faces: np.ndarray
    material: np.ndarray
    materials: tuple[str, ...]


def read_obj(path: Path) -> Obj:
    """Read vertices, texture coordinates, polygons and material names of an OBJ file."""
    vertices, uv, corners, material, materials = [], [], [], [], [""]
    for line in path.read_text().splitlines():
        word, _, rest = line.partition(" ")
        if word == "v":
            vertices.append(rest.split()[:3])
        elif word == "vt":
            uv.append(rest.split()[:2])
        elif word == "usemtl":
            materials.append(rest.strip())
        elif word == "f":
            polygon = [[*corner.split("/"), ""][:2] for corner in rest.split()]
            for k in range(1, len(polygon) - 1):
                corners.append([polygon[0], polygon[k], polygon[k + 1]])
                material.append(len(materials) - 1)
    if not vertices or not corners:
        raise ModelFileError(f"{path}: no vertices or no faces in this OBJ file")
    ids = np.array([[[int(v), int(t or 0)] for v, t in triangle] for triangle in corners]) - 1
    return Obj(
        np.array(vertices, np.float64),
        np.array(uv, np.float64).reshape(-1, 2),
        ids[..., 0],
        ids[..., 1],
        np.array(material),
        tuple(materials),
    )


def read_obj_vertices(path: Path) -> np.ndarray:
    """The (N, 3) float32 vertices of an OBJ file alone: ten times faster."""
    lines = (line[2:] for line in path.read_text().splitlines() if line.startswith("v "))
    return np.fromstring(" ".join(lines), np.float32, sep=" ").reshape(-1, 3)


def read_mat(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a MATLAB file: version 4 to 7.2 by SciPy, 7.3 (which is HDF5) by h5py, transposed to MATLAB's order.

    Raises:
        ModelFileError: neither can read it, or a sparse matrix has rows or columns outside of its shape.
    """
    from scipy.io import loadmat

    try:
        arrays = {name: value for name, value in loadmat(path).items() if not name.startswith("__")}
        for value in arrays.values():
            if sparse.issparse(value) and value.format == "csc":
                value.check_format(full_check=True)  # SciPy's products trust the ids: others would write anywhere
        return arrays
    except NotImplementedError:
        return {name: value.T for name, value in read_h5(path).items()}
    except (ValueError, TypeError, OSError, IndexError) as error:
        raise ModelFileError(f"{path}: cannot be read as a MATLAB file: {error}") from None


def read_h5(path: Path) -> dict[str, np.ndarray]:
    """Numeric datasets of an HDF5 file by their full names without the leading slash.

    Raises:
        ModelFileError: not an HDF5 file, or h5py is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise ModelFileError(f"{path} is an HDF5 file, which h5py reads: pip install h5py") from None
    arrays: dict[str, np.ndarray] = {}

    def keep(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "biuf":
            arrays[name] = item[()]

    try:
        with h5py.File(path, "r") as file:
            file.visititems(keep)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read as HDF5: {error}") from None
    return arrays


def read_landmarks(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertex ids (68, 3) and weights (68, 3) from a text file of 68 lines.

    A line is one vertex id, or `id weight id weight id weight` (as GNM's `head_sparse_68.txt`).

    Raises:
        ModelFileError: other lines, or not 68 of them.
    """
    try:
        rows = np.loadtxt(path, ndmin=2)
    except ValueError as error:
        raise ModelFileError(f"{path}: {error}") from None
    if rows.shape == (68, 1):
        rows = rows * [1, 0, 1, 0, 1, 0] + [0, 1, 0, 0, 0, 0]
    if rows.shape != (68, 6):
        raise ModelFileError(
            f"{path}: {rows.shape[0]} lines of {rows.shape[1]} numbers; expected 68 lines of 1 (a vertex id) or 6 "
            "(three ids, each followed by its weight)"
        )
    return rows[:, ::2].astype(np.int64), rows[:, 1::2].astype(np.float32)
