"""A folder that anybody can make: its truth reads the scans' noise, and the mean face more."""

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from fitdiff.alignment.photo import load_photo
from fitdiff.evaluation.now import synthetic
from fitdiff.evaluation.now.folder import CHALLENGES, NowFolder, find_prediction, read_landmarks
from fitdiff.evaluation.now.scores import Scan, Settings, score_all
from fitdiff.evaluation.now.synthetic import Options, write_folder

NOISE = 0.2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "MAPS", 64)
        path = tmp_path_factory.mktemp("now")
        write_folder(Options(str(path), n=1, photos=1, size=64, finer=0, noise=NOISE), Console(file=io.StringIO()))
    return NowFolder.open(path)


def test_it_is_whole_and_holds_every_challenge(folder):
    assert {item.challenge for item in folder.items} == set(CHALLENGES)
    assert load_photo(folder.photo(folder.items[0])).image.shape[:2] == (64, 64)


@pytest.mark.parametrize("metrical", [False, True])
def test_truth_reads_the_noise_and_the_mean_face_more(folder, tmp_path, metrical):
    errors, one = {}, replace(folder, items=folder.items[:1])  # the others' predictions are the same
    for system in ("truth", "mean_face"):
        predictions = folder.path / "predictions" / system
        scores, missing = score_all(one, predictions, tmp_path / system, Settings(metrical), workers=1)
        assert not missing
        assert all(s.converged for s in scores.values())
        errors[system] = np.mean([s.distance.mean() for s in scores.values()])
    assert errors["truth"] == pytest.approx(NOISE * np.sqrt(2 / np.pi), rel=0.05)
    assert errors["mean_face"] > 2 * errors["truth"]


def test_picked_points_and_landmarks_are_the_same_places(folder):
    item = folder.items[0]
    picked = Scan.read(folder, item.subject).landmarks
    ours = read_landmarks(find_prediction(folder.path / "predictions" / "truth", item.key).landmarks)
    between = [np.linalg.norm(points[:, None] - points, axis=-1) for points in (picked, ours)]
    np.testing.assert_allclose(between[0], between[1], atol=1e-9)
    assert ours[0, 0] < ours[1, 0] < ours[2, 0] < ours[3, 0]  # from the subject's right to the left
    assert ours[4, 1] < ours[:4, 1].min()
    assert ours[5, 0] < ours[6, 0]
    assert not np.allclose(picked, ours, atol=5)  # the scanner stands elsewhere


def test_options_out_of_range():
    with pytest.raises(ValueError, match="expected n, photos >= 1"):
        write_folder(Options(n=0), Console(file=io.StringIO()))
