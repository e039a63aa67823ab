"""Polygon-mesh operations of the embedded face model, each a linear map of vertices.

A mesh operator is a sparse matrix whose row says how a new vertex is made from old ones: applied to a mean face, to
a morph target or to texture coordinates it gives the same vertices of each, so a whole linear face model can be
refined, filled and clipped once, when it is built.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph
from scipy.spatial import cKDTree

MIRROR_TOLERANCE = 1e-9
"""Of the mesh's size: how far the mirror image of a vertex may lie from its partner."""

SNAP = 0.3
"""A vertex nearer to the clip line than this fraction of an edge is moved onto it, so that no sliver is left."""


@dataclass(frozen=True)
class QuadMesh:
    """Quads over vertices that are combinations of a source mesh's vertices.

    Attributes:
        operator: (V, N) sparse; vertices = operator @ source.
        quads: (Q, 4) int64.
        labels: (Q,) int64, free marks that refinement hands down.
        creases: (C, 2) int64 edges that refinement keeps sharp.
    """

    operator: sparse.csr_matrix
    quads: np.ndarray
    labels: np.ndarray
    creases: np.ndarray


def edges_of(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Undirected edges (E, 2) of polygons (F, n), the edge of each polygon side (F, n), and polygons per edge (E,)."""
    sides = np.stack([faces, np.roll(faces, -1, 1)], -1).reshape(-1, 2)
    edges, side, count = np.unique(np.sort(sides, 1), axis=0, return_inverse=True, return_counts=True)
    return edges, side.reshape(faces.shape), count


def boundary_loop(faces: np.ndarray) -> np.ndarray:
    """Vertices (L,) of the boundary of a disc in order, following the polygons' direction.

    Raises:
        ValueError: the boundary is not one closed loop.
    """
    _, side, count = edges_of(faces)
    sides = np.stack([faces, np.roll(faces, -1, 1)], -1)[count[side] == 1]
    following = dict(sides.tolist())
    loop = [int(sides[0, 0])]
    while (vertex := following.get(loop[-1])) is not None and vertex != loop[0] and len(loop) <= len(sides):
        loop.append(vertex)
    if len(loop) != len(sides):
        raise ValueError(
            f"expected one boundary loop, got {len(sides)} boundary edges of which a loop uses {len(loop)}"
        )
    return np.array(loop)


def components(faces: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Connected component (F,) of each polygon when polygons touch across edges that are not in `cuts` (C, 2)."""
    edges, side, _ = edges_of(faces)
    open_edges = ~_contains(cuts, edges)
    owner = np.repeat(np.arange(len(faces)), faces.shape[1])
    touches = sparse.csr_matrix((open_edges[side.ravel()], (owner, side.ravel())), (len(faces), len(edges)))
    return csgraph.connected_components(touches @ touches.T, directed=False)[1]


def grid_fill(loop: np.ndarray, columns: int) -> tuple[np.ndarray, sparse.csr_matrix]:
    """Fill a closed loop with a grid of quads whose inner vertices are a Coons patch. (Coons 1967.)

    Args:
        loop: (L,) vertex ids, L even; the first is a corner of the grid.
        columns: quads along the side that starts there; the next side has L / 2 - columns.

    Returns:
        Quads (Q, 4) of ids, running in the loop's direction, where -1 - i is the i-th inner vertex, and the weights
        (inner, L) of the loop's vertices that make the inner ones.
    """
    rows = len(loop) // 2 - columns
    i, j = np.arange(columns), np.arange(rows)
    ring_i = np.concatenate([i, 0 * j + columns, columns - i, 0 * j])
    ring_j = np.concatenate([0 * i, j, 0 * i + rows, rows - j])
    position = np.zeros((columns + 1, rows + 1), np.int64)
    position[ring_i, ring_j] = np.arange(len(loop))
    grid = loop[position]
    grid[1:-1, 1:-1] = -1 - np.arange((columns - 1) * (rows - 1)).reshape(columns - 1, rows - 1)
    quads = np.stack([grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]], -1).reshape(-1, 4)

    s, t = (axis.ravel() for axis in np.mgrid[1:columns, 1:rows])
    s_weight, t_weight = np.stack([1 - s / columns, s / columns]), np.stack([1 - t / rows, t / rows])
    weights = np.zeros((len(s), len(loop)))
    inner = np.arange(len(s))
    for end in (0, 1):
        weights[inner, position[end * columns, t]] += s_weight[end]
        weights[inner, position[s, end * rows]] += t_weight[end]
        for other in (0, 1):
            weights[inner, position[end * columns, other * rows]] -= s_weight[end] * t_weight[other]
    return quads, sparse.csr_matrix(weights)


