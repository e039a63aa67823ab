"""A prediction onto a scan (NoW): crop of the scan, Procrustes on seven points, refinement by scan-to-mesh distance.

Written from the published description of the benchmark (Sanyal et al. 2019, RingNet, and the benchmark's site). Where
that says no more than that the scan-to-mesh distance is minimised, this takes the mean squared distance of the cropped
scan's vertices, and goes all the way to its minimum.

Legend of shape suffixes: N vertices of the cropped scan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from fitdiff.evaluation.realy.alignment import Similarity, fit_similarity
from fitdiff.evaluation.surface import Surface

Array = NDArray[np.float64]

IBUG = (36, 39, 42, 45, 33, 48, 54)
"""The seven points among the 68 of iBUG: the subject's right eye's outer and inner corner, the left eye's inner and
outer one, the nose's bottom, the right and the left corner of the mouth."""

RIGHT_OUTER, RIGHT_INNER, LEFT_INNER, LEFT_OUTER, NOSE_BOTTOM = range(5)

COARSE = 4000
"""Vertices of the scan that find the alignment roughly, before all of them find it exactly."""

MOST_STEPS = 100
LEAST_DECREASE = 1e-7
"""Of the mean squared distance by an accepted step, as a share of it, at which the minimum counts as found."""

TOUCHING = 1e-9
"""Distance, as a share of the crop's radius, below which a point lies on the surface."""


def crop_region(landmarks: Array) -> tuple[Array, float]:
    """Centre (3,) and radius of the ball of the scan that counts, in the landmarks' unit.

    centre = nose bottom + 0.3 (nose bridge - nose bottom), radius = 1.4 (outer-eye distance + nose length) / 2

    The nose bridge, which is none of the seven points, is the middle between the inner corners of the eyes, and the
    nose's length the distance from there to its bottom.

    Args:
        landmarks: (7, 3) of the scan, in the order of `IBUG`.
    """
    bottom = landmarks[NOSE_BOTTOM]
    nose = (landmarks[RIGHT_INNER] + landmarks[LEFT_INNER]) / 2 - bottom
    eyes = np.linalg.norm(landmarks[LEFT_OUTER] - landmarks[RIGHT_OUTER])
    return bottom + 0.3 * nose, float(1.4 * (eyes + np.linalg.norm(nose)) / 2)


def crop(vertices: Array, landmarks: Array) -> Array:
    """The vertices (N, 3) of a scan that lie in `crop_region`, in their order."""
    centre, radius = crop_region(landmarks)
    return vertices[np.linalg.norm(vertices - centre, axis=1) <= radius]


def procrustes(source: Array, target: Array, scale: float | None = None) -> Similarity:
    """The similarity that brings points nearest to others in least squares (Umeyama 1991).

    Args:
        source, target: (K, 3), K >= 3, not on one line. scale: of the similarity, where it is known.

    Raises:
        ValueError: other shapes, points that are not finite, or all in one place.
    """
    rotation = fit_similarity(source, target).rotation  # the best rotation is the same for every scale
    turned, about = (source - source.mean(0)) @ rotation.T, target - target.mean(0)
    if scale is None:
        scale = float((turned * about).sum() / (turned**2).sum())
    return Similarity(rotation, target.mean(0) - scale * rotation @ source.mean(0), scale)


@dataclass(frozen=True)
class Aligned:
    """A prediction that lies on the scan.

    Attributes:
        similarity: from the prediction's space to the scan's. distance: (N,) unsigned, of each vertex of the scan from
            the surface, in the scan's unit. steps: tried. converged: whether the minimum was found within `MOST_STEPS`.
    """

    similarity: Similarity
    distance: Array
    steps: int
    converged: bool


