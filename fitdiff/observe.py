"""From a photo to a fitting problem: find the face, align it, and make the first estimate of its scene."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from fitdiff.alignment.camera import estimate_focal, estimate_pose_and_expression
from fitdiff.alignment.crop import crop_transform
from fitdiff.alignment.face import DetectedFace, FaceCrop, find_face, square_crop
from fitdiff.alignment.photo import Photo
from fitdiff.colour import srgb_to_linear
from fitdiff.diffusion.sampler import conditioned
from fitdiff.fitting import LIGHT_STRENGTH, observed_features
from fitdiff.types import Lighting, Observation, Scene

LIGHTS = ((0, 10), (-60, 20), (60, 20), (0, 70), (0, -40))
"""(azimuth, elevation) in degrees of the lights that a fit can mix: their sum spans what a face in a photo shows."""


def observe(
    photos: Sequence[Photo], model: Any, detector: Any, landmark_detector: Any, size: int
) -> tuple[Observation, FaceCrop, list[str]]:
    """Find and crop the face of each photo.

    Returns:
        What `observe_faces` gives, and notes.

    Raises:
        PhotoError: a photo has no usable face.
    """
    faces = [find_face(photo, detector, landmark_detector) for photo in photos]
    return *observe_faces(faces, model, size), [note for face in faces for note in face.notes]


def observe_faces(faces: Sequence[DetectedFace], model: Any, size: int) -> tuple[Observation, FaceCrop]:
    """Crop faces to `size` pixels a side: the observation on the model's device, and what leads back to the photos."""
    crops = FaceCrop.cat([square_crop(face, size) for face in faces]).to(model.device)
    transform = crop_transform(model.identity, crops.landmarks)
    features = observed_features(model, crops.image, transform)
    return Observation(crops.image, crops.landmarks, transform, features), crops


@torch.no_grad()
def expected_z(model: Any, embedding_BD: Tensor, draws: int = 8) -> Tensor:
    """(B, N) the denoiser's mean estimate of z given the embedding, from its first, noisiest step.

    There z_t holds next to nothing of z, so z0_hat is E[z | V]; averaging a few noises removes what is left of them.
    Everybody gets the same noises: a photo's first scene does not depend on what it is batched with.
    """
    schedule = model.schedule
    t = schedule.steps - 1
    generator = torch.Generator().manual_seed(0)
    n = len(embedding_BD)
    noise = torch.randn(draws, model.latent.length, generator=generator).to(model.device).repeat_interleave(n, 0)
    eps = conditioned(model.denoiser, embedding_BD.repeat(draws, 1))(
        noise, torch.full((draws * n,), t, device=model.device)
    )
    return schedule.predict_z0(noise, t, eps).clamp(-4, 4).unflatten(0, (draws, n)).mean(0)


def first_scene(model: Any, observation: Observation, principal_B2: Tensor, focal_B: Tensor) -> Scene:
    """Camera and expression from the landmarks, light from the pixels, both on the face that the embedding suggests.

    Args:
        principal_B2: NDC of the optical axis in the crop. focal_B: NDC; NaN where unknown.
    """
    z = expected_z(model, observation.features.embedding)
    identity, _ = model.latent.unpack(z)
    with torch.no_grad():
        neutral = model.shape_model.topology.landmarks(model.shape_model(identity))
    focal = estimate_focal(neutral, observation.landmarks, focal_B)
    camera, expression = estimate_pose_and_expression(
        model.shape_model, observation.landmarks, focal, principal_B2, identity
    )
    with torch.no_grad():
        surface = model.renderer.surface(
            model.shape_model(identity, expression), model.maps(z), camera, observation.image.shape[-1]
        )
        lighting = estimate_lighting(observation.image, surface.diffuse_albedo, surface.normals, surface.mask)
    return Scene(camera, halfway_to_usual(lighting), expression)


def halfway_to_usual(lighting: Lighting) -> Lighting:
    """Scale lights to the geometric mean of their strength and the usual one.

    A photo that is twice as bright as face and usual light explain has, by halves, stronger light and lighter skin than
    expected: the fit decides the rest.
    """
    strength = lighting.ambient.mean(1) + lighting.colours.mean(2).sum(1)
    scale = (LIGHT_STRENGTH / strength.clamp_min(1e-3)).sqrt()
    return replace(lighting, ambient=lighting.ambient * scale[:, None], colours=lighting.colours * scale[:, None, None])


def fixed_lights(batch: int, device: torch.device | str) -> Tensor:
    """(B, L, 3) directions of `LIGHTS` in camera space."""
    angles = torch.tensor(LIGHTS, device=device) * (math.pi / 180)
    azimuth, elevation = angles.unbind(1)
    directions = [azimuth.sin() * elevation.cos(), elevation.sin(), azimuth.cos() * elevation.cos()]
    return torch.stack(directions, 1).expand(batch, -1, -1)


def estimate_lighting(
    image_B3SS: Tensor, albedo_B3SS: Tensor, normals_B3SS: Tensor, mask_B1SS: Tensor, keep: float = 0.8
) -> Lighting:
    """Non-negative colours of an ambient and the fixed lights that best explain a photo, given its surface.

    `photo = albedo (ambient + sum_l max(0, N.L_l) c_l)` in linear light is linear in the colours: least squares under
    c >= 0, twice, the second time without the pixels that fit worst (hair, shadows, highlights), and with a small pull
    towards ambient light alone, which decides what the photo does not.

    Args:
        image_B3SS: sRGB. albedo_B3SS: linear. normals_B3SS: camera space. mask_B1SS: where the surface is.
        keep: share of the pixels of the second fit.
    """
    directions = fixed_lights(len(image_B3SS), image_B3SS.device)
    photo = srgb_to_linear(image_B3SS)
    colours = []
    for b in range(len(photo)):
        inside = mask_B1SS[b, 0] > 0.5
        cosines = (normals_B3SS[b][:, inside].T @ directions[b].T).clamp_min(0)
        basis = torch.cat([torch.ones_like(cosines[:, :1]), cosines], 1).double().cpu().numpy()
        albedo, target = (x[b][:, inside].double().cpu().numpy() for x in (albedo_B3SS, photo))
        everything = np.ones(basis.shape[0], bool)
        first = _solve(basis, albedo, target, everything)
        residual = np.abs(albedo * (basis @ first).T - target).sum(0)
        colours.append(_solve(basis, albedo, target, residual <= np.quantile(residual, keep)))
    solved = torch.from_numpy(np.stack(colours)).to(image_B3SS)
    return Lighting(solved[:, 0], directions.to(image_B3SS), solved[:, 1:])


def _solve(basis: np.ndarray, albedo: np.ndarray, target: np.ndarray, use: np.ndarray, ridge: float = 0.1) -> Any:
    """(1 + L, 3) colours; `ridge`, relative to the pixels' weight, pulls towards ambient light alone."""
    n = basis.shape[1]
    columns = []
    for channel in range(3):
        a, b = basis[use] * albedo[channel, use, None], target[channel, use]
        ambient_alone = np.zeros(n)
        ambient_alone[0] = b.sum() / max(a[:, 0].sum(), 1e-9)
        pull = np.eye(n) * np.sqrt(ridge * (a**2).sum() / n)
        columns.append(nnls(np.vstack([a, pull]), np.concatenate([b, pull @ ambient_alone]))[0])
    return np.stack(columns, 1)
