"""Triangle meshes on disk, OBJ and PLY: the order and the number of vertices are those of the file.

General readers split vertices at texture seams, merge equal ones, or drop those that no triangle uses. A benchmark
counts vertices, and a topology's landmarks are vertex numbers, so nothing of that may happen here.
"""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fitdiff.storage import write_atomically

SUFFIXES = (".obj", ".ply")
"""What can be read and written."""


class MeshError(ValueError):
    """A file is missing, is no mesh, or holds numbers that are none; the message names the file and what is wrong."""


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh, in the unit of its file.

    Attributes:
        vertices: (V, 3) float64, finite.
        faces: (F, 3) int64 in [0, V); (0, 3) of a bare cloud of points. They may be degenerate.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]


def read_mesh(path: str | os.PathLike[str]) -> Mesh:
    """Read an OBJ or PLY file.

    Polygons become fans. Colours after a vertex's position, texture coordinates and normals are passed over.

    Raises:
        MeshError: nothing is there, another suffix, a damaged file, a number that is not finite, a vertex id that no
            vertex has.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise MeshError(f"{path}: got a {path.suffix or 'name without suffix'}, expected one of {', '.join(SUFFIXES)}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MeshError(f"{path}: cannot be read: {error.strerror}") from None
    return (_read_obj if path.suffix.lower() == ".obj" else _read_ply)(data, path)


def write_mesh(
    path: str | os.PathLike[str], vertices: ArrayLike, faces: ArrayLike, colours: ArrayLike | None = None
) -> Path:
    """Write a mesh atomically; the suffix decides: OBJ (text of nine digits) or PLY (binary, float32).

    Args:
        vertices: (V, 3). faces: (F, 3) ids from 0. colours: (V, 3) in [0, 1], of an OBJ alone, after each position.

    Raises:
        MeshError: another suffix, other shapes, a number that is not finite, or a vertex id that no vertex has.
    """
    path = Path(path)
    mesh = _checked(np.asarray(vertices, np.float64), np.asarray(faces, np.int64), path)
    if path.suffix.lower() == ".obj":
        columns = mesh.vertices if colours is None else np.concatenate([mesh.vertices, colours], 1)
        text = io.BytesIO()
        np.savetxt(text, columns, "v" + " %.9g" * 3 + " %.4f" * (columns.shape[1] - 3))
        np.savetxt(text, mesh.faces + 1, "f %d %d %d")
        return write_atomically(path, text.getvalue())
    if path.suffix.lower() == ".ply":
        from trimesh import Trimesh

        return write_atomically(path, Trimesh(mesh.vertices, mesh.faces, process=False).export(file_type="ply"))
    raise MeshError(f"{path}: got a {path.suffix or 'name without suffix'}, expected one of {', '.join(SUFFIXES)}")


def _checked(vertices: NDArray[np.float64], faces: NDArray[np.int64], path: Path) -> Mesh:
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise MeshError(
            f"{path}: got vertices of shape {vertices.shape} and faces of shape {faces.shape}, expected (V, 3), (F, 3)"
        )
    if not np.isfinite(vertices).all():
        number = int(np.argmin(np.isfinite(vertices).all(1)))
        raise MeshError(f"{path}: vertex {number} of {len(vertices)} (from 0) is {vertices[number]}, which is no place")
    if faces.size and not 0 <= faces.min() <= faces.max() < len(vertices):
        number = int(np.argmax(((faces < 0) | (faces >= len(vertices))).any(1)))
        raise MeshError(
            f"{path}: face {number} (from 0) joins vertices {faces[number].tolist()} of only {len(vertices)} (from 0)"
        )
    return Mesh(vertices, faces)


def _read_ply(data: bytes, path: Path) -> Mesh:
    from trimesh.exchange.ply import load_ply

    try:
        parts: dict[str, Any] = load_ply(io.BytesIO(data), fix_texture=False, skip_materials=True)
        vertices = np.array(parts["vertices"], np.float64)
        polygons = parts.get("faces")
        polygons = np.empty((0, 3), np.int64) if polygons is None else np.array(polygons, np.int64)
        faces = polygons.ravel()[_fans(np.full(*polygons.shape))]
    except Exception as error:  # NumPy, zip and trimesh have errors of their own, which all mean the same here
        raise MeshError(
            f"{path}: cannot be read as PLY ({type(error).__name__}: {error}); write it again, as triangles"
        ) from error
    return _checked(vertices, faces, path)


def _read_obj(data: bytes, path: Path) -> Mesh:
    lines = data.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ").splitlines()
    words = [line.split(None, 1)[:1] for line in lines]
    vertex_lines = [number for number, word in enumerate(words) if word == [b"v"]]
    face_lines = [number for number, word in enumerate(words) if word == [b"f"]]
    if not vertex_lines:
        raise MeshError(f"{path}: no line starts with 'v', so this is no OBJ mesh")
    vertices = _obj_vertices(lines, vertex_lines, path)
    return _checked(vertices, _obj_faces(lines, face_lines, np.array(vertex_lines), path), path)


def _obj_vertices(lines: list[bytes], numbers: list[int], path: Path) -> NDArray[np.float64]:
    try:
        return np.loadtxt([lines[n].decode("latin-1") for n in numbers], usecols=(1, 2, 3), ndmin=2)
    except ValueError:
        number = next(n for n in numbers if not _is_vertex(lines[n]))
        raise MeshError(
            f"{path}: line {number + 1} is {lines[number][:80]!r}, expected 'v' and three numbers"
        ) from None


def _is_vertex(line: bytes) -> bool:
    try:
        return len([float(word) for word in line.split()[1:4]]) == 3
    except ValueError:
        return False


def _obj_faces(
    lines: list[bytes], numbers: list[int], vertex_lines: NDArray[np.int64], path: Path
) -> NDArray[np.int64]:
    """Triangles (F, 3) of the face lines `numbers`; `vertex_lines` are the lines of the vertices."""
    polygons = [re.sub(rb"/\S*", b"", lines[n].split(b"#")[0]).split()[1:] for n in numbers]
    sides = np.array([len(polygon) for polygon in polygons], np.int64)
    try:
        corners = np.array([int(word) for polygon in polygons for word in polygon], np.int64)
    except ValueError:
        sides[:] = 0  # some line is wrong: found below
        corners = np.zeros(0, np.int64)
    if len(sides) and sides.min() < 3:
        number = next(n for n, polygon in zip(numbers, polygons, strict=True) if not _is_polygon(polygon))
        raise MeshError(
            f"{path}: line {number + 1} is {lines[number][:80]!r}, expected 'f' and at least three vertex numbers"
        )
    # Numbers from 1; a negative one counts back from the last vertex before the line.
    before = np.repeat(np.searchsorted(vertex_lines, numbers), sides)
    ids = np.where(corners < 0, before + corners, corners - 1)
    outside = (ids < 0) | (ids >= len(vertex_lines))
    if outside.any():
        number = numbers[int(np.repeat(np.arange(len(numbers)), sides)[outside][0])]
        raise MeshError(
            f"{path}: line {number + 1} is {lines[number][:80]!r}, but there are {len(vertex_lines)} vertices"
        )
    return ids[_fans(sides)]


def _is_polygon(words: list[bytes]) -> bool:
    return len(words) >= 3 and all(re.fullmatch(rb"[+-]?\d+", word) for word in words)


def _fans(sides: NDArray[np.int64]) -> NDArray[np.int64]:
    """(F, 3) positions in the concatenated corners of polygons with so many sides each: all fans, in order."""
    triangles = sides - 2
    first = np.repeat(np.cumsum(sides) - sides, triangles)
    step = np.arange(len(first)) - np.repeat(np.cumsum(triangles) - triangles, triangles)
    return np.stack([first, first + step + 1, first + step + 2], 1)
