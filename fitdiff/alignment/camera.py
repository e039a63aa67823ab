"""A first camera, and expression, from 68 landmarks: where guided fitting starts from.

Everything works on rays, `(ndc - principal point) / focal`: the picture of a camera of focal length 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fitdiff.geometry import rotation_matrix
from fitdiff.types import Camera, ShapeModel

JAW_WEIGHT = 0.3
"""Detectors slide along the jaw's contour, which is not the same line of skin in each view."""

PORTRAIT_DISTANCE = 1000.0
"""mm. Perspective goes with 1 / distance, and portraits are taken from 0.5 m (selfie) to 2 m: the geometric middle."""

SHORTEST_DISTANCE = 200.0
"""mm. A focal length that puts the face nearer than this belongs to a picture that was cropped later."""

EXPRESSION_RIDGE, EXPRESSION_SPARSITY = 1.0, 0.3
"""mm^2. On 100 synthetic portraits with 2% landmark noise this leaves 0.53 mm of landmark motion wrong (no expression:
0.88; ridge alone: 0.66) and moves neutral faces by 0.22 mm (ridge alone: 0.42)."""


def estimate_focal(model_landmarks: Tensor, landmarks_B682: Tensor, exif_focal_B: Tensor | None = None) -> Tensor:
    """Focal length from EXIF where that is plausible, else the one that puts the face 1 m away.

    A photo that was cropped says nothing of its focal length, but the perspective on the face depends on the distance
    alone, whose range is known.

    Args:
        model_landmarks: (68, 3) or (B, 68, 3) mm, head space.
        landmarks_B682: (B, 68, 2) NDC.
        exif_focal_B: (B,) in NDC of that image; NaN or None where unknown.

    Returns:
        (B,) in NDC of that image.
    """
    points = model_landmarks.to(landmarks_B682).expand(len(landmarks_B682), -1, -1)
    scale = _weak_perspective(points, landmarks_B682, _weights(landmarks_B682))[1]
    prior = scale * PORTRAIT_DISTANCE
    if exif_focal_B is None:
        return prior
    # NaN compares false, and so falls back to the prior.
    exif = exif_focal_B.to(prior)
    return torch.where(exif / scale >= SHORTEST_DISTANCE, exif, prior)


def estimate_camera(
    model_landmarks: Tensor,
    landmarks_B682: Tensor,
    focal_B: Tensor,
    principal_point_B2: Tensor | None = None,
    iterations: int = 10,
) -> Camera:
    """Pose of a head from its landmarks: weak perspective in closed form, then Levenberg-Marquardt on the reprojection.

    Each item of the batch is damped on its own. Jaw points weigh less. Computed in float64; no gradient.

    Args:
        model_landmarks: (68, 3) or (B, 68, 3) mm, head space.
        landmarks_B682: (B, 68, 2) NDC.
        focal_B: (B,) NDC, e.g. from `estimate_focal`.
        principal_point_B2: (B, 2) NDC; None is the image's centre.
        iterations: of Levenberg-Marquardt.

    Returns:
        Camera in the type of the landmarks, with the given focal length and principal point.
    """
    if principal_point_B2 is None:
        principal_point_B2 = torch.zeros_like(landmarks_B682[:, 0])
    with torch.no_grad():
        rays = ((landmarks_B682 - principal_point_B2[:, None]) / focal_B[:, None, None]).double()
        points = model_landmarks.to(rays).expand(len(rays), -1, -1)
        weights = _weights(rays)
        rotation, translation = _refine_pose(points, rays, weights, *_initial_pose(points, rays, weights), iterations)
        return Camera(
            axis_angle(rotation).to(landmarks_B682),
            translation.to(landmarks_B682),
            focal_B.to(landmarks_B682),
            principal_point_B2.to(landmarks_B682),
        )


