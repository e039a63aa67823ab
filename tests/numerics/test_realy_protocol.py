"""REALY's alignment and errors on faces whose error is known."""

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from fitdiff.evaluation.mesh_files import Mesh
from fitdiff.evaluation.realy.alignment import fit_similarity, regional_icp
from fitdiff.evaluation.realy.regions import Scan, bidirectional_error, merged, region_errors
from fitdiff.evaluation.surface import Surface
from tests.numerics.realy_heads import grid, keypoints_of, regions_of, scan_of

NONE = np.empty((0, 3))
TURN = Rotation.from_rotvec([0.3, -0.5, 0.2]).as_matrix()


@pytest.mark.parametrize("scaled", [True, False])
def test_a_known_similarity_is_recovered(scaled: bool) -> None:
    source = np.random.default_rng(0).standard_normal((7, 3))
    scale, shift = (2.5 if scaled else 1.0), np.array([3.0, -1.0, 10.0])

    found = fit_similarity(source, scale * source @ TURN.T + shift, scaled=scaled)

    np.testing.assert_allclose(found.rotation, TURN, atol=1e-12)
    np.testing.assert_allclose(found.translation, shift, atol=1e-12)
    assert found.scale == pytest.approx(scale)
    np.testing.assert_allclose(found.inverse(found(source)), source, atol=1e-12)


def test_the_scale_is_the_ratio_of_absolute_coordinates() -> None:
    source = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    target = np.array([[2.0, 0, 0], [-2, 0, 0], [0, 1, 0], [0, -1, 0]])  # no rotation; |t| is 6, |s| is 4

    assert fit_similarity(source, target, scaled=True).scale == pytest.approx(1.5)


def test_a_mirrored_face_is_not_mirrored_back() -> None:
    source = np.random.default_rng(1).standard_normal((20, 3))

    assert np.linalg.det(fit_similarity(source, source * [-1, 1, 1]).rotation) == pytest.approx(1)


def slow_icp(
    mesh: Mesh, keypoints: np.ndarray, scan: np.ndarray, scan_keypoints: np.ndarray, repeats: int
) -> np.ndarray:
    """The protocol as it is told: the prediction moves, keypoints are repeated; returns its vertices."""
    vertices, previous = mesh.vertices, 0.0
    keypoints, target = np.tile(keypoints, (repeats, 1)), np.vstack([scan, np.tile(scan_keypoints, (repeats, 1))])
    for _ in range(100):
        source = np.vstack([Surface(vertices, mesh.faces).closest(scan).points, keypoints])
        rotation, _ = Rotation.align_vectors(target - target.mean(0), source - source.mean(0))
        shift = target.mean(0) - rotation.apply(source.mean(0))
        error = ((rotation.apply(source) + shift - target) ** 2).sum(1).mean()
        vertices, keypoints = rotation.apply(vertices) + shift, rotation.apply(keypoints) + shift
        if abs(error - previous) < 1e-6:
            break
        previous = error
    return vertices


def test_regional_icp_equals_the_slow_one() -> None:
    mesh = grid(25)
    nose = merged(regions_of(grid(31))["nose"]).vertices
    small = Rotation.from_rotvec([0.05, 0.08, -0.04]).as_matrix()
    scan, points = nose @ small.T + [0.3, -0.2, 0.1], keypoints_of(mesh)(mesh.vertices)[27:36]
    scan_points = points @ small.T + [0.35, -0.2, 0.05]

    motion = regional_icp(Surface(mesh.vertices, mesh.faces), points, scan, scan_points, 3)

    np.testing.assert_allclose(motion(mesh.vertices), slow_icp(mesh, points, scan, scan_points, 3), atol=1e-6)


def test_regional_icp_finds_a_rigid_motion() -> None:
    mesh = grid()
    region = merged(regions_of(mesh)["forehead"]).vertices
    small = Rotation.from_rotvec([0.04, -0.06, 0.05]).as_matrix()

    motion = regional_icp(Surface(mesh.vertices, mesh.faces), NONE, region @ small.T + [0.1, 0.1, -0.2], NONE, 0)

    # Stops when the mean squared distance changes by 1e-6: some hundredths of a unit are left along the surface.
    np.testing.assert_allclose(motion(region), region @ small.T + [0.1, 0.1, -0.2], atol=0.05)


@pytest.mark.parametrize("offset", [0.1, 0.3, -0.1])
def test_an_offset_along_the_normal_reads_as_it_is(offset: float) -> None:
    region = grid(81)
    shape = trimesh.Trimesh(region.vertices, region.faces, process=False)
    inner = merged(regions_of(region)["forehead"])
    moved = Surface(region.vertices + offset * shape.vertex_normals, region.faces)

    # Not aligned again: a rigid motion would take most of it away.
    assert bidirectional_error(moved, NONE, inner, NONE) == pytest.approx(abs(offset), rel=0.02)


