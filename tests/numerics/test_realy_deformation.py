"""Non-rigid ICP against Amberg's normal equations written out densely, and fields whose answer is known."""

import numpy as np
import pytest
from scipy.spatial import Delaunay

from fitdiff.evaluation.realy.deformation import RIDGE, Deformation, Pull, deform

NO_LANDMARKS = np.empty(0, np.int64), np.empty((0, 3))


def patch(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A curved patch of n scattered vertices, about as wide as a nose is in the benchmark's unit."""
    xy = np.random.default_rng(seed).random((n, 2)) * 4 - 2
    return np.column_stack([xy, -0.2 * (xy**2).sum(1)]), Delaunay(xy).simplices.astype(np.int64)


def dense_step(vertices, faces, weights, targets, stiffness):
    """Amberg et al. 2007, Eq. 12, one row an equation: edges, then data, then the ridge; solved by least squares."""
    n = len(vertices)
    edges = sorted({tuple(sorted((int(f[i]), int(f[(i + 1) % 3])))) for f in faces for i in range(3)})
    rows, right = [], []
    for i, j in edges:
        for k in range(4):
            row = np.zeros(4 * n)
            row[4 * i + k], row[4 * j + k] = stiffness[k], -stiffness[k]
            rows.append(row)
            right.append(np.zeros(3))
    for i in range(n):
        row = np.zeros(4 * n)
        row[4 * i : 4 * i + 4] = np.sqrt(weights[i]) * np.append(vertices[i], 1)
        rows.append(row)
        right.append(np.sqrt(weights[i]) * targets[i])
    rows.append(np.sqrt(RIDGE) * np.eye(4 * n))
    right.append(np.sqrt(RIDGE) * np.tile(np.eye(4, 3), (n, 1)))
    return np.linalg.lstsq(np.vstack(rows), np.vstack(right), rcond=None)[0].reshape(n, 4, 3)


@pytest.mark.parametrize("stiffness", [(50.0,) * 4, (300.0, 300.0, 450.0, 300.0), (0.5,) * 4])
def test_a_step_solves_the_dense_least_squares_problem(stiffness) -> None:
    vertices, faces = patch()
    generator = np.random.default_rng(1)
    targets = vertices + 0.3 * generator.standard_normal(vertices.shape)
    weights = generator.choice([0.0, 1.0, 2500.0], len(vertices))

    fast = Deformation(len(vertices), faces).step(vertices, Pull(weights, targets), np.array(stiffness))

    slow = dense_step(vertices, faces, weights, targets, stiffness)
    np.testing.assert_allclose(fast, slow, atol=1e-6)


def test_parts_without_a_pull_stay_and_duplicate_edges_do_no_harm() -> None:
    vertices, faces = patch()
    up = np.array([0, 0, 0.5])
    both = np.concatenate([vertices, vertices + np.array([100.0, 0, 0])])
    triangles = np.concatenate([faces, faces + len(vertices), [[0, 0, 1], [3, 3, 3]]])  # two without area
    weights = np.repeat([1.0, 0.0], len(vertices))

    transforms = Deformation(len(both), triangles).step(both, Pull(weights, both + up), np.full(4, 50.0))

    np.testing.assert_allclose(transforms[len(vertices) :], np.tile(np.eye(4, 3), (len(vertices), 1, 1)), atol=1e-6)
    moved = np.einsum("nij,ni->nj", transforms[:60, :3], vertices) + transforms[:60, 3]
    np.testing.assert_allclose(moved, vertices + up, atol=1e-4)


def test_a_smooth_field_is_followed() -> None:
    vertices, faces = patch(400)
    targets = vertices + 0.15 * np.sin(vertices[:, [1, 2, 0]])

    # Each vertex's own target is the nearest: the field moves by less than half the distance between vertices.
    deformed = deform(vertices, faces, targets, *NO_LANDMARKS)

    before, after = (np.linalg.norm(points - targets, axis=1).mean() for points in (vertices, deformed))
    assert after < 0.25 * before


def test_landmarks_carry_a_region_further_than_its_neighbours_would() -> None:
    vertices, faces = patch(300)
    shift = np.array([1.0, 0.0, 0.0])  # four times the distance between vertices: the nearest target is a wrong one
    ids = np.array([0, 50, 100, 150, 200, 250])

    with_landmarks = deform(vertices, faces, vertices + shift, ids, vertices[ids] + shift)
    without = deform(vertices, faces, vertices + shift, *NO_LANDMARKS)

    assert np.abs(with_landmarks - vertices - shift).max() < 0.02
    assert np.abs(without - vertices - shift).max() > 0.2


def test_the_result_does_not_depend_on_the_order_of_the_vertices() -> None:
    vertices, faces = patch(200)
    targets = vertices + 0.2 * np.cos(vertices[:, [2, 0, 1]])
    order = np.random.default_rng(2).permutation(len(vertices))
    place = np.argsort(order)

    shuffled = deform(vertices[order], place[faces], targets[order], *NO_LANDMARKS)

    np.testing.assert_allclose(shuffled[place], deform(vertices, faces, targets, *NO_LANDMARKS), atol=1e-8)
