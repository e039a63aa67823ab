"""Random portraits: camera, light, expression and background, a pure function of (seed, person, view)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as nnf
from scipy.spatial.transform import Rotation
from torch import Tensor

from fitdiff.types import Camera, Lighting, Scene

FACE_HALF_HEIGHT = 105.0
"""mm, half of what a portrait frames: chin to hairline."""


def sample_scenes(seed: int, indices: Sequence[int], views: int, n_expression: int) -> Scene:
    """Scenes of `views` portraits of each person, ordered person by person.

    Args:
        indices: n people.

    Returns:
        Scene of batch n * views: yaw sd 15 degrees (at most 40), pitch 7, roll 5; field of view 16 to 45 degrees;
        a neutral-ish ambient and two directional lights from the front half; every third portrait neutral.
    """
    draws = [
        _draw(np.random.default_rng([seed, 11, int(i), view]), n_expression) for i in indices for view in range(views)
    ]
    columns = {key: torch.from_numpy(np.stack([d[key] for d in draws]).astype(np.float32)) for key in draws[0]}
    rotation = columns["rotation"]
    focal = columns["focal"]
    # The origin of head space, the middle of the face, lies at the wanted NDC offset and depth, whatever the rotation.
    depth = focal * FACE_HALF_HEIGHT / columns["fill"]
    translation = torch.cat([columns["offset"] * (depth / focal)[:, None], -depth[:, None]], 1)
    camera = Camera(rotation, translation, focal, torch.zeros(len(draws), 2))
    lighting = Lighting(
        columns["ambient"],
        columns["directions"],
        columns["colours"],
        proximity=torch.zeros(len(draws), columns["colours"].shape[1]),
        harmonics=torch.zeros(len(draws), 8, 3),
    )
    return Scene(camera, lighting, columns["expression"])


def _draw(rng: np.random.Generator, n_expression: int) -> dict[str, np.ndarray]:
    yaw = np.clip(rng.normal(0, 15), -40, 40)
    pitch, roll = rng.normal(0, 7), rng.normal(0, 5)
    tint = rng.normal(0, 0.05, (3, 3))
    strength = np.array([rng.uniform(0.25, 0.6), rng.uniform(0.25, 0.9), rng.uniform(0.0, 0.35)])
    colours = strength[:, None] * np.exp(tint - tint.mean(1, keepdims=True))
    azimuth = np.radians(np.array([rng.uniform(-75, 75), rng.uniform(-75, 75)]))
    elevation = np.radians(np.array([rng.uniform(-5, 60), rng.uniform(-20, 45)]))
    directions = np.stack(
        [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)], 1
    )
    active = (rng.random(n_expression) < 0.12) * (rng.random() > 1 / 3)
    return {
        "rotation": _euler_to_axis_angle(pitch, yaw, roll),
        "focal": np.exp(rng.uniform(np.log(2.4), np.log(7.0))),
        "fill": rng.uniform(0.72, 0.92),
        "offset": rng.normal(0, 0.03, 2),
        "ambient": colours[0],
        "directions": directions,
        "colours": colours[1:],
        "expression": active * rng.beta(1.2, 3.0, n_expression),
    }


def _euler_to_axis_angle(pitch: float, yaw: float, roll: float) -> np.ndarray:
    return Rotation.from_euler("ZXY", [roll, pitch, yaw], degrees=True).as_rotvec()


def sample_backgrounds(seed: int, indices: Sequence[int], views: int, size: int) -> Tensor:
    """(n * views, 3, size, size) sRGB: smooth random colour fields, as an out-of-focus room is."""
    coarse = np.stack(
        [
            rng.uniform(0.1, 0.9)
            + rng.normal(0, 0.08, (3, 1, 1))
            + rng.normal(0, 0.12, (1, 4, 4))
            + rng.normal(0, 0.03, (3, 4, 4))
            for i in indices
            for view in range(views)
            for rng in [np.random.default_rng([seed, 12, int(i), view])]
        ]
    )
    fields = nnf.interpolate(torch.from_numpy(coarse).float(), size=(size, size), mode="bicubic", align_corners=True)
    return fields.clamp(0, 1)
