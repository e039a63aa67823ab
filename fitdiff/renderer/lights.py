"""Light on surface points: spherical harmonics, lamps near and far, and maps of the surroundings.

Everything is in *received light*, irradiance / pi, linear RGB (see `types.Lighting`): a white Lambertian surface that
receives 1 has radiance 1. All axes are camera space's.

Spherical harmonics. The basis is real, with mean square 1 over the sphere, so that order 0 is the constant 1 and its
coefficient is `Lighting.ambient`. In the order of `Lighting.harmonics`, for a unit direction (x, y, z):

    order 1   sqrt(3) (y, z, x)
    order 2   sqrt(15) (x y, y z),  sqrt(5)/2 (3 z^2 - 1),  sqrt(15) x z,  sqrt(15)/2 (x^2 - y^2)

(the usual Y_lm for m = -l..l, times sqrt(4 pi)). A surface receives the surroundings' radiance convolved with the
clamped cosine, which scales orders 0, 1 and 2 by 1, 2/3 and 1/4; orders above 2 carry less than 1% of the energy of
what is received (Ramamoorthi and Hanrahan 2001, equations 8 to 10). `harmonics` holds the coefficients after that.

Longitude-latitude maps show the surroundings as an unturned head sees them, neither mirrored nor turned: the middle
column is straight ahead (+z, where the camera is), a quarter of the width from the left is the subject's left (+x), the
top row is up (+y). At (u, v) in UV space the direction is (sin a cos e, sin e, cos a cos e), a = 2 pi (1/2 - u) and
e = pi (1/2 - v).

Legend: P points, lists are channels first · B images, of `counts` points each · L lamps · H rows of a map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as nnf
from torch import Tensor

COSINE_GAINS = (2 / 3,) * 3 + (1 / 4,) * 5
"""What a Lambertian surface receives of each harmonic of the surroundings' radiance, in the order of `harmonics`."""


def unit(vectors: Tensor, dim: int) -> Tensor:
    """Normalise along `dim`; vectors shorter than 1e-10 shrink to zero, with a finite gradient."""
    return vectors * vectors.square().sum(dim, keepdim=True).clamp_min(1e-20).rsqrt()


def harmonic_basis(directions_3P: Tensor) -> Tensor:
    """(8, P) harmonics of orders 1 and 2, as the module's head lists them, of unit directions. Differentiable."""
    x, y, z = directions_3P
    order_2 = (x * y, y * z, (3 * z * z - 1) / 12**0.5, x * z, (x * x - y * y) / 2)
    return torch.cat([3**0.5 * torch.stack([y, z, x]), 15**0.5 * torch.stack(order_2)])


def from_surroundings(
    ambient_3P: Tensor, harmonics_B83: Tensor | None, normals_3P: Tensor, counts: Sequence[int]
) -> Tensor:
    """Light that points receive from the surroundings, by their normals.

    Truncated at order 2, strong directional light rings below zero on the far side; the sum is clamped at 0 there, so
    the model adds a little energy rather than taking light from the lamps.

    Returns:
        (3, P) received light, not negative where there are harmonics. Differentiable.
    """
    if harmonics_B83 is None:
        return ambient_3P
    runs = zip(harmonics_B83, harmonic_basis(normals_3P).split(tuple(counts), 1), strict=True)
    return (ambient_3P + torch.cat([coefficients.t() @ basis for coefficients, basis in runs], 1)).clamp_min(0)


def from_lamps(
    directions_L3P: Tensor, colours_L3P: Tensor, proximity_LP: Tensor | None, points_3P: Tensor
) -> tuple[Tensor, Tensor]:
    """Where lamps stand and how bright they are, seen from each point.

    With u the unit direction from the head's origin to a lamp, w its proximity and p the point, the lamp is at u / w,
    so that u - w p points at it, and the inverse square law makes it 1 / |u - w p|^2 times as bright as at the origin.
    Both are smooth at w = 0, a lamp infinitely far away.

    Args:
        directions_L3P: of any length. colours_L3P: received at the head's origin. proximity_LP: 1/mm; None is 0.
        points_3P: mm, relative to the head's origin.

    Returns:
        (L, 3, P) unit directions to the lamps, and (L, 3, P) light received by a surface that faces them.
        Differentiable.
    """
    directions = unit(directions_L3P, 1)
    if proximity_LP is None:
        return directions, colours_L3P
    to_lamp = directions - proximity_LP[:, None] * points_3P
    inverse_square = to_lamp.square().sum(1, keepdim=True).clamp_min(1e-6).reciprocal()
    return to_lamp * inverse_square.sqrt(), colours_L3P * inverse_square


def reflected(reflections_B3HW: Tensor, directions_3P: Tensor, counts: Sequence[int]) -> Tensor:
    """Look directions up in longitude-latitude maps, bilinearly and round the seam.

    Returns:
        (3, P) linear radiance. Differentiable in maps and directions.
    """
    width = reflections_B3HW.shape[3]
    wrapped = nnf.pad(reflections_B3HW, (1, 1, 0, 0), mode="circular")
    u, v = direction_to_uv(directions_3P)
    grid = torch.stack([(2 * width * u + 2) / (width + 2) - 1, 2 * v - 1], 1)[None, None]
    runs = zip(wrapped.split(1), grid.split(tuple(counts), 2), strict=True)
    looked_up = [nnf.grid_sample(image, part, padding_mode="border", align_corners=False) for image, part in runs]
    return torch.cat(looked_up, -1)[0, :, 0]


def direction_to_uv(directions_3P: Tensor) -> tuple[Tensor, Tensor]:
    """Directions of any length -> u and v of longitude-latitude maps, (P,) each in [0, 1]. Differentiable off +-y."""
    x, y, z = directions_3P
    level = x * x + z * z
    z = torch.where(level > 1e-12, z, 1e-6)
    return 0.5 - torch.atan2(x, z) / (2 * torch.pi), 0.5 - torch.atan2(y, level.clamp_min(1e-12).sqrt()) / torch.pi


def uv_to_direction(u: Tensor, v: Tensor) -> Tensor:
    """u and v of any one shape -> (3, ...) unit directions: the inverse of `direction_to_uv`."""
    azimuth, elevation = 2 * torch.pi * (0.5 - u), torch.pi * (0.5 - v)
    level = elevation.cos()
    return torch.stack([azimuth.sin() * level, elevation.sin(), azimuth.cos() * level])
