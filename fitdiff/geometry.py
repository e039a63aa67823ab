"""Rotations and projection: the only place where head space becomes camera space, NDC and pixels (see `types`)."""

from __future__ import annotations

import torch
from torch import Tensor

from fitdiff.types import Camera


def rotation_matrix(axis_angle_B3: Tensor) -> Tensor:
    """Rodrigues' formula: (B, 3) axis-angle in radians -> (B, 3, 3). Smooth at zero."""
    x, y, z = axis_angle_B3.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*axis_angle_B3.shape[:-1], 3, 3)
    return torch.linalg.matrix_exp(skew)


def to_camera_space(points_BN3: Tensor, camera: Camera) -> Tensor:
    """Head space to camera space: (B, N, 3) mm -> (B, N, 3) mm."""
    return points_BN3 @ rotation_matrix(camera.rotation).transpose(1, 2) + camera.translation[:, None]


def project(points_BN3: Tensor, camera: Camera) -> Tensor:
    """Camera space to NDC: (B, N, 3) mm -> (B, N, 2). Points must lie in front of the camera (z < 0)."""
    depth = -points_BN3[..., 2:]
    return camera.focal[:, None, None] * points_BN3[..., :2] / depth + camera.principal_point[:, None]


def pixels_to_ndc(points: Tensor, size: int | float) -> Tensor:
    """Image space of a size x size image -> NDC. (..., 2) pixels -> (..., 2)."""
    return (points * (2 / size) - 1) * points.new_tensor([1.0, -1.0])


def ndc_to_pixels(points: Tensor, size: int | float) -> Tensor:
    """NDC -> image space of a size x size image: the inverse of `pixels_to_ndc`."""
    return (points * points.new_tensor([1.0, -1.0]) + 1) * (size / 2)
