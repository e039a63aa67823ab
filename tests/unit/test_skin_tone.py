"""Typology angle of known colours, and the shares of its classes."""

import numpy as np
import pytest
from skimage.color import lab2rgb

from fitdiff.colour import srgb_to_linear
from fitdiff.evaluation.skin_tone import CLASSES, class_shares, lab_of_albedo, typology_angle, typology_error


def test_angle_of_known_colours():
    assert typology_angle([70.0, 10.0, 20.0]) == pytest.approx(45)
    assert typology_angle([50.0, 10.0, 20.0]) == pytest.approx(0)
    assert typology_angle([30.0, 10.0, 20.0]) == pytest.approx(-45)
    assert typology_angle([60.0, 0.0, 10 * np.sqrt(3)]) == pytest.approx(30)


def test_lab_is_that_of_the_surface_under_daylight():
    import torch

    lab = np.array([[76.0, 7.0, 15.0], [55.0, 14.0, 20.0], [35.0, 11.0, 13.0]])
    albedo = srgb_to_linear(torch.from_numpy(lab2rgb(lab)))
    assert np.allclose(lab_of_albedo(albedo), lab, atol=0.02)
    assert np.allclose(lab_of_albedo([1.0, 1.0, 1.0]), [100, 0, 0], atol=0.02)
    # CIE 1976: L* = 116 Y^(1/3) - 16.
    assert lab_of_albedo([0.18, 0.18, 0.18])[0] == pytest.approx(116 * 0.18 ** (1 / 3) - 16, abs=0.01)


def test_shares():
    angles = [60.0, 55.0, 50.0, 41.0, 35.0, 28.0, 20.0, 10.0, 0.0, -30.0, -31.0, 89.0]
    shares = class_shares(angles)
    assert list(shares) == list(CLASSES)
    counts = {name: round(share * 12) for name, share in shares.items()}
    assert counts == {"very light": 2, "light": 2, "intermediate": 2, "tan": 2, "brown": 2, "dark": 2}
    assert sum(shares.values()) == pytest.approx(1)


def test_error_of_tone_goes_the_short_way_round():
    import torch

    lab = np.array([[70.0, 0.0, 20.0], [48.0, 0.0, -2.0]])  # 45 and -135 degrees
    other = np.array([[50.0, 0.0, 20.0], [52.0, 0.0, -2.0]])  # 0 and 135 degrees
    albedo, truth = (srgb_to_linear(torch.from_numpy(lab2rgb(x))) for x in (lab, other))
    assert typology_error(albedo, truth) == pytest.approx([45, 90], abs=0.5)