def estimate_pose_and_expression(
    shape_model: ShapeModel,
    landmarks_B682: Tensor,
    focal_B: Tensor,
    principal_point_B2: Tensor | None = None,
    identity_BK: Tensor | None = None,
    ridge: float = EXPRESSION_RIDGE,
    sparsity: float = EXPRESSION_SPARSITY,
    rounds: int = 5,
) -> tuple[Camera, Tensor]:
    """Pose and expression by turns: `estimate_camera`, then expression weights e in [0, 1] by an elastic net.

    The second minimises `mean |residual|^2 + ridge |e|^2 + 2 sparsity sum(e)` over e for that camera, residuals in mm.

    Args:
        shape_model: its landmarks must be linear in the expression weights.
        landmarks_B682: (B, 68, 2) NDC.
        focal_B: (B,) NDC. principal_point_B2: (B, 2) NDC; None is the image's centre.
        identity_BK: (B, K) identity code; None is the mean face.
        ridge: mm^2, keeps weights small. sparsity: mm^2, keeps actions that explain little at exactly 0.
        rounds: of both steps.

    Returns:
        Camera, and (B, E) expression weights in [0, 1].
    """
    batch, n_expression = len(landmarks_B682), shape_model.n_expression
    if identity_BK is None:
        identity_BK = landmarks_B682.new_zeros(batch, shape_model.n_identity)
    with torch.no_grad():
        neutral = shape_model.topology.landmarks(shape_model(identity_BK))
        expression = landmarks_B682.new_zeros(batch, n_expression)
        camera = estimate_camera(neutral, landmarks_B682, focal_B, principal_point_B2)
        if n_expression == 0:
            return camera, expression
        basis = expression_landmarks(shape_model, landmarks_B682)
        for _ in range(rounds):
            expression = _fit_expression(neutral, basis, landmarks_B682, camera, ridge, sparsity)
            posed = neutral + torch.einsum("be,enc->bnc", expression, basis)
            camera = estimate_camera(posed, landmarks_B682, focal_B, principal_point_B2)
    return camera, expression


def expression_landmarks(shape_model: ShapeModel, like: Tensor) -> Tensor:
    """How each expression moves the landmarks of the mean face: (E, 68, 3) mm, on the device and type of `like`."""
    actions = torch.eye(shape_model.n_expression, device=like.device, dtype=like.dtype)
    codes = actions.new_zeros(len(actions) + 1, shape_model.n_identity)
    landmarks = shape_model.topology.landmarks(shape_model(codes, torch.cat([torch.zeros_like(actions[:1]), actions])))
    return landmarks[1:] - landmarks[:1]


def axis_angle(rotation_B33: Tensor) -> Tensor:
    """Inverse of `geometry.rotation_matrix`: (B, 3, 3) -> (B, 3) radians, at most pi long. Right near 0 and pi too.

    The unit quaternion is the eigenvector of the largest eigenvalue of a 4 x 4 symmetric matrix (Bar-Itzhack 2000).
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(-1) for row in rotation_B33.unbind(-2))
    rows = (xx - yy - zz, yx + xy, zx + xz, zy - yz, yx + xy, yy - xx - zz, zy + yz, xz - zx)
    rows += (zx + xz, zy + yz, zz - xx - yy, yx - xy, zy - yz, xz - zx, yx - xy, xx + yy + zz)
    quaternion = torch.linalg.eigh(torch.stack(rows, -1).view(-1, 4, 4))[1][..., -1]
    vector, scalar = quaternion[:, :3], quaternion[:, 3:]
    length = vector.norm(dim=1, keepdim=True)
    # q and -q are one rotation; the one with a positive scalar part turns by at most pi.
    angle = 2 * torch.atan2(length, scalar.abs()) * torch.where(scalar < 0, -1.0, 1.0)
    return vector * angle / length.clamp_min(torch.finfo(vector.dtype).tiny)


def _weights(landmarks_BN2: Tensor) -> Tensor:
    """(68,) weights that sum to 1."""
    weights = landmarks_BN2.new_ones(landmarks_BN2.shape[1])
    weights[:17] = JAW_WEIGHT
    return weights / weights.sum()


def _weak_perspective(
    points_BN3: Tensor, image_BN2: Tensor, weights_N: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Least-squares affine camera, its nearest scaled rotation, and the centroids.

    Returns:
        (B, 3, 3) rotation, (B,) scale in image units per mm, (B, 3) and (B, 2) centroids.
    """
    points_mean, image_mean = ((weights_N[:, None] * x).sum(1) for x in (points_BN3, image_BN2))
    points = points_BN3 - points_mean[:, None]
    weighted = points * weights_N[:, None]
    affine = torch.linalg.solve(weighted.mT @ points, weighted.mT @ (image_BN2 - image_mean[:, None])).mT
    u, singular, vh = torch.linalg.svd(affine, full_matrices=False)
    right, up = (u @ vh).unbind(1)
    rotation = torch.stack([right, up, torch.linalg.cross(right, up)], 1)
    return rotation, singular.mean(1), points_mean, image_mean


