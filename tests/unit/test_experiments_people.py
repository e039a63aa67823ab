"""What experiments/people measures on portraits and people, against slow or closed forms."""

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf.errors import OmegaConfBaseException

from experiments.people import measure
from experiments.people.analysis import detector_rates, shape_targets, split, vertex_areas
from experiments.people.photos import nearest_people
from experiments.people.survey import Population, light_of, overlap, yaw_pitch


def rotation_about(axis, degrees):
    return (torch.tensor(axis) * math.radians(degrees)).view(1, 1, 3)


def test_yaw_is_positive_where_the_face_looks_to_the_image_s_right():
    yaw, pitch = yaw_pitch(rotation_about([0.0, 1.0, 0.0], 30))
    assert (yaw.item(), pitch.item()) == pytest.approx((30, 0), abs=1e-4)
    yaw, pitch = yaw_pitch(rotation_about([1.0, 0.0, 0.0], -20))
    assert (yaw.item(), pitch.item()) == pytest.approx((0, 20), abs=1e-4)
    yaw, pitch = yaw_pitch(rotation_about([0.0, 0.0, 1.0], 40))
    assert (yaw.item(), pitch.item()) == pytest.approx((0, 0), abs=1e-4)


def test_light_of_a_face_that_is_twice_as_bright_on_one_side():
    from fitdiff.colour import linear_to_srgb

    linear = torch.full((1, 1, 3, 8, 8), 0.4)
    linear[..., :4] = 0.2
    mask = torch.zeros(1, 1, 1, 8, 8)
    mask[..., 2:6] = 1
    exposure, contrast = light_of(linear_to_srgb(linear), mask, torch.zeros(1, 1, 68, 2))
    assert exposure.item() == pytest.approx(0.3, abs=1e-4)
    assert contrast.item() == pytest.approx(1, abs=1e-3)
    _, shifted = light_of(linear_to_srgb(linear), mask, torch.full((1, 1, 68, 2), -0.25))
    assert shifted.item() == pytest.approx(math.log2(1 / 3 * 1 + 2 / 3 * 2), abs=1e-3)  # 1 dark of 3 columns


def test_overlap_of_boxes():
    a = np.array([0.0, 0.0, 2.0, 2.0])
    assert overlap(a, a) == 1
    assert overlap(a, np.array([1.0, 0, 3, 2])) == pytest.approx(1 / 3)
    assert overlap(a, a + 5) == 0


def triangle_model(seed=0):
    """Four vertices, two triangles of different area, two components."""
    mean = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 2, 0], [8, 8, 0]])
    basis = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(seed))
    return SimpleNamespace(
        topology=SimpleNamespace(faces=torch.tensor([[0, 1, 2], [1, 3, 2]])), mean=mean, identity_basis=basis
    )


def test_vertex_areas():
    areas = vertex_areas(triangle_model())  # triangles of 2 and 14 square mm
    assert torch.allclose(areas * 16, torch.tensor([2, 16, 16, 14]).double() / 3)


def test_shape_targets_measure_the_surface_in_millimetres():
    model = triangle_model()
    codes = np.random.default_rng(0).normal(size=(5, 2))
    targets = shape_targets(codes, model)
    vertices = np.einsum("nk,kvx->nvx", codes, model.identity_basis.numpy())
    weights = vertex_areas(model).numpy()
    for i, j in [(0, 1), (2, 4)]:
        squared = (weights * ((vertices[i] - vertices[j]) ** 2).sum(1)).sum()
        assert ((targets[i] - targets[j]) ** 2).sum() == pytest.approx(squared)


def test_nearest_people_are_different_people():
    people = np.array([[[0.0], [0.1]], [[5.0], [1.0]], [[9.0], [3.0]]])
    nearest = nearest_people(np.array([[0.9], [8.0]]), people, 2)
    assert nearest.person.tolist() == [[1, 0], [2, 1]]
    assert nearest.view.tolist() == [[1, 1], [0, 0]]
    assert np.allclose(nearest.distance, [[0.1, 0.8], [1, 3]])


def test_detector_rates_by_yaw_and_by_what_hides_the_face():
    measured = {
        "found_stored": np.array([[True, True], [False, True], [True, False]]),
        "found_clean": np.array([[True, True]]),
        "yaw": np.array([[5.0, -15.0], [-15.0, 0.0], [50.0, 50.0]]),
        "occluded": np.array([[0, 0], [1, 1], [0, 0]], np.uint8),
    }
    rates = detector_rates(measured)
    assert rates["all"]["stored"] == {"portraits": 6, "found": pytest.approx(4 / 6)}
    assert rates["yaw"]["10 to 20"]["stored"] == {"portraits": 2, "found": 0.5}
    assert rates["yaw"]["10 to 20"]["clean"] == {"portraits": 1, "found": 1.0}
    assert rates["yaw"]["20 to 30"]["stored"] == {"portraits": 0, "found": None}
    assert rates["occluded"]["yes"]["found"] == 0.5
    assert rates["occluded"]["no"] == {"portraits": 4, "found": 0.75}


def test_nobody_is_both_trained_on_and_held_out():
    people = np.arange(23)
    train, test = split(23)
    assert np.array_equal(np.concatenate([people[train], people[test]]), people)
    assert len(people[test]) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["n=5"], "expected n >= 20"),
        (["controls=3000"], "controls <= n"),
        (["photos=nowhere", "publish=false"], "no such folder"),
        (["photos=."], "add publish=false"),
        (["nn=5"], "nn"),
        (["data.views=5"], "got data.views=5; write views=5"),
        (["data.seed=1"], "write seed=1"),
        (["data.portrait_size=64"], "write portrait=64"),
    ],
)
def test_faults_are_found_before_the_work(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["measure", *arguments])
    monkeypatch.setattr(measure, "run", lambda *_: pytest.fail("the work began"))
    with pytest.raises(SystemExit) as stopped:
        measure.main()
    assert stopped.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_help_lists_the_options(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["measure", "--help"])
    measure.main()
    assert "resamples=200" in capsys.readouterr().out


def test_overrides_of_the_data_reach_nested_options_and_are_checked():
    config = Population(64, 96, 2, 7, {"augmentation": {"jpeg": 0.0}}).config()
    assert (config["augmentation"]["jpeg"], config["seed"], config["views"]) == (0.0, 7, 2)
    with pytest.raises(OmegaConfBaseException, match="jpgg"):
        Population(64, 96, 2, 7, {"augmentation": {"jpgg": 0.0}}).config()
