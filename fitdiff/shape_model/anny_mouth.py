"""The mouth's inside of the embedded face model: two rows of teeth, palate, tongue and throat, behind the lips.

A grid of quads closes the loop behind the lips; its rows are MakeHuman's dental arches. Between the backs of the upper
and of the lower teeth the grid is opened again and continued by rings that narrow towards the throat.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from fitdiff.shape_model.makehuman import BaseMesh
from fitdiff.shape_model.surface import grid_fill

TEETH, TONGUE, MOUTH = 3, 4, 5
"""Labels of quads, after the three of `anny_mesh`."""

COLUMNS = 12

ARCHES = (
    (15079, 15075, 15074, 15073),
    (15069, 15086, 15071, 15070),
    (15087, 15095, 15089, 15088),
    (15027, 15019, 15020, 15021),
    (15010, 15001, 15002, 15003),
    (15012, 15013, 15014, 15015),
)
"""MakeHuman's dental arches from the middle to the left, which the mouth's grid takes over row by row: fronts, edges
and backs of the upper teeth, then backs, edges and fronts of the lower ones."""
ARCH_STATIONS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5)
"""Where the grid's columns lie along an arch, in its vertices; further out teeth would pierce the closed lips."""
OVERBITE = 0.5
"""How much further down the upper teeth's edges lie than MakeHuman's, whose lip hides them when the mouth opens."""
TEETH_ROWS, TEETH_COLUMNS = (1, 5), range(2, 10)
"""Rows of the mouth's quads, from the top, that are the fronts of the teeth, and columns that are light enough to be
seen: the corners of closed lips may gape a little, and the mouth is dark behind them."""

PALATE_SIDE, TONGUE_SIDE = 15093, 13540
"""MakeHuman's vertices on the left of the palate, behind the molars, and of the tongue: where the rings lead to."""
RINGS = (0.5, 1.0)
"""How far each ring has gone from the teeth's backs to there."""


def mouth_patch(base: BaseMesh, loop: np.ndarray) -> tuple[np.ndarray, sparse.csr_matrix, np.ndarray]:
    """Close the loop (L,) behind the lips, which starts at a corner of the grid, in its own direction.

    Returns:
        Quads (Q, 4) of positions in the loop, where -1 - i is the i-th inner vertex; the operator that makes these from
        MakeHuman's vertices; and labels (Q,): TEETH, TONGUE or MOUTH.
    """
    quads, _ = grid_fill(np.arange(len(loop)), COLUMNS)
    n_rows = len(ARCHES) + 1
    column, row = np.divmod(np.arange(len(quads)), n_rows)
    labels = np.where(np.isin(row, TEETH_ROWS) & np.isin(column, TEETH_COLUMNS), TEETH, MOUTH)
    arches = _arches(base)
    gap = (row == n_rows // 2) & (column > 0) & (column < COLUMNS - 1)
    above, below = (np.arange(COLUMNS - 1) * len(ARCHES) + n_rows // 2 - up for up in (1, 0))
    throat, marks, rings = _throat(base, arches, above, below)
    return (
        np.concatenate([quads[~gap], throat]),
        sparse.vstack([arches, rings]).tocsr(),
        np.concatenate([labels[~gap], marks]),
    )


def _arches(base: BaseMesh) -> sparse.csr_matrix:
    """Operator of the grid's inner vertices, column by column from the left teeth to the right ones."""
    n_rows, n_arch = np.shape(ARCHES)
    stations = np.array(ARCH_STATIONS)
    along = np.maximum(0, 1 - np.abs(stations[:, None] - np.arange(n_arch)))
    down = np.eye(n_rows)
    down[1, :2] = -OVERBITE, 1 + OVERBITE
    weights = np.einsum("ci,rj->crji", along, down).reshape(len(stations) * n_rows, -1)
    left = sparse.csr_matrix(weights) @ sparse.identity(len(base.vertices), format="csr")[np.ravel(ARCHES)]
    right = left[:, base.mirror]
    order = np.arange(left.shape[0]).reshape(-1, n_rows)
    return sparse.vstack([left[order[:0:-1].ravel()], right]).tocsr()


def _throat(
    base: BaseMesh, arches: sparse.csr_matrix, above: np.ndarray, below: np.ndarray
) -> tuple[np.ndarray, np.ndarray, sparse.csr_matrix]:
    """Rings from the inner vertices `above` and `below` of the gap (C,) backwards, closed by a row of quads.

    Returns:
        Quads of ids -1 - i as of `mouth_patch`, their labels, and the operator of the new inner vertices.
    """
    teeth = np.concatenate([above, below[::-1]])
    identity = sparse.identity(len(base.vertices), format="csr")
    left = sparse.diags(np.linspace(1, 0, len(above)))
    across = [
        left @ identity[[side] * len(above)] + left.tocsr()[::-1, ::-1] @ identity[[base.mirror[side]] * len(above)]
        for side in (PALATE_SIDE, TONGUE_SIDE)
    ]
    goal = sparse.vstack([across[0], across[1][::-1]])
    operator = sparse.vstack([arches[teeth] * (1 - share) + goal * share for share in RINGS])
    new = arches.shape[0] + np.arange(operator.shape[0]).reshape(len(RINGS), -1)
    rings = np.stack([teeth, *new])
    outer, inner = rings[:-1], rings[1:]
    walls = np.stack([outer, np.roll(outer, -1, 1), np.roll(inner, -1, 1), inner], -1)
    top, bottom = inner[-1][: len(above)], inner[-1][: len(above) - 1 : -1]
    back = np.stack([top[:-1], top[1:], bottom[1:], bottom[:-1]], -1)
    labels = np.full(walls.shape[:2], MOUTH)
    labels[:, len(above) : -1] = TONGUE
    return (
        -1 - np.concatenate([walls.reshape(-1, 4), back]),
        np.concatenate([labels.ravel(), np.full(len(back), MOUTH)]),
        operator,
    )