def _initial_pose(points_BN3: Tensor, rays_BN2: Tensor, weights_N: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation and translation that put the centroid at the depth of the weak-perspective scale."""
    rotation, scale, points_mean, rays_mean = _weak_perspective(points_BN3, rays_BN2, weights_N)
    centre = torch.cat([rays_mean, -torch.ones_like(rays_mean[:, :1])], 1) / scale[:, None]
    return rotation, centre - (rotation @ points_mean[..., None])[..., 0]


def _refine_pose(
    points_BN3: Tensor, rays_BN2: Tensor, weights_N: Tensor, rotation: Tensor, translation: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """Levenberg-Marquardt on the weighted squared distance of rays, with a damping for each item of the batch."""
    residual, jacobian = _reprojection(points_BN3, rays_BN2, rotation, translation)
    cost = (residual.square().sum(-1) @ weights_N)[:, None]
    damping = torch.full_like(cost, 1e-3)
    for _ in range(iterations):
        weighted = jacobian * weights_N[:, None, None]
        normal = torch.einsum("bnij,bnik->bjk", weighted, jacobian)
        gradient = torch.einsum("bnij,bni->bj", weighted, residual)
        damped = normal + torch.diag_embed(normal.diagonal(dim1=1, dim2=2) * damping)
        step = -torch.linalg.solve(damped, gradient)
        trial = rotation_matrix(step[:, :3]) @ rotation, translation + step[:, 3:]
        trial_residual, trial_jacobian = _reprojection(points_BN3, rays_BN2, *trial)
        trial_cost = (trial_residual.square().sum(-1) @ weights_N)[:, None]
        better = trial_cost < cost
        cost, translation = torch.where(better, trial_cost, cost), torch.where(better, trial[1], translation)
        rotation = torch.where(better[..., None], trial[0], rotation)
        residual = torch.where(better[..., None], trial_residual, residual)
        jacobian = torch.where(better[..., None, None], trial_jacobian, jacobian)
        damping = torch.where(better, damping * 0.2, damping * 5)
    return rotation, translation


def _reprojection(points_BN3: Tensor, rays_BN2: Tensor, rotation: Tensor, translation: Tensor) -> tuple[Tensor, Tensor]:
    """Residual (B, N, 2) of rays and its Jacobian (B, N, 2, 6) by a rotation applied on the left, and a translation."""
    rotated = points_BN3 @ rotation.mT
    x, y, z = (rotated + translation[:, None]).unbind(-1)
    # A point that a trial step puts behind the camera must cost much instead of projecting upside down.
    depth = (-z).clamp_min(1.0)
    projected = torch.stack([x, y], -1) / depth[..., None]
    zero = torch.zeros_like(x)
    by_x, by_y = torch.stack([1 / depth, zero, x / depth**2], -1), torch.stack([zero, 1 / depth, y / depth**2], -1)
    by_point = torch.stack([by_x, by_y], -2)
    # d(exp(w) p) = w x p, so the gradient by w is p x (gradient by the point).
    by_rotation = torch.linalg.cross(rotated[:, :, None].expand_as(by_point), by_point)
    return projected - rays_BN2, torch.cat([by_rotation, by_point], -1)


def _fit_expression(
    neutral_BN3: Tensor, basis_EN3: Tensor, landmarks_BN2: Tensor, camera: Camera, ridge: float, sparsity: float
) -> Tensor:
    """Elastic net in the box [0, 1] on the distance in mm from each landmark to its ray, for a fixed camera.

    A point (x, y, z) lies on the ray (u, v) where x + u z = 0 and y + v z = 0: linear in the expression.
    """
    rays = (landmarks_BN2 - camera.principal_point[:, None]) / camera.focal[:, None, None]
    rotation = rotation_matrix(camera.rotation)
    to_residual = torch.cat(
        [torch.eye(2, device=rays.device, dtype=rays.dtype).expand(*rays.shape, 2), rays[..., None]], -1
    )
    to_residual = to_residual * _weights(rays).sqrt()[:, None, None]
    moved = neutral_BN3 @ rotation.mT + camera.translation[:, None]
    offset = torch.einsum("bnij,bnj->bni", to_residual, moved).flatten(1)
    design = torch.einsum("bnij,bjk,enk->bnie", to_residual, rotation, basis_EN3).flatten(1, 2)
    normal = design.mT @ design + ridge * torch.eye(design.shape[-1], device=design.device, dtype=design.dtype)
    # In the box, where e >= 0, the sum of absolute values is linear.
    return _box_least_squares(normal, -(design.mT @ offset[..., None])[..., 0] - sparsity)


def _box_least_squares(normal_BEE: Tensor, right_BE: Tensor, iterations: int = 100) -> Tensor:
    """Minimise x'Ax / 2 - b'x over [0, 1]^E by accelerated projected gradient (Beck & Teboulle 2009)."""
    step = 1 / torch.linalg.eigvalsh(normal_BEE)[:, -1:]
    x = ahead = torch.zeros_like(right_BE)
    for k in range(iterations):
        gradient = (normal_BEE @ ahead[..., None])[..., 0] - right_BE
        previous, x = x, (ahead - step * gradient).clamp(0, 1)
        ahead = x + k / (k + 3) * (x - previous)
    return x
