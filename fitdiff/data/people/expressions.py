"""Expressions of portraits: what muscles do together, both eyes with one gaze, and a little of everything."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fitdiff.data.people.options import Portraits
from fitdiff.data.people.views import Views

ACTIONS: dict[str, tuple[float, dict[str, float]]] = {
    "smile": (0.22, {"mouthSmile*": 0.9, "cheekSquint*": 0.5, "eyeSquint*": 0.25, "mouthDimple*": 0.3}),
    "laugh": (0.07, {"mouthSmile*": 1.0, "mouthUpperUp*": 0.35, "mouthLowerDown*": 0.3, "jawOpen": 0.4,
                     "cheekSquint*": 0.8, "eyeSquint*": 0.5}),
    "talk": (0.09, {"jawOpen": 0.45, "mouthLowerDown*": 0.3, "mouthFunnel": 0.3}),
    "surprise": (0.03, {"browInnerUp": 0.9, "browOuterUp*": 0.9, "eyeWide*": 0.8, "jawOpen": 0.5}),
    "brow_raise": (0.06, {"browInnerUp": 0.7, "browOuterUp*": 0.8}),
    "frown": (0.06, {"browDown*": 0.9, "eyeSquint*": 0.3, "mouthPress*": 0.3}),
    "sad": (0.03, {"browInnerUp": 0.8, "mouthFrown*": 0.8, "mouthShrugLower": 0.5}),
    "disgust": (0.02, {"noseSneer*": 0.9, "mouthUpperUp*": 0.5, "browDown*": 0.4}),
    "pucker": (0.03, {"mouthPucker": 0.8, "mouthFunnel": 0.2}),
    "press": (0.05, {"mouthPress*": 0.7, "mouthRollLower": 0.4, "mouthRollUpper": 0.4}),
    "blink": (0.03, {"eyeBlink*": 1.0}),
    "sleepy": (0.05, {"eyeBlink*": 0.35}),
    "squint": (0.06, {"eyeSquint*": 0.8, "cheekSquint*": 0.4}),
    "left": (0.02, {"mouthLeft": 0.7, "jawLeft": 0.3}),
    "right": (0.02, {"mouthRight": 0.7, "jawRight": 0.3}),
    "puff": (0.015, {"cheekPuff": 0.8}),
    "stretch": (0.015, {"mouthStretch*": 0.8}),
    "half_smile_left": (0.03, {"mouthSmileLeft": 0.7, "mouthDimpleLeft": 0.4}),
    "half_smile_right": (0.03, {"mouthSmileRight": 0.7, "mouthDimpleRight": 0.4}),
    "wink_left": (0.01, {"eyeBlinkLeft": 1.0, "cheekSquintLeft": 0.5}),
    "wink_right": (0.01, {"eyeBlinkRight": 1.0, "cheekSquintRight": 0.5}),
}  # fmt: skip
"""Name -> probability, and the weights at full strength; `*` stands for both sides. About one acts at a time: faces
that do several things at once are rare in photos, and hard to recognise."""

FULL_GAZE = 0.5
"""Radians that the eyes turn at weight 1 of `eyeLook*`, about."""

FIDGET = 0.04
"""Probability of each single weight besides: so that no weight is known from the others."""


def sample_expressions(views: Views, options: Portraits, names: Sequence[str], yaw_pitch_N2: Tensor) -> Tensor:
    """(N, E) blendshape weights in [0, 1]; all zero for the share that is neutral.

    Args:
        names: of the weights (ARKit's); actions that a shape model lacks are left out.
        yaw_pitch_N2: of the head in radians: half of the people look at the camera.
    """
    draws = views.draws("expression")
    expressive = draws.chance(options.expressive)
    strengths = torch.stack([draws.chance(p) * draws.uniform(0.2, 0.9) for p, _ in ACTIONS.values()], 1)
    # Not a matrix product: its rounding would depend on the number of rows.
    weights = (strengths[..., None] * _table(names).to(strengths)).sum(1)
    weights = weights * torch.exp(0.15 * views.normals("muscles", (len(names),)))
    fidget = torch.stack([draws.chance(FIDGET) * draws.uniform(0.0, 0.4) for _ in names], 1)
    weights = weights + fidget * _without_eyes(names).to(fidget)
    gaze = torch.stack([draws.normal(std=0.15), draws.normal(std=0.08)], 1)
    at_camera = draws.chance(0.5)[:, None] * yaw_pitch_N2 * gaze.new_tensor([-1.0, 1.0])
    weights = weights + _look((gaze + at_camera) / FULL_GAZE, names)
    return weights.clamp(0, 1) * expressive[:, None]


def _table(names: Sequence[str]) -> Tensor:
    """(actions, E) weights at full strength."""
    rows = []
    for _, weights in ACTIONS.values():
        full = {key.replace("*", side): value for key, value in weights.items() for side in ("Left", "Right")}
        rows.append([full.get(name, 0.0) for name in names])
    return torch.tensor(rows)


def _without_eyes(names: Sequence[str]) -> Tensor:
    return torch.tensor([0.0 if name.startswith(("eyeLook", "eyeBlink")) else 1.0 for name in names])


def _look(gaze_N2: Tensor, names: Sequence[str]) -> Tensor:
    """(N, E) weights that turn both eyes (to the subject's left, up), in units of a full turn."""
    left, up = gaze_N2.clamp(-1, 1).unbind(1)
    amount = {"OutLeft": left, "InRight": left, "InLeft": -left, "OutRight": -left,
              "UpLeft": up, "UpRight": up, "DownLeft": -up, "DownRight": -up}  # fmt: skip
    nothing = torch.zeros_like(left)
    return torch.stack([amount.get(name.removeprefix("eyeLook"), nothing).clamp_min(0) for name in names], 1)
