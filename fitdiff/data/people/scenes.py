"""Random portraits: camera, light and expression of each view, a pure function of (seed, person, view)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fitdiff.data.people.expressions import sample_expressions
from fitdiff.data.people.lighting import sample_lighting
from fitdiff.data.people.options import Portraits
from fitdiff.data.people.views import Views
from fitdiff.types import Camera, Scene

FACE_HALF_HEIGHT = 105.0
"""mm, half of what a portrait frames: chin to hairline."""


def sample_scenes(views: Views, options: Portraits, expression_names: Sequence[str]) -> Scene:
    """Scenes of batch N, one a view, on the views' device."""
    camera, yaw_pitch = sample_cameras(views, options)
    expression = sample_expressions(views, options, expression_names, yaw_pitch)
    return Scene(camera, sample_lighting(views, options), expression)


def sample_cameras(views: Views, options: Portraits) -> tuple[Camera, Tensor]:
    """Cameras that frame the face, and the head's (yaw, pitch) in radians, (N, 2).

    Yaw is normal with a wide tail, pitch and roll are normal; the focal length is uniform in its logarithm. The face's
    half height fills 0.58 to 0.92 of the image's; its middle lies near the image's.
    """
    draws = views.draws("camera")
    is_wide = draws.chance(options.wide) > 0
    wide = draws.uniform(-options.widest, options.widest)
    yaw = torch.where(is_wide, wide, draws.normal(std=options.yaw).clamp(-options.widest, options.widest))
    pitch, roll = draws.normal(std=options.pitch).clamp(-30, 30), draws.normal(std=options.roll).clamp(-25, 25)
    angles = torch.stack([yaw, pitch, roll], 1) * (math.pi / 180)
    shortest, longest = (_log_focal(fov) for fov in (options.widest_lens, options.narrowest_lens))
    focal = torch.exp(draws.uniform(shortest, longest))
    fill = draws.uniform(0.58, 0.92)
    offset = torch.stack([draws.normal(std=0.04), draws.normal(0.02, 0.04)], 1).clamp(-0.14, 0.14)
    # The origin of head space, the middle of the face, lies at the wanted NDC offset and depth, whatever the rotation.
    depth = focal * FACE_HALF_HEIGHT / fill
    translation = torch.cat([offset * (depth / focal)[:, None], -depth[:, None]], 1)
    camera = Camera(_to_axis_angle(*angles.unbind(1)), translation, focal, torch.zeros_like(offset))
    return camera, angles[:, :2]


def _log_focal(field_of_view: float) -> float:
    return -math.log(math.tan(math.radians(field_of_view) / 2))


def _to_axis_angle(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """(N, 3) axis-angle of roll (z) after pitch (x) after yaw (y), by the product of their quaternions."""
    half = [angle / 2 for angle in (yaw, pitch, roll)]
    (cy, cx, cz), (sy, sx, sz) = [x.cos() for x in half], [x.sin() for x in half]
    w = cz * cx * cy - sz * sx * sy
    axis = torch.stack([cz * sx * cy - sz * cx * sy, cz * cx * sy + sz * sx * cy, sz * cx * cy + cz * sx * sy], 1)
    sine = axis.norm(dim=1)
    return axis * (2 * torch.atan2(sine, w) / sine.clamp_min(1e-12))[:, None]
