"""Landmark detectors: where the points of a real face are, and FAN's decoding against a readable loop."""

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from fitdiff.alignment.dlib68 import Dlib68
from fitdiff.alignment.fan import MIRROR, FaceAlignmentNetwork, decode_heatmaps
from fitdiff.types import Detection, LandmarkDetector
from fitdiff.weights import WeightsError

BOX = Detection((181.1, 62.2, 267.7, 172.1), 1.0)
"""MTCNN's, in the astronaut."""

# Read off an enlarged picture: eye corners, nose tip, mouth corners; pixels of the photo.
CORNERS = {36: (193, 101), 39: (213, 103), 42: (237, 104), 45: (259, 104)}
BY_HAND = {**CORNERS, 30: (224, 127), 48: (203, 140), 54: (244, 141)}


@pytest.fixture(scope="module")
def dlib68():
    return Dlib68()


@pytest.fixture(scope="module")
def fan():
    torch.manual_seed(0)
    return FaceAlignmentNetwork(weights="random")


def test_dlib_finds_the_features_of_the_astronaut(dlib68):
    landmarks = dlib68(skimage.data.astronaut(), BOX)
    assert isinstance(dlib68, LandmarkDetector)
    assert landmarks.shape == (68, 2)
    assert landmarks.dtype == np.float32
    for index, place in BY_HAND.items():
        assert np.hypot(*(landmarks[index] - place)) < 5


def test_dlib_scales_and_shifts_with_the_photo(dlib68):
    image = skimage.data.astronaut()
    double = np.asarray(Image.fromarray(image).resize((1024, 1024), Image.Resampling.BICUBIC))
    larger = dlib68(double, Detection(tuple(2 * edge for edge in BOX.box), 1.0)) / 2
    assert np.abs(larger - dlib68(image, BOX)).mean() < 1.0
    shifted = np.pad(image, ((30, 0), (50, 0), (0, 0)))
    x0, y0, x1, y1 = BOX.box
    moved = dlib68(shifted, Detection((x0 + 50, y0 + 30, x1 + 50, y1 + 30), 1.0))
    assert np.abs(moved - (50, 30) - dlib68(image, BOX)).max() <= 1.0


def test_dlib_weights_by_path():
    with pytest.raises(FileNotFoundError, match="68-point shape predictor"):
        Dlib68(weights="nowhere.dat")


def test_fan_gives_points_inside_of_its_crop(fan):
    landmarks = fan(skimage.data.astronaut(), BOX)
    assert isinstance(fan, LandmarkDetector)
    assert landmarks.shape == (68, 2)
    assert landmarks.dtype == np.float32
    x0, y0, x1, y1 = BOX.box
    side = 200 / 195 * (x1 - x0 + y1 - y0)
    middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2 - 0.12 * (y1 - y0)])
    assert (np.abs(landmarks - middle) <= side / 2).all()


def test_fan_decodes_like_a_readable_loop():
    heatmaps = torch.rand(20, 9, 11, generator=torch.Generator().manual_seed(0))
    for row, heatmap in zip(decode_heatmaps(heatmaps), heatmaps, strict=True):
        y, x = divmod(int(heatmap.argmax()), 11)
        expected = [x + 0.5, y + 0.5]
        if 0 < x < 10 and 0 < y < 8:
            expected[0] += 0.25 if heatmap[y, x + 1] > heatmap[y, x - 1] else -0.25
            expected[1] += 0.25 if heatmap[y + 1, x] > heatmap[y - 1, x] else -0.25
        assert row.tolist() == expected


def test_fan_points_land_where_the_heatmaps_peak(fan, monkeypatch):
    heatmaps = torch.zeros(68, 64, 64)
    heatmaps[:, 16, 48] = 1.0
    monkeypatch.setattr(fan, "_heatmaps", lambda crop: heatmaps)
    monkeypatch.setattr(fan, "average_mirror", False)
    landmarks = fan(np.zeros((300, 300, 3), np.uint8), Detection((100.0, 100.0, 200.0, 200.0), 1.0))
    side = 200 / 195 * 200
    # No slope around a single peak: it stays in the middle of its pixel.
    expected = (150 - side / 2 + 48.5 * side / 64, 138 - side / 2 + 16.5 * side / 64)
    np.testing.assert_allclose(landmarks, np.tile(expected, (68, 1)), rtol=1e-5)


def test_mirror_is_its_own_inverse_and_swaps_sides():
    assert [MIRROR[i] for i in MIRROR] == list(range(68))
    assert (MIRROR[0], MIRROR[17], MIRROR[36], MIRROR[41], MIRROR[48], MIRROR[60], MIRROR[67]) == (
        16,
        26,
        45,
        46,
        54,
        64,
        65,
    )
    assert (MIRROR[8], MIRROR[30], MIRROR[51], MIRROR[57], MIRROR[62]) == (8, 30, 51, 57, 62)


def test_fan_without_weights_says_what_to_get(tmp_path, monkeypatch):
    monkeypatch.setenv("FITDIFF_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        FaceAlignmentNetwork()
    for part in ("2DFAN4-11f355bf06.pth.tar", "non-commercial", str(tmp_path), "landmarks.weights="):
        assert part in str(caught.value)


def test_fan_loads_a_local_file_in_the_published_layout(tmp_path, fan):
    path = tmp_path / "2DFAN4-11f355bf06.pth.tar"
    torch.save(fan.network.state_dict(), path)
    loaded = FaceAlignmentNetwork(weights=str(path), average_mirror=False)
    for a, b in zip(loaded.network.parameters(), fan.network.parameters(), strict=True):
        assert torch.equal(a, b)
    torch.save({"conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="does not fit FAN"):
        FaceAlignmentNetwork(weights=str(path))
