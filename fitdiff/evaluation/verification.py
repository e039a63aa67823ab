"""Verification by a score: true accepts at given false accepts.

Legend of shape suffixes: N photos · D numbers of an embedding · G pairs of one person · I pairs of two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def cosines(first_ND: ArrayLike, second_ND: ArrayLike) -> NDArray[np.float64]:
    """(N,) cosine similarity of rows."""
    first, second = unit(first_ND), unit(second_ND)
    return (first * second).sum(-1)


def unit(vectors: ArrayLike) -> NDArray[np.float64]:
    """Rows of length 1; a row of zeros stays."""
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def same_and_different(embedding_ND: ArrayLike, people: Sequence[object]) -> tuple[NDArray, NDArray]:
    """(G,) and (I,) cosines of all pairs of photos of one person, and of two.

    Args:
        people: N names, of whom each photo is.
    """
    rows = unit(embedding_ND)
    first, second = np.triu_indices(len(rows), 1)
    score = (rows @ rows.T)[first, second]
    number = np.unique(np.asarray(people, str), return_inverse=True)[1].ravel()
    same = number[first] == number[second]
    return score[same], score[~same]


def threshold_at(impostors_I: ArrayLike, far: float) -> float | None:
    """Score that at most a share `far` of impostor pairs exceeds, and a larger share does as soon as it is lowered.

    Returns:
        None where there are fewer than 1 / far impostor pairs: no share of them is that small, but none.
    """
    scores = np.sort(np.asarray(impostors_I, np.float64))[::-1]
    allowed = int(np.floor(far * len(scores) + 1e-9))
    return float(scores[allowed]) if 0 < allowed < len(scores) else None


def tar_at(genuine_G: ArrayLike, impostors_I: ArrayLike, far: float) -> float | None:
    """Share of genuine pairs above `threshold_at`; None where that is, or where there is no genuine pair."""
    threshold, genuine = threshold_at(impostors_I, far), np.asarray(genuine_G, np.float64)
    return None if threshold is None or not genuine.size else float((genuine > threshold).mean())
