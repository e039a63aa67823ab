"""A prediction on a scan: closed forms, an independent minimiser, and what must not matter."""

import numpy as np
import pytest
import trimesh
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from fitdiff.evaluation.mesh_files import Mesh
from fitdiff.evaluation.now.alignment import (
    Similarity,
    align,
    crop,
    crop_region,
    jacobian,
    moved,
    procrustes,
    residuals,
)
from fitdiff.evaluation.now.scores import Scan, Settings, score
from fitdiff.evaluation.surface import Surface
from tests.numerics.now_heads import head, seven, somewhere

VERTICES, FACES = head()
POINTS = seven(VERTICES)
STILL = Similarity(np.eye(3), np.zeros(3))


def scan_of(vertices: np.ndarray, landmarks: np.ndarray = POINTS) -> Scan:
    return Scan(crop(vertices, landmarks), landmarks)


def scan_on_surface(n: int = 3000, seed: int = 0) -> Scan:
    mesh = trimesh.Trimesh(VERTICES, FACES, process=False)
    return scan_of(np.asarray(trimesh.sample.sample_surface(mesh, n, seed=seed)[0]))


def test_crop_is_the_ball_of_the_description():
    eyes = [[-45, 40, 0], [-15, 40, 0], [15, 40, 0], [45, 40, 0]]
    landmarks = np.array([*eyes, [0, 0, 30], [-25, -30, 0], [25, -30, 0]], float)
    centre, radius = crop_region(landmarks)  # the bridge is at (0, 40, 0), the nose 50 mm long
    np.testing.assert_allclose(centre, [0, 12, 21])
    assert radius == pytest.approx(1.4 * (90 + 50) / 2)
    edge = centre + np.diag([radius - 1e-9, radius + 1e-9, -radius + 1e-9])
    np.testing.assert_array_equal(crop(edge, landmarks), edge[[0, 2]])


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_procrustes_finds_a_known_similarity(scale):
    truth = somewhere(1, scale)
    for known in (None, scale):
        found = procrustes(POINTS, truth(POINTS), known)
        np.testing.assert_allclose(found(VERTICES), truth(VERTICES), atol=1e-9 * max(scale, 1) * 100)


def test_procrustes_is_least_squares():
    target = somewhere(2, 1.3)(POINTS) + np.random.default_rng(0).normal(size=POINTS.shape) * 5
    ours = ((procrustes(POINTS, target)(POINTS) - target) ** 2).sum()

    def offsets(x):
        return (np.exp(x[6]) * Rotation.from_rotvec(x[:3]).apply(POINTS) + x[3:6] - target).ravel()

    start = somewhere(2)
    x = np.r_[Rotation.from_matrix(start.rotation).as_rotvec(), start.translation, 0]
    assert ours == pytest.approx(2 * least_squares(offsets, x, xtol=1e-15, ftol=1e-15, gtol=1e-15).cost, rel=1e-9)


@pytest.mark.parametrize("scaled", [True, False])
def test_jacobian_equals_finite_differences(scaled):
    scan = Scan(scan_on_surface(400).points + np.random.default_rng(1).normal(size=3), POINTS)
    surface, place = Surface(VERTICES, FACES), somewhere(3, 0.1)
    points, centre = place(scan.points), place(scan.points.mean(0))
    found = residuals(surface, points, place)
    rows = jacobian(found, centre, scaled)
    for k, step in enumerate(np.eye(6 + scaled)):
        h = 1e-6
        plus, minus = (residuals(surface, points, moved(place, s * h * step, centre)).distance for s in (1, -1))
        # Where the nearest point changes triangle the slope is a mean of two, and near zero it changes sign.
        smooth = found.distance > 1e-3
        difference = (plus - minus) / (2 * h)
        assert np.quantile(np.abs(rows[smooth, k] - difference[smooth]), 0.97) < 1e-4
        gradient, slope = 2 * found.distance @ rows[:, k], ((plus**2 - minus**2) / (2 * h)).sum()
        assert gradient == pytest.approx(slope, rel=1e-5, abs=1e-5 * found.distance.sum())


