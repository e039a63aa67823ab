"""Mesh operators against closed forms, and the face's mesh against what a clean disc must be."""

import numpy as np
import pytest
from scipy import sparse
from scipy.spatial import Delaunay

from fitdiff.shape_model import surface, unwrap

CUBE = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
CUBE_QUADS = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])


def quad_mesh(quads, n, creases=()):
    return surface.QuadMesh(
        sparse.identity(n, format="csr"), quads, np.zeros(len(quads), int), np.array(creases, int).reshape(-1, 2)
    )


def plane(n=40):
    """Scattered points of a square and their triangles, counter-clockwise."""
    rng = np.random.default_rng(0)
    edge = np.linspace(0, 1, 12)
    frame = np.concatenate([np.stack(p, 1) for p in [(edge, 0 * edge), (edge, 0 * edge + 1), (0 * edge, edge)]])
    points = np.unique(np.concatenate([frame, np.stack([0 * edge + 1, edge], 1), rng.random((n * 8, 2))]), axis=0)
    triangles = Delaunay(points).simplices
    area = unwrap.signed_areas(points, triangles)
    triangles[area < 0] = triangles[area < 0][:, ::-1]
    return points, triangles[np.abs(area) > 1e-12]


def test_a_subdivided_cube_has_catmull_and_clarks_points():
    refined = surface.subdivide(quad_mesh(CUBE_QUADS, 8))
    points = refined.operator @ CUBE
    assert np.allclose(np.abs(points[:8]), 5 / 9)
    assert np.allclose(np.sort(np.abs(points[8:20])), [0, 0.75, 0.75])
    assert np.allclose(np.sort(np.abs(points[20:])), [0, 0, 1])
    assert refined.quads.shape == (24, 4)
    normals = np.cross(
        points[refined.quads[:, 1]] - points[refined.quads[:, 0]],
        points[refined.quads[:, 2]] - points[refined.quads[:, 0]],
    )
    assert ((normals * points[refined.quads].mean(1)).sum(1) > 0).all(), "orientation is kept"


def test_a_crease_follows_the_curve_rule_and_is_handed_down():
    top = [(1, 5), (5, 7), (7, 3), (3, 1)]
    refined = surface.subdivide(quad_mesh(CUBE_QUADS, 8, top))
    points = refined.operator @ CUBE
    # (6 P + A + B) / 8 at the corners of the square z = 1, plain midpoints on its sides.
    assert np.allclose(np.abs(points[[1, 3, 5, 7]]), [0.75, 0.75, 1])
    on_crease = np.unique(refined.creases)
    assert len(on_crease) == 8
    assert np.allclose(points[on_crease][:, 2], 1)


def test_a_grid_fill_of_a_planar_outline_is_the_regular_grid():
    columns, rows = 4, 3
    i = [*range(columns), *[columns] * rows, *range(columns, 0, -1), *[0] * rows]
    j = [*[0] * columns, *range(rows), *[rows] * columns, *range(rows, 0, -1)]
    outline = np.stack([i, j], 1).astype(float)
    quads, weights = surface.grid_fill(np.arange(14), columns)
    inner = weights @ outline
    assert quads.shape == (columns * rows, 4)
    assert sorted(map(tuple, inner.round(9))) == [(a, b) for a in (1, 2, 3) for b in (1, 2)]
    points = np.concatenate([outline, inner[::-1]])[quads]  # id -1 - i counts from the end
    assert np.allclose(unwrap.signed_areas(points.reshape(-1, 2), np.arange(4 * len(quads)).reshape(-1, 4)[:, :3]), 0.5)


