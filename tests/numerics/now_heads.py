"""Heads of which everything is known: bumpy ellipsoids with seven points, for the tests of NoW."""

import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

from fitdiff.evaluation.now.alignment import Similarity

PLACES = np.array(
    [[-0.6, 0.4, 1], [-0.2, 0.4, 1], [0.2, 0.4, 1], [0.6, 0.4, 1], [0, -0.1, 1], [-0.3, -0.5, 1], [0.3, -0.5, 1]]
)
"""Directions of the seven points from the middle of the head."""


def head(finer: int = 4, nose: float = 18.0, width: float = 70.0) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) mm and faces (F, 3): an ellipsoid with a nose, brows, and a chin to one side."""
    ball = trimesh.creation.icosphere(subdivisions=finer)
    x, y, z = (unit := np.asarray(ball.vertices)).T
    bump = nose * np.exp(-(x**2 + (y + 0.05) ** 2) / 0.02) * (z > 0)
    bump += 5 * np.exp(-((y - 0.4) ** 2) / 0.01) * (z > 0) + 6 * np.exp(-((x - 0.1) ** 2 + (y + 0.8) ** 2) / 0.03)
    return unit * [width, 95, 80] + unit * bump[:, None], np.asarray(ball.faces, np.int64)


def seven(vertices: np.ndarray) -> np.ndarray:
    """(7, 3): the vertices of a head that are nearest to `PLACES`; the same ones of heads of equal fineness."""
    ball = trimesh.creation.icosphere(subdivisions=4 if len(vertices) == 2562 else 5).vertices
    wanted = PLACES / np.linalg.norm(PLACES, axis=1, keepdims=True)
    return vertices[[int(np.argmax(ball @ place)) for place in wanted]]


def somewhere(seed: int, scale: float = 1.0) -> Similarity:
    """A similarity far from the identity."""
    generator = np.random.default_rng(seed)
    return Similarity(Rotation.random(rng=generator).as_matrix(), generator.normal(size=3) * 200, scale)