@pytest.mark.parametrize("keypoints", [0, 20])
def test_spheres_are_apart_by_the_difference_of_their_radii(keypoints: int) -> None:
    scan, other = trimesh.creation.icosphere(4, 5.0), trimesh.creation.icosphere(5, 5.4)
    points = np.asarray(scan.vertices)[:keypoints]
    region = merged(Mesh(np.asarray(scan.vertices), np.asarray(scan.faces)))

    error = bidirectional_error(Surface(other.vertices, other.faces), points * 5.4 / 5, region, points)

    assert error == pytest.approx(0.4, rel=0.02)


@pytest.fixture(scope="module")
def another() -> tuple[Mesh, np.ndarray, Scan, dict[str, float]]:
    """A face, its keypoints, the scan of someone else, and the errors."""
    mesh = grid()
    keypoints = keypoints_of(mesh)
    truth = Mesh(mesh.vertices + 0.25 * np.sin(mesh.vertices[:, [1, 2, 0]]), mesh.faces)
    scan = scan_of(truth, keypoints(truth.vertices))
    return (
        mesh,
        keypoints(mesh.vertices),
        scan,
        region_errors(mesh.vertices, mesh.faces, keypoints(mesh.vertices), scan),
    )


@pytest.mark.parametrize("scale", [1.0, 9.0, 1e-3])
def test_neither_pose_nor_scale_of_the_prediction_counts(another, scale: float) -> None:
    mesh, keypoints, scan, errors = another
    moved, moved_keypoints = (scale * points @ TURN.T + [40.0, 3.0, -100.0] for points in (mesh.vertices, keypoints))

    again = region_errors(moved, mesh.faces, moved_keypoints, scan)

    assert set(again) == {"nose", "mouth", "forehead", "cheek"}
    assert min(errors.values()) > 0.1
    for name, error in errors.items():
        assert again[name] == pytest.approx(error, rel=1e-3)


def test_a_perfect_prediction_has_no_error_on_another_triangulation() -> None:
    mesh, truth = grid(81), grid(61, 0.37)
    scan = scan_of(truth, keypoints_of(mesh)(mesh.vertices))

    errors = region_errors(mesh.vertices, mesh.faces, keypoints_of(mesh)(mesh.vertices), scan)

    assert max(errors.values()) < 0.03 * scan.mm_per_unit  # of the width of a cell, 0.15 units, no more than a fifth


def test_noise_of_the_scan_reads_as_its_mean_distance() -> None:
    mesh, sigma = grid(61), 0.05
    truth = merged(regions_of(grid(61, 0.37))["forehead"])
    noise = sigma * np.random.default_rng(3).standard_normal(len(truth.vertices))
    noisy = Mesh(truth.vertices + noise[:, None] * [0, 0, 1], truth.faces)

    error = bidirectional_error(Surface(mesh.vertices, mesh.faces), NONE, noisy, NONE)

    assert sigma * np.sqrt(2 / np.pi) * 0.8 < error < sigma * np.sqrt(2 / np.pi) * 1.5


def test_doubled_vertices_and_triangles_without_area_change_nothing(another) -> None:
    mesh, keypoints, scan, errors = another
    n, nose = len(mesh.vertices), scan.regions["nose"]
    doubled = Mesh(
        np.concatenate([nose.vertices, nose.vertices]),
        np.concatenate([nose.faces[::2], nose.faces[1::2] + len(nose.vertices), nose.faces[:3, [0, 0, 1]]]),
    )
    faces = np.concatenate([mesh.faces, mesh.faces[:5, [0, 1, 1]], [[n, n, n]]])
    vertices = np.concatenate([mesh.vertices, mesh.vertices[:1]])

    again = region_errors(vertices, faces, keypoints, Scan({"nose": doubled}, scan.keypoints, scan.mm_per_unit))

    assert again["nose"] == pytest.approx(errors["nose"], rel=1e-6)


def test_unknown_keypoints_are_left_out_but_the_seven_are_needed(another) -> None:
    mesh, keypoints, scan, errors = another
    without = keypoints.copy()
    without[68:] = np.nan
    assert region_errors(mesh.vertices, mesh.faces, without, scan)["nose"] == pytest.approx(errors["nose"], rel=0.1)
    without[33] = np.nan
    with pytest.raises(ValueError, match="must be known"):
        region_errors(mesh.vertices, mesh.faces, without, scan)


def test_a_collapsed_prediction_and_a_scan_of_points_are_refused(another) -> None:
    mesh, keypoints, scan, _ = another
    with pytest.raises(ValueError, match="collapsed"):
        region_errors(0 * mesh.vertices, mesh.faces, 0 * keypoints, scan)
    points = {"nose": Mesh(scan.regions["nose"].vertices, np.empty((0, 3), np.int64))}
    with pytest.raises(ValueError, match="no faces"):
        region_errors(mesh.vertices, mesh.faces, keypoints, Scan(points, scan.keypoints, 9.0))