def test_clipping_a_plane_by_a_circle_leaves_a_clean_disc():
    points, triangles = plane()
    level = 0.35 - np.linalg.norm(points - 0.5, axis=1)
    faces, operator = surface.clip(triangles, level)
    kept = operator @ points
    area = unwrap.signed_areas(kept, faces)
    assert np.allclose(operator.sum(1), 1)
    assert area.min() > 0
    assert area.sum() == pytest.approx(np.pi * 0.35**2, rel=0.02)
    rim = kept[surface.boundary_loop(faces)]
    assert np.abs(np.linalg.norm(rim - 0.5, axis=1) - 0.35).max() < 0.006
    assert np.linalg.norm(rim - np.roll(rim, 1, 0), axis=1).min() > 0.003, "no slivers"


def test_clipping_leaves_the_positive_side_alone():
    points, triangles = plane()
    faces, operator = surface.clip(triangles, np.ones(len(points)))
    assert len(faces) == len(triangles)
    assert np.allclose(np.sort(operator @ points, 0), np.sort(points, 0))


def test_a_symmetric_grid_is_split_and_clipped_alike_on_both_sides():
    x, y = np.meshgrid(np.arange(-4.0, 5), np.arange(6.0))
    vertices = np.stack([x.ravel(), y.ravel() + 0.1 * np.abs(x.ravel()), 0 * x.ravel()], 1)
    corner = (np.arange(5)[:, None] * 9 + np.arange(8)).ravel()
    quads = np.stack([corner, corner + 1, corner + 10, corner + 9], 1)
    partner = surface.mirror_partners(vertices)
    triangles = surface.triangulate(quads, vertices, partner)
    faces, operator = surface.clip(triangles, 4.3 - np.hypot(vertices[:, 0] / 1.3, vertices[:, 1] - 1))
    kept = operator @ vertices
    assert unwrap.signed_areas(kept, faces).min() > 0
    mirrored = surface.mirror_partners(kept)[faces]
    assert set(map(tuple, np.sort(mirrored, 1))) == set(map(tuple, np.sort(faces, 1)))


def test_a_crooked_mesh_has_no_mirror_partners():
    with pytest.raises(ValueError, match="1 of 3 vertices have no mirror image of their own"):
        surface.mirror_partners(np.array([[1.0, 0, 0], [-1.0, 0, 0], [0.5, 2, 0]]))


def test_a_boundary_that_is_not_one_loop_is_refused():
    with pytest.raises(ValueError, match="one boundary loop"):
        surface.boundary_loop(np.array([[0, 1, 2], [3, 4, 5]]))


def test_components_stop_at_cuts():
    strip = np.array([[0, 1, 2, 3], [3, 2, 4, 5]])
    assert len(set(surface.components(strip, np.empty((0, 2), int)))) == 1
    assert len(set(surface.components(strip, np.array([[2, 3]])))) == 2


def test_mean_value_weights_reproduce_linear_functions_of_a_plane():
    points, triangles = plane()
    weights = unwrap.mean_value_weights(np.pad(points, ((0, 0), (0, 1))), triangles)
    inner = np.setdiff1d(np.unique(triangles), surface.boundary_loop(triangles))
    assert np.allclose((weights @ points)[inner], points[inner])
    assert weights.data.min() > 0


def test_unwrap_unfolds_a_mushroom():
    """A sphere's cap with a bulb whose underside the centre cannot see: longitude and latitude alone fold there."""
    points, triangles = plane()
    x, y = (points - 0.5).T * 2
    radius = np.hypot(x, y)
    bulb = 0.5 * np.exp(-((radius / 0.3) ** 4))
    swell = 1 + 1.2 * np.exp(-(((radius - 0.25) / 0.08) ** 2))
    vertices = np.stack([x * swell, y * swell, 1 - 0.4 * radius**2 + bulb], 1)
    flat = np.stack([np.arctan2(vertices[:, 0], vertices[:, 2]), vertices[:, 1]], 1)
    assert (unwrap.signed_areas(flat, triangles) < 0).any()
    uv = unwrap.unwrap(vertices, triangles, np.array([0.0, 0.0, -1.0]))
    assert (unwrap.signed_areas(uv, triangles) < 0).all(), "v runs down, so counter-clockwise triangles turn clockwise"
    assert uv.min() >= 0
    assert uv.max() <= 1
