"""UV unwrap of a face: longitude and latitude seen from inside the head, repaired where they fold, then stretched.

The map is upright and seen from the front: u grows towards the subject's left, v towards the chin.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse import linalg

STRETCH = (1.6, 1.5)
"""Slope of the arctangent along u and v: enlarges the middle of the face and squares its oval outline."""

CRUSHED = 0.1
"""A triangle with less than this share of the median texel density is repaired like one that folds over."""

MARGIN = 1 / 128
MAX_REPAIRS = 40


class UnwrapError(RuntimeError):
    """A triangle stays folded in texture space."""


def unwrap(vertices: np.ndarray, faces: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Give every vertex of a face mesh its texture coordinates.

    Args:
        vertices: (V, 3) mm, head space.
        faces: (F, 3) int64, counter-clockwise, a disc.
        centre: (3,) the point inside the head from which the face is seen.

    Returns:
        (V, 2) float64 in [0, 1], v down. No triangle is folded.

    Raises:
        UnwrapError: repairing did not remove every fold.
    """
    x, y, z = (vertices - centre).T
    flat = np.stack([np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))], 1)
    flat = unfold(flat, vertices, faces)
    uv = stretch(flat) * [1, -1]
    uv = (uv - uv.min(0)) / np.ptp(uv, axis=0) * (1 - 2 * MARGIN) + MARGIN
    if (folded := signed_areas(uv, faces) >= 0).any():
        raise UnwrapError(f"{int(folded.sum())} of {len(faces)} triangles are folded in texture space, expected none")
    return uv


def signed_areas(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Signed areas (F,) of triangles of 2-D points (V, 2), positive when counter-clockwise for a second axis up."""
    a, b, c = (points[faces[:, k]] for k in range(3))
    return 0.5 * ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])


def unfold(flat: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Relax a map (V, 2) where triangles fold or are crushed, further each time, until none is; its border stays."""
    weights = mean_value_weights(vertices, faces)
    neighbours = weights.astype(bool)
    areas = np.linalg.norm(np.cross(*(vertices[faces[:, k]] - vertices[faces[:, 0]] for k in (1, 2))), axis=1) / 2
    border = np.zeros(len(flat), bool)
    border[_border(faces)] = True
    free = np.zeros(len(flat), bool)
    for _ in range(MAX_REPAIRS):
        density = signed_areas(flat, faces) / areas
        bad = density < CRUSHED * np.median(density)
        if not bad.any():
            break
        spread = np.zeros(len(flat), bool)
        spread[faces[bad]] = True
        free = (free | spread | (neighbours @ spread)) & ~border
        flat = relax(flat, weights, free)
    return flat


def mean_value_weights(vertices: np.ndarray, faces: np.ndarray) -> sparse.csr_matrix:
    """Rows (V, V) of mean-value coordinates of each vertex in its neighbours, each summing to 1. (Floater 2003.)"""
    rows, columns, values = [], [], []
    for k in range(3):
        here, after, before = faces[:, k], faces[:, (k + 1) % 3], faces[:, (k + 2) % 3]
        p, q = vertices[after] - vertices[here], vertices[before] - vertices[here]
        p_length, q_length = np.linalg.norm(p, axis=1), np.linalg.norm(q, axis=1)
        # tan(angle / 2) = sin / (1 + cos)
        half = np.linalg.norm(np.cross(p, q), axis=1) / (p_length * q_length + (p * q).sum(1))
        rows += [here, here]
        columns += [after, before]
        values += [half / p_length, half / q_length]
    shape = (len(vertices), len(vertices))
    weights = sparse.csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape)
    return (sparse.diags(1 / np.asarray(weights.sum(1)).ravel()) @ weights).tocsr()


def relax(flat: np.ndarray, weights: sparse.csr_matrix, free: np.ndarray) -> np.ndarray:
    """Put each free point at the mean-value combination of its neighbours; the others stay."""
    system = sparse.identity(int(free.sum()), format="csr") - weights[free][:, free]
    solution = flat.copy()
    solution[free] = linalg.spsolve(system.tocsc(), weights[free][:, ~free] @ flat[~free])
    return solution


def stretch(flat: np.ndarray) -> np.ndarray:
    """Enlarge the middle of a map (V, 2): an arctangent of its position in its bounding box."""
    half = np.ptp(flat, axis=0) / 2
    centred = (flat - flat.min(0)) / half - 1
    return np.arctan(np.array(STRETCH) * centred)


def _border(faces: np.ndarray) -> np.ndarray:
    sides = np.sort(np.stack([faces, np.roll(faces, -1, 1)], -1).reshape(-1, 2), 1)
    edges, count = np.unique(sides, axis=0, return_counts=True)
    return np.unique(edges[count == 1])
