"""Texture space of brought meshes: seams, several charts in one map, and an unwrap for models that ship none."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph, linalg

from fitdiff.shape_model.surface import edges_of
from fitdiff.shape_model.unwrap import MARGIN, mean_value_weights, signed_areas, stretch, unfold

SMALL = 5
"""Charts beside the main one get 1 / SMALL of the map's side or less."""
GAP = 0.02
"""Empty border of a small chart, as a share of its side: bilinear look-ups and mipmaps bleed."""

CUT, CUT_BELOW = np.radians(120), np.radians(85)
"""Angle from the front beyond which a part that reaches so far is cut open, at the sides and top, and straight below.

An azimuthal map of more would be all rim; the smaller angle below opens the ring around the neck.
"""


def split_seams(faces: np.ndarray, corner_uv: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One vertex for every place of a mesh vertex in the texture, as `types.Topology` has them.

    Args:
        faces: (F, 3) vertex ids. corner_uv: (F, 3, 2) texture coordinates of the triangles' corners.

    Returns:
        The mesh vertex (W,) of each new vertex, faces (F, 3) of new ids, uv (W, 2). Vertices of no face are left out.
    """
    corners = np.concatenate([faces.reshape(-1, 1), corner_uv.reshape(-1, 2)], 1)
    unique, place = np.unique(corners, axis=0, return_inverse=True)
    return unique[:, 0].astype(np.int64), place.reshape(faces.shape), unique[:, 1:]


def from_udim(corner_uv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """UDIM texture coordinates, whose integer parts choose a texture, in that texture's own square.

    Args:
        corner_uv: (F, 3, 2) of triangle corners, v up as in OBJ files.

    Returns:
        (F, 3, 2) UV space in [0, 1], v down, and the tile (F,), 10 a row.
    """
    # A corner on a tile's far edge has the next tile's number: the least corner counts.
    tile = np.floor(corner_uv.min(1) + 1e-6)
    return (corner_uv - tile[:, None]) * [1, -1] + [0, 1], (tile @ [1, 10]).astype(np.int64)


def pack(corner_uv: np.ndarray, chart: np.ndarray, main: int) -> np.ndarray:
    """Several charts, each over the unit square, in one map: the main one at the top left, the others along its edges.

    With n slots a side, five or as many as it takes, the main chart takes (1 - 1/n)^2 of the map and each other one a
    slot of side 1/n: first the bottom row from the left, then the right column from the top.

    Args:
        corner_uv: (F, 3, 2) UV space of each chart in [0, 1]. chart: (F,) its number. main: number of the main chart.

    Returns:
        (F, 3, 2) in [0, 1]. A single chart is returned as it is.
    """
    others = [c for c in np.unique(chart) if c != main]
    if not others:
        return corner_uv
    n = max(SMALL, (len(others) + 2) // 2)
    slots = [(column, n - 1) for column in range(n)] + [(n - 1, row) for row in range(n - 1)]
    packed = corner_uv * (1 - 1 / n)
    for number, slot in zip(others, slots, strict=False):
        inner = corner_uv[chart == number] * (1 - 2 * GAP) + GAP
        packed[chart == number] = (inner + slot) / n
    return packed


def parts(n_vertices: int, faces: np.ndarray) -> np.ndarray:
    """Connected component (V,) of each vertex; component 0 is the largest by vertices."""
    sides = (faces[:, :2].T.ravel(), faces[:, 1:].T.ravel())
    graph = sparse.csr_matrix((np.ones(2 * len(faces)), sides), (n_vertices, n_vertices))
    label = csgraph.connected_components(graph, directed=False)[1]
    order = np.argsort(-np.bincount(label), kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[label]


def unwrap_any(vertices: np.ndarray, faces: np.ndarray, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """UVs without a folded triangle for a face, head or bust of several parts, in the manner of `unwrap.unwrap`.

    Each part is seen from a point inside it in the azimuthal equidistant projection about +z, which puts the front in
    the middle; folds are relaxed with mean-value weights around them, and if that is not enough, the whole part is
    laid on a disc (Floater 2003, where Tutte's theorem rules folds out). Holes are closed for this by a vertex that is
    forgotten afterwards. A part that reaches more than 120 degrees from the front, as a head and an eyeball do, keeps
    no texture there, nor below beyond 85 degrees; these triangles must be left out.

    Args:
        vertices: (V, 3) mm, head space. faces: (F, 3) int64, counter-clockwise. centre: (3,) the point inside the
            head from which the largest part is seen; others are seen from their centroids.

    Returns:
        uv (V, 2) float64 in [0, 1], v down, and (F,) bool, the triangles that have texture.
    """
    label = parts(len(vertices), faces)
    uv, kept = np.zeros((len(vertices), 2)), np.ones(len(faces), bool)
    charts = np.unique(label[faces[:, 0]])
    for chart in charts:
        mine = np.flatnonzero(label[faces[:, 0]] == chart)
        ids, local = np.unique(faces[mine], return_inverse=True)
        middle = centre if chart == 0 else vertices[ids].mean(0)
        uv[ids], whole = _flatten_part(vertices[ids] - middle, local.reshape(-1, 3))
        kept[mine[~whole]] = False
    packed = pack(uv[faces], label[faces[:, 0]], main=0)
    uv[faces] = packed
    return uv, kept


def _flatten_part(points: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y, z = points.T
    angle = np.arctan2(np.hypot(x, y), z)
    flat = np.stack([x, y], 1) * (angle / np.maximum(np.hypot(x, y), 1e-9))[:, None]
    kept = _in_front(faces, angle, y / np.maximum(np.hypot(x, y), 1e-9))
    ids, local = np.unique(faces[kept], return_inverse=True)
    # Stretched before it is repaired: bent afterwards, slivers could flip again.
    flat = stretch(flat[ids])
    closed, holes = _close_holes(flat, local.reshape(-1, 3))
    solid = np.concatenate([points[ids], _hole_centres(points[ids], holes)])
    relaxed = unfold(np.concatenate([flat, _hole_centres(flat, holes)]), solid, closed)
    if (signed_areas(relaxed, closed) <= 0).any():
        relaxed = _on_disc(solid, closed)
    uv = np.full((len(points), 2), 0.5)
    mine = relaxed[: len(ids)] * [1, -1]
    uv[ids] = (mine - mine.min(0)) / np.ptp(mine, axis=0) * (1 - 2 * MARGIN) + MARGIN
    return uv, kept


def _in_front(faces: np.ndarray, angle: np.ndarray, up: np.ndarray) -> np.ndarray:
    """(F,) the largest connected piece of triangles within the cut, no two of which touch in a mere point."""
    limit = CUT - (CUT - CUT_BELOW) * np.minimum(up, 0) ** 2
    kept = (angle < limit)[faces].all(1) | (angle[faces] < CUT).all()
    while True:
        piece = parts(len(angle), faces[kept])[faces[:, 0]]
        kept &= piece == np.bincount(piece[kept]).argmax()
        _, side, count = edges_of(faces[kept])
        starts = faces[kept][count[side] == 1]
        pinched = np.bincount(starts, minlength=len(angle)) > 1
        if not pinched.any():
            return kept
        kept &= ~pinched[faces].any(1)


def _close_holes(flat: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Faces with a fan over each boundary loop but the one with the longest outline in the plane, and those loops."""
    loops = boundary_loops(faces)
    if not loops:
        return faces, []
    outline = [np.linalg.norm(flat[loop] - flat[np.roll(loop, 1)], axis=1).sum() for loop in loops]
    holes = [loop for k, loop in enumerate(loops) if k != int(np.argmax(outline))]
    fans = [np.stack([np.roll(loop, -1), loop, np.full(len(loop), len(flat) + k)], 1) for k, loop in enumerate(holes)]
    return np.concatenate([faces, *fans]), holes


def _hole_centres(points: np.ndarray, holes: list[np.ndarray]) -> np.ndarray:
    return np.array([points[loop].mean(0) for loop in holes]).reshape(-1, points.shape[1])


def boundary_loops(faces: np.ndarray) -> list[np.ndarray]:
    """Vertices of each closed boundary in the triangles' direction."""
    _, side, count = edges_of(faces)
    sides = np.stack([faces, np.roll(faces, -1, 1)], -1)[count[side] == 1]
    following = dict(sides.tolist())
    loops = []
    while following:
        start, vertex = following.popitem()
        loop = [start]
        while vertex in following:
            loop.append(vertex)
            vertex = following.pop(vertex)
        loops.append(np.array(loop))
    return loops


def _on_disc(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Mean-value embedding with the longest boundary on a circle, by arc length; folds are impossible on a disc."""
    loops = boundary_loops(faces)
    rim = max(loops, key=len)
    length = np.linalg.norm(points[np.roll(rim, -1)] - points[rim], axis=1)
    angle = np.r_[0, np.cumsum(length)[:-1]] / length.sum() * 2 * np.pi
    start = points[rim, 1].argmax()
    angle = angle - angle[start] + np.pi / 2
    flat = np.zeros((len(points), 2))
    flat[rim] = np.stack([np.cos(angle), np.sin(angle)], 1)
    free = np.ones(len(points), bool)
    free[rim] = False
    weights = mean_value_weights(points, faces)
    system = sparse.identity(int(free.sum()), format="csr") - weights[free][:, free]
    flat[free] = linalg.spsolve(system.tocsc(), weights[free][:, ~free] @ flat[~free])
    return flat
