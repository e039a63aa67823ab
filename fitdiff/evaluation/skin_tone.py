"""Skin tone as the individual typology angle, and its balance over the six classes that dermatology uses.

ITA = atan2(L* - 50, b*) in degrees, CIELAB with the white point D65 (Chardon et al. 1991; classes: Del Bino 2006)
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from skimage.color import rgb2lab

from fitdiff.colour import linear_to_srgb

CLASSES = {"very light": 55.0, "light": 41.0, "intermediate": 28.0, "tan": 10.0, "brown": -30.0, "dark": -np.inf}
"""Lower edges in degrees, from light to dark; a class holds angles above its edge up to the edge before."""


def lab_of_albedo(albedo: ArrayLike) -> NDArray[np.float64]:
    """(..., 3) linear albedo in [0, 1] -> (..., 3) CIELAB of the surface under D65."""
    srgb = linear_to_srgb(torch.as_tensor(np.asarray(albedo, np.float64)))
    return rgb2lab(srgb.numpy())


def typology_angle(lab: ArrayLike) -> NDArray[np.float64]:
    """(..., 3) CIELAB -> (...) ITA in degrees; a bluish surface, b* < 0, lies beyond 90 degrees."""
    lab = np.asarray(lab, np.float64)
    return np.degrees(np.arctan2(lab[..., 0] - 50, lab[..., 2]))


def class_shares(angles: ArrayLike) -> dict[str, float]:
    """Share of each class of `CLASSES`; they sum to 1."""
    edges = np.array(list(CLASSES.values()))
    which = (np.asarray(angles)[..., None] <= edges).sum(-1)
    counts = np.bincount(which.ravel(), minlength=len(edges))
    return dict(zip(CLASSES, (counts / counts.sum()).tolist(), strict=True))


def typology_error(albedo_N3: ArrayLike, truth_N3: ArrayLike) -> NDArray[np.float64]:
    """(N,) degrees between the ITA of two linear albedos in [0, 1], at most 180."""
    ours, theirs = (typology_angle(lab_of_albedo(albedo)) for albedo in (albedo_N3, truth_N3))
    return np.abs((ours - theirs + 180) % 360 - 180)
