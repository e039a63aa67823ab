"""Closest points against trimesh's own triangle by triangle, and against closed forms."""

import numpy as np
import pytest
import trimesh

from fitdiff.evaluation.surface import Surface


def brute_force(vertices: np.ndarray, faces: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest points and distances over all triangles, each by trimesh."""
    candidates = np.stack(
        [trimesh.triangles.closest_point(np.repeat(vertices[face][None], len(points), 0), points) for face in faces]
    )
    distance = np.linalg.norm(candidates - points, axis=2)
    best = distance.argmin(0)
    return candidates[best, np.arange(len(points))], distance.min(0)


@pytest.mark.parametrize("seed", range(3))
def test_equals_trimesh(seed: int) -> None:
    generator = np.random.default_rng(seed)
    vertices, faces = generator.standard_normal((40, 3)), generator.integers(0, 40, (60, 3))
    faces = faces[(faces != np.roll(faces, 1, 1)).all(1)]
    points = 2 * generator.standard_normal((200, 3))

    closest = Surface(vertices, faces).closest(points)

    nearest, distance = brute_force(vertices, faces, points)
    np.testing.assert_allclose(closest.distance, distance, atol=1e-6)
    np.testing.assert_allclose(closest.points, nearest, atol=1e-6)


def test_the_point_lies_on_the_triangle_that_is_named() -> None:
    mesh = trimesh.creation.icosphere(3)
    closest = Surface(mesh.vertices, mesh.faces).closest(np.random.default_rng(0).standard_normal((100, 3)))

    weights = trimesh.triangles.points_to_barycentric(mesh.triangles[closest.triangle], closest.points)

    assert weights.min() > -1e-9


def test_distance_to_a_plane_is_exact() -> None:
    vertices = np.array([[0, 0, 0], [10, 0, 0], [0, 10, 0], [10, 10, 0]], float)
    points = np.array([[2, 3, 4], [-3, 0, 4], [5, 5, -1.5]])

    closest = Surface(vertices, np.array([[0, 1, 2], [2, 1, 3]])).closest(points)

    np.testing.assert_allclose(closest.distance, [4, 5, 1.5])
    np.testing.assert_allclose(closest.points, [[2, 3, 0], [0, 0, 0], [5, 5, 0]])


def test_triangles_without_area_are_segments_and_points() -> None:
    vertices = np.array([[0, 0, 0], [4, 0, 0], [2, 0, 0], [9, 9, 9], [np.nan, 0, 0]])
    points = np.array([[2, 1, 0], [9, 9, 10], [-1, 0, 0.0]])

    closest = Surface(vertices, np.array([[0, 1, 2], [3, 3, 3]])).closest(points)

    np.testing.assert_allclose(closest.points, [[2, 0, 0], [9, 9, 9], [0, 0, 0]])
    np.testing.assert_allclose(closest.distance, [1, 1, 1])
    assert closest.triangle.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("vertices", "faces", "message"),
    [
        (np.zeros((3, 2)), [[0, 1, 2]], r"\(3, 2\), expected \(V, 3\)"),
        (np.zeros((3, 3)), np.zeros((0, 3), int), r"F > 0"),
        (np.zeros((3, 3)), [[0, 1, 3]], "0 to 3, there are 0 to 2"),
        (np.full((3, 3), np.nan), [[0, 1, 2]], "not finite"),
    ],
)
def test_what_is_no_surface_is_refused(vertices, faces, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Surface(vertices, np.array(faces))


def test_points_that_are_none_are_refused_and_no_points_are_no_points() -> None:
    surface = Surface(np.eye(3), np.array([[0, 1, 2]]))
    with pytest.raises(ValueError, match="finite"):
        surface.closest(np.array([[np.nan, 0, 0]]))
    assert surface.closest(np.empty((0, 3))).distance.shape == (0,)