def subdivide(mesh: QuadMesh) -> QuadMesh:
    """One step of Catmull-Clark subdivision; boundary and crease edges follow the cubic B-spline curve rule.

    Source: Catmull and Clark 1978; creases: DeRose et al. 1998.
    """
    n, n_faces = mesh.operator.shape[0], len(mesh.quads)
    edges, side, count = edges_of(mesh.quads)
    sharp = (count == 1) | _contains(mesh.creases, edges)
    ones = np.ones
    face_points = _rows(mesh.quads, n) / 4
    midpoints = _rows(edges, n) / 2
    owner = np.repeat(np.arange(n_faces), 4)
    edge_faces = sparse.csr_matrix((ones(4 * n_faces), (side.ravel(), owner)), (len(edges), n_faces))
    keep = sparse.diags(np.where(sharp, 1.0, 0.5))
    edge_points = keep @ midpoints + sparse.diags(np.where(sharp, 0.0, 0.25)) @ edge_faces @ face_points

    around_faces, around_edges = _rows(mesh.quads, n).T, _rows(edges, n).T
    around_sharp = around_edges @ sparse.diags(sharp.astype(float))
    valence = np.asarray(around_edges.sum(1)).ravel()
    on_crease = np.asarray(around_sharp.sum(1)).ravel() > 0
    smooth = _diagonal(~on_crease / valence**2) @ (around_faces @ face_points + 2 * around_edges @ midpoints)
    smooth = smooth + _diagonal(np.where(on_crease, 0.5, 1 - 3 / valence))
    vertex_points = smooth + _diagonal(0.25 * on_crease) @ around_sharp @ midpoints

    refined = sparse.vstack([vertex_points, edge_points, face_points]).tocsr() @ mesh.operator
    edge_ids, face_ids = n + side, n + len(edges) + np.arange(n_faces)
    before = np.roll(edge_ids, 1, 1)
    quads = np.stack([mesh.quads, edge_ids, np.broadcast_to(face_ids[:, None], side.shape), before], -1)
    split = np.flatnonzero(_contains(mesh.creases, edges))
    creases = np.concatenate([np.stack([edges[split, k], n + split], 1) for k in (0, 1)])
    return QuadMesh(refined.tocsr(), quads.reshape(-1, 4), np.repeat(mesh.labels, 4), creases)


def mirror_partners(vertices: np.ndarray) -> np.ndarray:
    """Which vertex (V,) is the mirror image, in the plane x = 0, of each vertex (V, 3).

    Raises:
        ValueError: a vertex has no partner nearby, or shares it with another one.
    """
    distance, partner = cKDTree(vertices).query(vertices * [-1, 1, 1])
    lonely = (distance > MIRROR_TOLERANCE * np.ptp(vertices)) | (partner[partner] != np.arange(len(vertices)))
    if lonely.any():
        raise ValueError(f"{int(lonely.sum())} of {len(vertices)} vertices have no mirror image of their own")
    return partner


