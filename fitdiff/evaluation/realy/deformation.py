"""Non-rigid ICP: a scan's region deforms towards a prediction (Amberg et al. 2007, with the schedule of REALY).

Every vertex x has an affine transform X (4, 3). One step minimises

    sum over edges (i, j) of |a G (X_i - X_j)|^2  +  sum over vertices of m_i |X_i^T [x_i, 1] - y_i|^2

whose normal equations are sparse, symmetric and positive definite, with one unknown 4 x 4 block a vertex and edge.
They are factorised directly; the elimination order is found once, on the graph of the vertices, which is 16 times
smaller than the matrix.

The stages below are those of the benchmark's public program. They differ from Amberg's paper: steps add up (each
starts from the vertices as deformed so far), targets are the points that the prediction had nearest to the undeformed
scan, and pairs that are further apart than twice the mean distance, and than 1 unit, do not count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

STIFFNESS = 50.0
"""alpha of the first stage; each later one has exp(-0.5) of the one before."""

STAGES = 3
TOLERANCE = 1.0
"""Frobenius norm of the change of all transforms at which a stage ends; halved from stage to stage."""

LANDMARK_STIFFNESS = 150.0
LANDMARK_STAGE_WEIGHTS = (2.0, 2.0, 3.0, 2.0)
"""alpha and the diagonal of G of the first step, in which only keypoints pull."""

LANDMARK_WEIGHT = 50.0
MOST_STEPS = 11
"""In a stage with keypoints."""

MOST_STEPS_WITHOUT = 100
"""In a stage without keypoints, where the benchmark knows no limit."""

RIDGE = 1e-6
"""Pulls every transform to the identity: parts of a scan that nothing else pulls stay as they are."""

IDENTITY = np.eye(4, 3)


@dataclass(frozen=True)
class Pull:
    """What pulls on N vertices: weights (N,) >= 0, squared as in the normal equations, and targets (N, 3)."""

    weights: np.ndarray
    targets: np.ndarray


class Deformation:
    """Steps of non-rigid ICP on the triangles of one scan."""

    def __init__(self, n_vertices: int, faces: np.ndarray) -> None:
        """`faces`: (F, 3) vertex numbers below `n_vertices`."""
        sides = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
        edges = np.unique(sides[sides[:, 0] < sides[:, 1]], axis=0)
        ends = sp.coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (n_vertices, n_vertices))
        adjacency = (ends + ends.T).tocsr()
        laplacian = (sp.diags_array(np.asarray(adjacency.sum(0)).ravel()) - adjacency).tocsc()
        self.order = _elimination_order(laplacian)
        # As blocks, with an entry on every diagonal, also of vertices without an edge.
        self.laplacian = (laplacian + sp.eye_array(n_vertices)).tocsr()[self.order][:, self.order].tocsr()
        self.laplacian.sort_indices()
        rows = np.repeat(np.arange(n_vertices), np.diff(self.laplacian.indptr))
        self.diagonal = np.flatnonzero(rows == self.laplacian.indices)
        self.edge_weights = self.laplacian.data.copy()
        self.edge_weights[self.diagonal] -= 1

    def step(self, vertices: np.ndarray, pull: Pull, stiffness: np.ndarray) -> np.ndarray:
        """The transforms (N, 4, 3) that minimise the energy above.

        Args:
            vertices: (N, 3). stiffness: (4,) diagonal of a G.
        """
        n = len(vertices)
        x = np.column_stack([vertices, np.ones(n)])[self.order]
        m, y = pull.weights[self.order], pull.targets[self.order]
        blocks = self.edge_weights[:, None, None] * np.diag(stiffness**2)
        blocks[self.diagonal] += m[:, None, None] * x[:, :, None] * x[:, None, :] + RIDGE * np.eye(4)
        matrix = sp.bsr_array((blocks, self.laplacian.indices, self.laplacian.indptr), shape=(4 * n, 4 * n))
        right = x[:, :, None] * (m[:, None] * y)[:, None, :] + RIDGE * IDENTITY
        factor = splu(matrix.tocsc(), "NATURAL", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        transforms = np.empty((n, 4, 3))
        transforms[self.order] = factor.solve(right.reshape(4 * n, 3)).reshape(n, 4, 3)
        return transforms


def deform(
    vertices: np.ndarray,
    faces: np.ndarray,
    targets: np.ndarray,
    landmark_vertices: np.ndarray,
    landmark_targets: np.ndarray,
) -> np.ndarray:
    """Deform a scan towards points of a prediction.

    Args:
        vertices: (N, 3) of the scan, in the benchmark's unit (about 9 mm: tolerances and weights depend on it).
        faces: (F, 3). targets: (M, 3) points to meet: each vertex is pulled to the nearest at every step.
        landmark_vertices: (K,) vertices of the scan, and landmark_targets: (K, 3) where they belong, K >= 0.

    Returns:
        (N, 3) deformed vertices.
    """
    deformation, tree = Deformation(len(vertices), faces), cKDTree(targets)
    # Ones, which no step gives, are what the benchmark's first step is compared with: no stage ends before its second.
    transforms, change, n_steps = np.ones((len(vertices), 4, 3)), np.inf, 0

    def take(pull: Pull, stiffness: np.ndarray) -> None:
        nonlocal vertices, transforms, change, n_steps
        new = deformation.step(vertices, pull, stiffness)
        change = float(np.linalg.norm(new - transforms))
        vertices, transforms, n_steps = _apply(new, vertices), new, n_steps + 1

    if len(landmark_vertices):
        pull = _landmark_pull(vertices, landmark_vertices, landmark_targets, LANDMARK_WEIGHT)
        take(pull, LANDMARK_STIFFNESS * np.array(LANDMARK_STAGE_WEIGHTS))
    for stage in range(STAGES):
        for _ in range(MOST_STEPS if len(landmark_vertices) else MOST_STEPS_WITHOUT):
            if change <= TOLERANCE * 0.5**stage:
                break
            weight = LANDMARK_WEIGHT / 10 * np.exp(-0.9 * n_steps)
            landmarks = _landmark_pull(vertices, landmark_vertices, landmark_targets, weight)
            pull = _join(_nearest_pull(vertices, targets, tree), landmarks)
            take(pull, np.full(4, STIFFNESS * np.exp(-0.5 * stage)))
    return vertices


def _nearest_pull(vertices: np.ndarray, targets: np.ndarray, tree: cKDTree) -> Pull:
    distance, nearest = tree.query(vertices)
    return Pull((distance < max(2 * distance.mean(), 1.0)).astype(np.float64), targets[nearest])


def _landmark_pull(vertices: np.ndarray, ids: np.ndarray, targets: np.ndarray, weight: float) -> Pull:
    weights, places = np.zeros(len(vertices)), vertices.copy()
    weights[ids], places[ids] = weight**2, targets
    return Pull(weights, places)


def _join(a: Pull, b: Pull) -> Pull:
    """The pull of both: the weights add up, and the target is their mean."""
    weights = a.weights + b.weights
    sums = a.weights[:, None] * a.targets + b.weights[:, None] * b.targets
    return Pull(weights, np.divide(sums, weights[:, None], out=a.targets.copy(), where=weights[:, None] > 0))


def _apply(transforms: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    return np.einsum("nij,ni->nj", transforms[:, :3], vertices) + transforms[:, 3]


def _elimination_order(laplacian: sp.csc_array) -> np.ndarray:
    """Vertices in the order in which eliminating them fills the factor little (minimum degree)."""
    shifted = (laplacian + sp.eye_array(laplacian.shape[0])).tocsc()
    return np.argsort(splu(shifted, "MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}).perm_c)
