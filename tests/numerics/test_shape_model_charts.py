"""Charts and correspondence: against slow readable references, and on surfaces whose answer is known."""

import numpy as np
import pytest

from fitdiff.shape_model import charts
from fitdiff.shape_model.correspondence import Surface, nearest_points
from fitdiff.shape_model.unwrap import signed_areas


def ball(n=24):
    """A closed unit sphere, counter-clockwise from outside."""
    import trimesh

    mesh = trimesh.creation.uv_sphere(radius=1, count=[n, n])
    return np.asarray(mesh.vertices), np.asarray(mesh.faces)


def test_nearest_points_are_those_of_an_independent_search():
    import trimesh

    rng = np.random.default_rng(0)
    vertices, faces = ball(12)
    points = rng.normal(size=(40, 3)) * 0.8
    ids, weights = nearest_points(points, Surface.of(vertices, faces))
    found = (vertices[ids] * weights[..., None]).sum(1)
    assert np.allclose(weights.sum(1), 1)
    assert weights.min() >= 0
    for point, ours in zip(points, found, strict=True):
        theirs = trimesh.triangles.closest_point(vertices[faces], np.repeat(point[None], len(faces), 0))
        assert np.linalg.norm(point - ours) == pytest.approx(np.linalg.norm(theirs - point, axis=1).min(), abs=1e-9)


def test_normals_of_a_sphere_are_its_radii():
    vertices, faces = ball()
    assert ((Surface.of(vertices, faces).normals * vertices).sum(1) > 0.99).all()


def test_seams_double_vertices_and_nothing_else():
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    joined = np.array([[[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1], [0, 1]]], float)
    assert len(charts.split_seams(faces, joined)[0]) == 4
    cut = joined + np.array([0, 2.0])[:, None, None]
    source, split, uv = charts.split_seams(faces, cut)
    assert len(source) == 6
    assert np.array_equal(source[split], faces)
    assert np.array_equal(uv[split], cut)


@pytest.mark.parametrize("others", [1, 4, 9, 12])
def test_packed_charts_do_not_overlap(others):
    square = np.array([[[0, 0], [1, 0], [1, 1]]], float)
    chart = np.arange(others + 1)
    packed = charts.pack(np.repeat(square, others + 1, 0), chart, main=0)
    low, high = packed.min(1), packed.max(1)
    assert low.min() >= 0
    assert high.max() <= 1
    for i in range(others + 1):
        for j in range(i):
            apart = (low[i] >= high[j] - 1e-9) | (low[j] >= high[i] - 1e-9)
            assert apart.any(), (i, j)
    assert (high[0] - low[0]).min() >= 0.8


def test_one_chart_is_left_as_it_is():
    uv = np.random.default_rng(0).random((5, 3, 2))
    assert np.array_equal(charts.pack(uv, np.zeros(5), main=0), uv)


def test_udim_tiles_are_told_by_the_least_corner():
    corners = np.array([[[0, 0], [1, 0], [1, 1]], [[1, 2], [2, 2], [2, 3]]], float)
    uv, tile = charts.from_udim(corners)
    assert tile.tolist() == [0, 21]
    assert np.array_equal(uv[0], uv[1])
    assert np.array_equal(uv[0], [[0, 1], [1, 1], [1, 0]])


def test_parts_are_numbered_by_size():
    faces = np.array([[0, 1, 2], [3, 4, 5], [4, 5, 6]])
    assert charts.parts(8, faces).tolist()[:7] == [1, 1, 1, 0, 0, 0, 0]


def test_a_closed_head_with_eyes_is_unwrapped_without_folds():
    """A sphere with a nose that overhangs, and two small spheres beside it."""
    vertices, faces = ball(40)
    nose = np.exp(-((vertices - [0, 0.2, 0.98]) ** 2).sum(1) / 0.02)
    head = vertices * 80 + nose[:, None] * [0, -25, 30]
    all_vertices = np.concatenate([head, vertices * 12 + [30, 20, 60], vertices * 12 + [-30, 20, 60]])
    all_faces = np.concatenate([faces + k * len(vertices) for k in range(3)])
    uv, kept = charts.unwrap_any(all_vertices, all_faces, np.zeros(3))
    assert (signed_areas(uv, all_faces[kept]) < 0).all()
    assert uv.min() >= 0
    assert uv.max() <= 1
    behind = all_vertices[all_faces[~kept]].mean(1) - np.repeat([[0, 0, 0], [30, 20, 60], [-30, 20, 60]], np.bincount(np.flatnonzero(~kept) // len(faces), minlength=3), 0)  # fmt: skip # noqa: E501
    assert behind[:, 2].max() < 12, "only the back, and what is below, has no texture"
    front = vertices[:, 2] > 0.5
    left, right = uv[: len(head)][front & (vertices[:, 0] > 0.3)], uv[: len(head)][front & (vertices[:, 0] < -0.3)]
    assert left[:, 0].min() > right[:, 0].max(), "u grows towards the subject's left"


def test_an_open_mask_keeps_every_triangle():
    vertices, faces = ball(40)
    mask = faces[(vertices[faces][:, :, 2] > -0.2).all(1)]
    ids, local = np.unique(mask, return_inverse=True)
    uv, kept = charts.unwrap_any(vertices[ids], local.reshape(-1, 3), np.zeros(3))
    assert kept.all()
    assert (signed_areas(uv, local.reshape(-1, 3)) < 0).all()


def test_a_mask_with_holes_is_unwrapped():
    vertices, faces = ball(40)
    hole = np.linalg.norm(vertices - [0.3, 0.3, 0.9], axis=1) < 0.25
    mask = faces[(vertices[faces][:, :, 2] > 0).all(1) & ~hole[faces].any(1)]
    assert len(charts.boundary_loops(mask)) == 2
    ids, local = np.unique(mask, return_inverse=True)
    uv, _ = charts.unwrap_any(vertices[ids], local.reshape(-1, 3), np.zeros(3))
    assert (signed_areas(uv, local.reshape(-1, 3)) < 0).all()
