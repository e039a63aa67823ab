"""The classical rival: a shape model fitted to 68 landmarks under a Gaussian prior, by closed forms taken in turns.

Legend of shape suffixes: B photos · N = 68 landmarks · K shape components · E expressions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fitdiff.alignment.camera import JAW_WEIGHT, estimate_pose_and_expression
from fitdiff.geometry import rotation_matrix
from fitdiff.types import Camera, ShapeModel

LANDMARK_NOISE = 2.0
"""mm, standard deviation of a detected landmark; it weighs the landmarks against the prior p ~ N(0, 1)."""

N_JAW = 17


@torch.no_grad()
def fit_landmarks(
    shape_model: ShapeModel,
    landmarks_BN2: Tensor,
    focal_B: Tensor,
    principal_point_B2: Tensor,
    noise: float = LANDMARK_NOISE,
    rounds: int = 6,
) -> tuple[Tensor, Camera, Tensor]:
    """Identity by maximum a posteriori for pose and expression, and these for identity, by turns.

    Args:
        shape_model: its landmarks must be linear in identity and expression. landmarks_BN2: NDC.
        focal_B, principal_point_B2: NDC. noise: mm. rounds: of both steps.

    Returns:
        (B, K) identity code, camera, (B, E) expression weights.
    """
    identity = landmarks_BN2.new_zeros(len(landmarks_BN2), shape_model.n_identity)
    for _ in range(rounds):
        camera, expression = estimate_pose_and_expression(
            shape_model, landmarks_BN2, focal_B, principal_point_B2, identity
        )
        identity = fit_identity(shape_model, landmarks_BN2, camera, expression, noise)
    return identity, camera, expression


@torch.no_grad()
def fit_identity(
    shape_model: ShapeModel, landmarks_BN2: Tensor, camera: Camera, expression_BE: Tensor, noise: float = LANDMARK_NOISE
) -> Tensor:
    """(B, K) code that minimises `sum_n w_n |r_n|^2 / noise^2 + |p|^2` for a known pose and expression.

    r_n is the offset in mm of landmark n from its ray (u, v), taken at its depth: (x + u z, y + v z), which is linear
    in the code p.
    """
    shift, basis = _landmark_basis(shape_model, expression_BE)
    rays = (landmarks_BN2 - camera.principal_point[:, None]) / camera.focal[:, None, None]
    rotation = rotation_matrix(camera.rotation)
    offset = shift @ rotation.mT + camera.translation[:, None]
    moves = torch.einsum("bij,knj->bkni", rotation, basis)
    weights = rays.new_ones(rays.shape[1])
    weights[:N_JAW] = JAW_WEIGHT
    scale = weights.sqrt()[:, None] / noise
    residual, design = (_off_ray(points, rays) * scale for points in (offset[:, None], moves))
    residual, design = residual.flatten(2), design.flatten(2)
    normal = design @ design.mT + torch.eye(design.shape[1]).to(design)
    return -torch.linalg.solve(normal, (design @ residual.mT)[..., 0])


def _off_ray(points_BKN3: Tensor, rays_BN2: Tensor) -> Tensor:
    """(B, K, N, 2) mm."""
    return points_BKN3[..., :2] + points_BKN3[..., 2:] * rays_BN2[:, None]


def _landmark_basis(shape_model: ShapeModel, expression_BE: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N, 3) landmarks of the mean face with each expression, and (K, N, 3) how each component moves them."""
    like = expression_BE
    mean = shape_model.topology.landmarks(shape_model(like.new_zeros(len(like), shape_model.n_identity), like))
    codes = torch.cat([torch.zeros(1, shape_model.n_identity), torch.eye(shape_model.n_identity)]).to(like)
    components = shape_model.topology.landmarks(shape_model(codes))
    return mean, components[1:] - components[:1]