def align(surface: Surface, points: Array, start: Similarity, *, scaled: bool = True) -> Aligned:
    """Refine a similarity so that the mean squared distance of points from the surface is smallest.

    Levenberg-Marquardt on the distances: first on `COARSE` of the points, then on all of them. The surface stays where
    it is and the points are moved back, so that its tree is built once.

    Args:
        surface: the prediction. points: (N, 3) of the scan, N > 0. start: from the surface's space to the scan's.
        scaled: whether the scale is refined as well; else it stays that of `start`.
    """
    stride = -(-len(points) // COARSE)
    rough = _descend(surface, points[::stride], start, scaled) if stride > 1 else None
    fine = _descend(surface, points, rough.similarity if rough else start, scaled)
    return Aligned(fine.similarity, fine.distance, fine.steps + (rough.steps if rough else 0), fine.converged)


@dataclass(frozen=True)
class Residuals:
    """Points of a scan against a prediction in some place.

    Attributes:
        distance: (N,). direction: (N, 3) unit vectors from the surface to the points; the surface's normal where they
            touch, which only the Jacobian needs. nearest: (N, 3) points of the surface, in the scan's space.
    """

    distance: Array
    direction: Array
    nearest: Array

    @property
    def energy(self) -> float:
        """Mean squared distance."""
        return float((self.distance**2).mean())


def residuals(surface: Surface, points: Array, similarity: Similarity, touching: float = 0.0) -> Residuals:
    """Distances of points from a surface that a similarity moves; up to `touching` they count as on it."""
    closest = surface.closest(similarity.inverse(points))
    nearest = similarity(closest.points)
    offset, distance = points - nearest, closest.distance * similarity.scale
    direction = offset / np.maximum(np.linalg.norm(offset, axis=1, keepdims=True), np.finfo(float).tiny)
    touch = distance <= touching
    direction[touch] = _normals(surface, closest.triangle[touch]) @ similarity.rotation.T
    return Residuals(distance, direction, nearest)


def _normals(surface: Surface, triangles: NDArray[np.int64]) -> Array:
    """(K, 3) unit normals of triangles; zero of one without area."""
    a, b, c = np.moveaxis(surface.vertices[surface.faces[triangles]], 1, 0)
    normals = np.cross(b - a, c - a)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.finfo(float).tiny)


def jacobian(found: Residuals, centre: Array, scaled: bool) -> Array:
    """(N, 7) derivatives of the distances by a small turn about `centre`, shift and log-scale; (N, 6) without the last.

    A point y of the surface moves by omega x (y - c) + tau + sigma (y - c), and the distance shrinks by what of that
    points towards the scan: where on the surface the nearest point is does not matter to first order.
    """
    arm, towards = found.nearest - centre, found.direction
    columns = [np.cross(arm, towards), towards, (arm * towards).sum(1, keepdims=True)]
    return -np.concatenate(columns[: 2 + scaled], 1)


def moved(similarity: Similarity, step: Array, centre: Array) -> Similarity:
    """The similarity, then a turn by the vector step[:3] about `centre`, shift step[3:6], log-scale step[6] if any."""
    turn = Rotation.from_rotvec(step[:3]).as_matrix()
    growth = float(np.exp(step[6])) if len(step) > 6 else 1.0
    translation = centre + growth * turn @ (similarity.translation - centre) + step[3:6]
    return Similarity(turn @ similarity.rotation, translation, growth * similarity.scale)


def _descend(surface: Surface, points: Array, similarity: Similarity, scaled: bool) -> Aligned:
    """Levenberg-Marquardt from `similarity` (Marquardt's scaling: damping in proportion to the diagonal)."""
    centre = points.mean(0)
    radius = float(np.linalg.norm(points - centre, axis=1).max())
    touching = TOUCHING * radius
    found, damping = residuals(surface, points, similarity, touching), 1e-4
    for step_number in range(MOST_STEPS):
        if found.energy <= touching**2:
            return Aligned(similarity, found.distance, step_number, True)
        rows = jacobian(found, centre, scaled)
        hessian, gradient = rows.T @ rows, rows.T @ found.distance
        diagonal = np.maximum(hessian.diagonal(), 1e-12 * hessian.diagonal().max() + np.finfo(float).tiny)
        step = -np.linalg.solve(hessian + damping * np.diag(diagonal), gradient)
        candidate = moved(similarity, step, centre)
        tried = residuals(surface, points, candidate, touching)
        least, decrease = LEAST_DECREASE * found.energy, found.energy - tried.energy
        # Nothing is left to gain: neither in the model of the distances, nor, where the step was a good one, in truth.
        settled = -(gradient @ step) / len(points) <= least or 0 < decrease <= least
        if decrease > 0:
            similarity, found = candidate, tried
        if settled:
            return Aligned(similarity, found.distance, step_number + 1, True)
        damping *= 0.1 if decrease > 0 else 10
    return Aligned(similarity, found.distance, MOST_STEPS, False)
