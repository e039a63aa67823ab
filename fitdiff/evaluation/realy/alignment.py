"""Rigid alignment of a prediction to a scan: by keypoints with a scale, then region by region without (REALY)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fitdiff.evaluation.surface import Surface

MOST_ITERATIONS = 100
LEAST_CHANGE = 1e-6
"""Of the mean squared distance between two iterations, in scan units squared."""


@dataclass(frozen=True)
class Similarity:
    """x -> scale * rotation x + translation.

    Attributes:
        rotation: (3, 3), a proper rotation. translation: (3,). scale: > 0.
    """

    rotation: np.ndarray
    translation: np.ndarray
    scale: float = 1.0

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Move (N, 3) points."""
        return self.scale * points @ self.rotation.T + self.translation

    def inverse(self, points: np.ndarray) -> np.ndarray:
        """Move (N, 3) points back."""
        return (points - self.translation) @ self.rotation / self.scale


def fit_similarity(
    source: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None, *, scaled: bool = False
) -> Similarity:
    """The rotation and translation that bring source points nearest to target points, in least squares (Kabsch).

    With `scaled` the scale is a ratio of sums of absolute coordinates about the mean, sum |t| / sum |R s|: this is
    what REALY takes, not the least-squares scale of Umeyama.

    Args:
        source, target: (N, 3), N >= 3, not on one line. weights: (N,) >= 0; None is 1 each.

    Raises:
        ValueError: points of other shapes or that are not finite, or the source's are one point.
    """
    if source.shape != target.shape or source.ndim != 2 or not np.isfinite([source, target]).all():
        raise ValueError(f"cannot align points {source.shape} to {target.shape}: expected twice (N, 3) finite numbers")
    weights = np.ones(len(source)) if weights is None else weights
    means = [np.average(points, 0, weights) for points in (source, target)]
    s, t = source - means[0], target - means[1]
    u, _, vt = np.linalg.svd((t * weights[:, None]).T @ s)
    u[:, -1] *= np.sign(np.linalg.det(u @ vt))  # the nearest rotation, where the nearest orthogonal matrix mirrors
    rotation = u @ vt
    if not np.abs(s).max() > 0:
        raise ValueError("cannot align points that all lie in one place: the mesh has collapsed")
    scale = float(np.abs(t).sum() / np.abs(s @ rotation.T).sum()) if scaled else 1.0
    return Similarity(rotation, means[1] - scale * rotation @ means[0], scale)


def regional_icp(
    surface: Surface,
    keypoints: np.ndarray,
    scan: np.ndarray,
    scan_keypoints: np.ndarray,
    keypoint_weight: float,
) -> Similarity:
    """Rigid motion of a prediction onto one region of a scan: pairs are scan vertices and their nearest surface points.

    The prediction stays where it is and the scan is moved back, so that its tree is built once.

    Args:
        surface: the prediction. keypoints: (K, 3) on it. scan: (N, 3) vertices of the region.
        scan_keypoints: (K, 3). keypoint_weight: what each pair of keypoints counts, a scan vertex counts 1.

    Returns:
        The motion; it is found when the mean squared distance changes by less than 1e-6 (scan units squared), or
        after 100 iterations.
    """
    target = np.concatenate([scan, scan_keypoints])
    weights = np.concatenate([np.ones(len(scan)), np.full(len(keypoints), keypoint_weight)])
    motion, previous = Similarity(np.eye(3), np.zeros(3)), 0.0
    for _ in range(MOST_ITERATIONS):
        nearest = surface.closest(motion.inverse(scan)).points
        source = np.concatenate([nearest, keypoints])
        motion = fit_similarity(source, target, weights)
        error = float(np.average(((motion(source) - target) ** 2).sum(1), weights=weights))
        if abs(error - previous) < LEAST_CHANGE:
            break
        previous = error
    return motion