def mirror_mean(vertices: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """The symmetric part of vertices (V, 3): their mean with their mirror image in the plane x = 0, exactly."""
    return (vertices + vertices[partner] * [-1, 1, 1]) / 2


def triangulate(quads: np.ndarray, vertices: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """Split the quads of a symmetric mesh along their shorter diagonal, alike on both sides of x = 0. -> (2 Q, 3)."""
    left = quads[vertices[quads, 0].mean(1) > 0]
    corners = vertices[left]
    diagonals = np.linalg.norm(corners[:, [0, 1]] - corners[:, [2, 3]], axis=-1)
    half = _split(left, diagonals[:, 1] < diagonals[:, 0])
    return np.concatenate([half, partner[half[:, ::-1]]])


def _split(quads: np.ndarray, from_second: np.ndarray) -> np.ndarray:
    """Two triangles of each quad, along the diagonal from its first or, where told (Q,), from its second corner."""
    turned = np.where(from_second[:, None], np.roll(quads, -1, 1), quads)
    return np.stack([turned[:, [0, 1, 2]], turned[:, [0, 2, 3]]], 1).reshape(-1, 3)


def clip(triangles: np.ndarray, level: np.ndarray) -> tuple[np.ndarray, sparse.csr_matrix]:
    """Keep the part of a mesh where a function on its vertices is positive, with a clean edge on its zero line.

    Args:
        triangles: (F, 3) int64.
        level: (V,) the function, linear inside each triangle.

    Returns:
        Triangles (F', 3) and the (V', V) operator that makes their vertices.
    """
    level, snap = _snap_to_zero(triangles, level)
    n = len(level)
    triangles = triangles[(level[triangles] > 0).any(1)]
    edges, side, _ = edges_of(triangles)
    crossed = np.sign(level[edges]).prod(1) < 0
    share = level[edges[:, 1]] / np.where(crossed, level[edges[:, 1]] - level[edges[:, 0]], 1)
    cut = sparse.diags(share) @ _rows(edges[:, :1], n) + sparse.diags(1 - share) @ _rows(edges[:, 1:], n)
    operator = sparse.vstack([snap, cut @ snap]).tocsr()
    kept = _clip_triangles(triangles, side + n, level)
    used, faces = np.unique(kept, return_inverse=True)
    return faces.reshape(-1, 3), operator[used]


def _snap_to_zero(triangles: np.ndarray, level: np.ndarray) -> tuple[np.ndarray, sparse.csr_matrix]:
    """Move vertices close to the zero line onto it, along the mean of their edges that cross it."""
    edges = edges_of(triangles)[0]
    both = np.concatenate([edges, edges[:, ::-1]])
    start, end = level[both[:, 0]], level[both[:, 1]]
    crossed = start * end < 0
    step = start / np.where(crossed, start - end, 1)
    near = crossed & (step < SNAP)
    from_, to, step = both[near, 0], both[near, 1], step[near]
    n = len(level)
    times = np.bincount(from_, minlength=n)
    share = step / times[from_]
    move = sparse.csr_matrix((share, (from_, to)), (n, n)) - _diagonal(np.bincount(from_, share, n))
    return np.where(times > 0, 0.0, level), (sparse.identity(n) + move).tocsr()


def _clip_triangles(triangles: np.ndarray, side: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Triangles of the positive part; `side` holds the id of the cut vertex of each side."""
    negative = level[triangles] < 0
    whole = triangles[~negative.any(1)]
    count, zero = negative.sum(1), (level[triangles] == 0).any(1)

    def turned(select: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        order = (first[select].argmax(1)[:, None] + np.arange(3)) % 3
        return np.take_along_axis(triangles[select], order, 1), np.take_along_axis(side[select], order, 1)

    tip, cut = turned(count == 2, ~negative)
    one = np.stack([tip[:, 0], cut[:, 0], cut[:, 2]], 1)
    base, cut = turned((count == 1) & ~zero, negative)
    # The diagonal from the corner nearer to the line is the shorter one as a rule, and the same one in a mirror image.
    trapezia = np.stack([cut[:, 0], base[:, 1], base[:, 2], cut[:, 2]], 1)
    two = _split(trapezia, level[base[:, 1]] < level[base[:, 2]])
    # One corner on the line: it takes the place of one of the two cuts.
    base, cut = turned((count == 1) & zero, negative)
    next_is_zero = level[base[:, 1]] == 0
    rest = np.where(
        next_is_zero[:, None],
        np.stack([base[:, 1], base[:, 2], cut[:, 2]], 1),
        np.stack([cut[:, 0], base[:, 1], base[:, 2]], 1),
    )
    return np.concatenate([whole, one, two, rest])


def _contains(table: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Which undirected edges (E, 2) are in a table (C, 2)."""
    size = max(int(edges.max()), int(table.max(initial=0))) + 1
    return np.isin(*(np.sort(x, 1) @ [size, 1] for x in (edges, table)))


def _rows(ids: np.ndarray, n: int) -> sparse.csr_matrix:
    """Sparse (len(ids), n) with ones at each row's ids."""
    row = np.repeat(np.arange(len(ids)), ids.shape[1])
    return sparse.csr_matrix((np.ones(ids.size), (row, ids.ravel())), (len(ids), n))


def _diagonal(values: np.ndarray) -> sparse.dia_matrix:
    return sparse.diags(values.astype(float))