def slow_distances(points: np.ndarray, triangles_F33: np.ndarray) -> np.ndarray:
    """From every point to every triangle, then the least."""
    pairs = np.repeat(triangles_F33, len(points), 0), np.tile(points, (len(triangles_F33), 1))
    nearest = trimesh.triangles.closest_point(*pairs)
    return np.linalg.norm(nearest - pairs[1], axis=1).reshape(len(triangles_F33), -1).min(0)


@pytest.mark.parametrize("scaled", [True, False])
def test_refinement_equals_an_independent_minimiser(scaled):
    vertices, faces = head(2, nose=24.0, width=66.0)
    points = scan_on_surface().points[::16]

    def distances(x):
        scale = np.exp(x[6]) if scaled else 1.0
        back = Rotation.from_rotvec(-x[:3]).apply(points - x[3:6]) / scale
        return scale * slow_distances(back, vertices[faces])

    found = align(Surface(vertices, faces), points, STILL, scaled=scaled)
    place = found.similarity
    turn = Rotation.from_matrix(place.rotation).as_rotvec()
    here = np.r_[turn, place.translation, [np.log(place.scale)] if scaled else []]
    np.testing.assert_allclose(found.distance, distances(here), atol=1e-9)
    assert found.converged
    assert found.distance.mean() > 0.5  # the heads do differ
    energy = (found.distance**2).sum()
    assert energy <= 2 * least_squares(distances, np.zeros(len(here)), x_scale="jac").cost * (1 + 1e-6)
    assert energy == pytest.approx(2 * least_squares(distances, here, x_scale="jac").cost, rel=1e-5)


def test_metrical_spheres_read_the_difference_of_their_radii():
    ball = trimesh.creation.icosphere(subdivisions=5)
    surface = Surface(np.asarray(ball.vertices) * 80, np.asarray(ball.faces))
    directions = np.random.default_rng(0).normal(size=(2500, 3))
    directions = np.concatenate([directions, -directions])  # balanced: no shift brings them nearer on average
    points = 81.5 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    start = Similarity(np.eye(3), np.array([3.0, -2.0, 1.0]))
    fixed, free = (align(surface, points, start, scaled=scaled) for scaled in (False, True))
    np.testing.assert_allclose(fixed.distance, 1.5, rtol=0.02)
    assert fixed.similarity.scale == 1
    assert free.distance.mean() < 0.02  # what the facets leave of a sphere
    assert free.similarity.scale == pytest.approx(81.5 / 80, rel=5e-4)


@pytest.mark.parametrize("offset", [0.5, 1.0, 2.0])
def test_an_offset_of_d_mm_reads_d(offset):
    """Outwards and inwards by turns, so that neither scale nor translation explains it."""
    fine, faces = head(5)
    middles = fine[faces].mean(1)
    facing = np.cross(fine[faces[:, 1]] - fine[faces[:, 0]], fine[faces[:, 2]] - fine[faces[:, 0]])
    facing /= np.linalg.norm(facing, axis=1, keepdims=True)
    sign = np.random.default_rng(0).choice([-1.0, 1.0], (len(faces), 1))
    landmarks = seven(fine)
    for metrical in (False, True):
        scan = scan_of(middles + offset * sign * facing, landmarks)
        found = score(Mesh(fine, faces), landmarks, scan, Settings(metrical))
        assert np.median(found.distance) == pytest.approx(offset, rel=0.02)
        assert found.distance.mean() == pytest.approx(offset, rel=0.02)


