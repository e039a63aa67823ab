"""A person's shape: an identity code, or a mesh of the shape model that is laid over the mean face and encoded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fitdiff.geometry import rotation_matrix

MESH_SUFFIXES = (".obj", ".ply", ".npz")
NAMES = ("shape.json", *(f"mesh{suffix}" for suffix in MESH_SUFFIXES))
LARGEST_RESIDUAL = 10.0
"""mm, root mean square: faces differ from their own model's best fit by 1 mm, from a shuffled mesh by tens."""


def read_shape(path: Path, shape_model: Any, align: str) -> tuple[Tensor, Tensor]:
    """Identity code of a person.

    Args:
        path: `shape.json` with `{"identity": [K numbers]}`, or a neutral mesh. align: see `Rules`.

    Returns:
        (K,) whitened code, and the (3, 3) rotation from the file's axes to head space.

    Raises:
        ValueError: the file does not fit the shape model; the message names it.
    """
    try:
        if path.suffix == ".json":
            return read_code(path, shape_model.n_identity), torch.eye(3)
        vertices = read_vertices(path)
        if len(vertices) == getattr(shape_model, "n_file_vertices", 0):
            vertices = vertices[shape_model.file_vertices]
        code, rotation, residual = encode_mesh(vertices, shape_model, align)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"{path}: {error}") from error
    if residual > LARGEST_RESIDUAL:
        raise ValueError(
            f"{path}: lies {residual:.0f} mm from the closest face of the shape model; the mesh must be neutral, with "
            f"the model's own vertices in their order" + ("" if align == "similarity" else f", in mm (align={align})")
        )
    return code, rotation


def read_code(path: Path, n_identity: int) -> Tensor:
    """(K,) from `{"identity": [...]}`; other keys are ignored.

    Raises:
        ValueError: no list of K finite numbers.
    """
    values = json.loads(path.read_text())
    values = values.get("identity") if isinstance(values, dict) else None
    if not isinstance(values, list) or len(values) != n_identity:
        got = f"{len(values)} numbers" if isinstance(values, list) else "none"
        raise ValueError(
            f"got {got} under 'identity', the shape model's code has {n_identity}; choose the model that the code is "
            "of (its size is shape_model.n_identity), or bring a mesh"
        )
    try:
        code = torch.tensor(values, dtype=torch.float32)
    except (ValueError, TypeError, RuntimeError, OverflowError):
        code = torch.full((1,), torch.nan)
    if code.ndim != 1 or not code.isfinite().all():
        raise ValueError("'identity' must be a list of finite numbers")
    return code


def mesh_sizes(shape_model: Any) -> tuple[int, ...]:
    """Numbers of vertices that a mesh may have: the shape model's, and that of the model's own files if it differs.

    A model whose texture has seams doubles the vertices on them; meshes that its own tools write do not.
    """
    own = getattr(shape_model, "n_file_vertices", 0)
    return tuple(dict.fromkeys(n for n in (len(shape_model.topology.uv), own) if n))


def count_vertices(path: Path) -> int:
    """Vertices that a mesh file announces, without parsing it."""
    if path.suffix == ".npz":
        return len(read_vertices(path))
    if path.suffix == ".obj":
        data = path.read_bytes()
        return data.count(b"\nv ") + data.startswith(b"v ")
    with path.open("rb") as file:
        announced = re.search(rb"element vertex (\d+)", file.read(4096))
    return int(announced[1]) if announced else 0


def read_vertices(path: Path) -> Tensor:
    """(V, 3) float32 in the order of the file: `v` lines of an OBJ, a PLY, or `vertices` of an NPZ.

    Raises:
        ValueError: the file is damaged or holds something else; the message does not name it.
    """
    try:
        vertices = np.asarray(_stored_vertices(path), np.float32)
    except Exception as error:  # zip, NumPy and trimesh have exceptions of their own, all of which mean the same here
        raise ValueError(f"cannot be read as a mesh ({type(error).__name__}: {error}); write it again") from error
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ValueError(f"holds vertices of shape {vertices.shape}, expected (V, 3)")
    return torch.from_numpy(vertices)