def test_pose_and_scale_of_a_prediction_do_not_matter():
    other, _ = head(nose=24.0, width=66.0)
    scan = scan_on_surface()
    expected = score(Mesh(other, FACES), seven(other), scan, Settings())
    for seed, scale in ((4, 1.0), (5, 0.001), (6, 50.0)):
        place = somewhere(seed, scale)
        found = score(Mesh(place(other), FACES), place(seven(other)), scan, Settings())
        np.testing.assert_allclose(found.distance, expected.distance, atol=2e-3)
        assert found.distance.mean() == pytest.approx(expected.distance.mean(), rel=1e-5)
        assert found.similarity.scale * scale == pytest.approx(expected.similarity.scale, rel=1e-4)


def test_pose_of_a_scan_does_not_matter():
    other, _ = head(nose=24.0, width=66.0)
    scan, place = scan_on_surface(), somewhere(7)
    turned = Scan(crop(place(scan.points), place(POINTS)), place(POINTS))
    for settings in (Settings(), Settings(metrical=True)):
        expected, found = (score(Mesh(other, FACES), seven(other), s, settings).distance for s in (scan, turned))
        np.testing.assert_allclose(found, expected, atol=2e-3)


def test_metrical_error_is_that_of_the_scale():
    """By what the radii of spheres differ; it is no error where the scale is fitted, or the unit says so."""
    ball = trimesh.creation.icosphere(subdivisions=4)
    sphere, faces = np.asarray(ball.vertices) * 80, np.asarray(ball.faces)
    landmarks = seven(sphere)
    scan = Scan(sphere, landmarks)  # not cropped: part of a sphere could slide into a larger one
    for scale in (0.9, 1.1):
        found = score(Mesh(scale * sphere, faces), scale * landmarks, scan, Settings(metrical=True))
        assert found.distance.mean() == pytest.approx(80 * abs(scale - 1), rel=0.02)
        assert score(Mesh(scale * sphere, faces), scale * landmarks, scan, Settings()).distance.max() < 1e-6
    metres = score(Mesh(sphere / 1000, faces), landmarks / 1000, scan, Settings(metrical=True, unit=1000))
    assert metres.distance.max() < 1e-6


def test_noise_reads_as_the_mean_of_a_half_normal():
    scan, sigma = scan_on_surface(40_000), 0.4
    noisy = Scan(scan.points + sigma * np.random.default_rng(2).normal(size=scan.points.shape), POINTS)
    found = score(Mesh(VERTICES, FACES), POINTS, noisy, Settings())
    assert found.distance.mean() == pytest.approx(sigma * np.sqrt(2 / np.pi), rel=0.02)
    assert np.median(found.distance) == pytest.approx(0.6745 * sigma, rel=0.03)


def test_meshing_degenerate_triangles_and_loose_vertices_do_not_matter():
    other, _ = head(nose=24.0, width=66.0)
    scan = scan_on_surface()
    expected = score(Mesh(other, FACES), seven(other), scan, Settings()).distance
    finer = trimesh.remesh.subdivide(other, FACES)
    loose = np.concatenate([other, [[0, 0, 500], [1e6, 0, 0]]])
    flat = np.concatenate([FACES, [[0, 0, 0], [1, 1, 2], [FACES[0, 0], FACES[0, 1], FACES[0, 0]]]])
    for vertices, faces in (finer, (loose, flat)):
        found = score(Mesh(vertices, faces), seven(other), scan, Settings()).distance
        np.testing.assert_allclose(found, expected, atol=2e-3)


def test_the_same_surface_reads_nothing_even_from_a_poor_start():
    scan = scan_on_surface()
    wrong = POINTS + np.random.default_rng(3).normal(size=POINTS.shape) * 3
    place = somewhere(8, 0.1)
    found = score(Mesh(place(VERTICES), FACES), place(wrong), scan, Settings())
    assert found.distance.max() < 1e-4


def test_predictions_that_are_none():
    scan = scan_on_surface(200)
    with pytest.raises(ValueError, match="no triangles"):
        score(Mesh(VERTICES, np.zeros((0, 3), np.int64)), POINTS, scan, Settings())
    with pytest.raises(ValueError, match="collapsed"):
        score(Mesh(VERTICES * 0, FACES), POINTS * 0, scan, Settings())