def _stored_vertices(path: Path) -> Any:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return file["vertices"]
    if path.suffix == ".obj":
        lines = path.read_text(errors="replace").splitlines()
        return [line.split()[1:4] for line in lines if line.startswith("v ")]
    import trimesh

    return trimesh.load(path, process=False, file_type="ply").vertices


def encode_mesh(vertices_V3: Tensor, shape_model: Any, align: str, rounds: int = 4) -> tuple[Tensor, Tensor, float]:
    """Pose and code that bring a mesh closest to the model, together: Gauss-Newton from the pose on the mean face.

    For a given pose the best code is linear in the vertices, so only what no code explains of each motion counts. (By
    turns, pose and code would trade for hundreds of rounds: the components of a face model can imitate a small nod.)

    Returns:
        (K,) code, (3, 3) rotation into head space, and the root mean square distance that is left in mm.

    Raises:
        ValueError: the number of vertices is not the model's.
    """
    with torch.no_grad():
        mean = shape_model(torch.zeros(1, shape_model.n_identity))[0]
        if vertices_V3.shape != mean.shape:
            raise ValueError(f"has {len(vertices_V3)} vertices, the shape model {len(mean)}")
        rotation, scale, shift = best_pose(vertices_V3, mean, align)
        posed = scale * vertices_V3 @ rotation.T + shift
        for _ in range(rounds if align != "none" else 0):
            motions = _motions(posed, align)
            unexplained = motions - (shape_model(shape_model.encode(mean + motions)) - mean)
            residual = posed - shape_model(shape_model.encode(posed[None]))[0]
            step = _least_squares(unexplained.flatten(1), -residual.flatten())
            turn = rotation_matrix(step[None, :3])[0]
            posed = step[6:].sum().exp() * posed @ turn.T + step[3:6]
            rotation = turn @ rotation
        code = shape_model.encode(posed[None])
        residual = (posed - shape_model(code)[0]).square().sum(1).mean().sqrt().item()
    return code[0], rotation, residual


def _motions(vertices_V3: Tensor, align: str) -> Tensor:
    """(6 or 7, V, 3) mm: how vertices move with turns in radians, shifts in mm and, with scale, growth."""
    axes = torch.eye(3)[:, None].expand(-1, len(vertices_V3), -1)
    motions = torch.cat([torch.linalg.cross(axes, vertices_V3.expand(3, -1, -1)), axes])
    return torch.cat([motions, vertices_V3[None]]) if align == "similarity" else motions


def _least_squares(columns_JN: Tensor, target_N: Tensor) -> Tensor:
    """(J,) weights of the columns; a direction that hardly changes anything (below 1%) is left alone."""
    columns = columns_JN.double()
    length = columns.norm(dim=1).clamp_min(1e-12)
    solved = torch.linalg.lstsq((columns / length[:, None]).T, target_N.double()[:, None], rcond=1e-2, driver="gelsd")
    return (solved.solution[:, 0] / length).float()


def best_pose(source_V3: Tensor, target_V3: Tensor, align: str) -> tuple[Tensor, Tensor, Tensor]:
    """Rotation (3, 3), scale () and shift (3,) that lay `source` over `target` by least squares (Umeyama 1991)."""
    if align == "none":
        return torch.eye(3), torch.tensor(1.0), torch.zeros(3)
    source_mean, target_mean = source_V3.double().mean(0), target_V3.double().mean(0)
    source, target = source_V3.double() - source_mean, target_V3.double() - target_mean
    u, singular, vh = torch.linalg.svd(target.T @ source)
    signs = torch.tensor([1.0, 1.0, torch.sign(torch.linalg.det(u @ vh))], dtype=torch.float64)
    rotation = u @ torch.diag(signs) @ vh
    scale = (
        (singular * signs).sum() / source.square().sum().clamp_min(1e-12)
        if align == "similarity"
        else singular.new_tensor(1.0)
    )
    shift = target_mean - scale * rotation @ source_mean
    return rotation.float(), scale.float(), shift.float()
