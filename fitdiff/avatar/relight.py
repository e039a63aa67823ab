"""Standard lights and cameras, so that pictures of different people and fits can be compared.

Angles are seen from the camera: azimuth 0 is the camera's own position, positive to the right of the image, negative
to the left; elevation is positive upwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fitdiff.geometry import rotation_matrix
from fitdiff.types import Camera, FaceMaps, Lighting, Renderer, Rendering, Scene

PORTRAIT_FOCAL = 85 / (36**2 + 24**2) ** 0.5 * 2 * 2**0.5
"""NDC focal length (5.56, a field of view of 20 degrees) of a square image that an 85 mm portrait lens would take.

Lenses of different formats are compared by the diagonal: 85 mm belongs to the 43.3 mm diagonal of 36 x 24 mm film, and
a square of that diagonal has a half side of 43.3 / (2 sqrt 2) mm.
"""


def light_from(
    azimuth: float,
    elevation: float,
    *,
    batch: int = 1,
    intensity: float = 0.9,
    ambient: float = 0.08,
    device: torch.device | str = "cpu",
) -> Lighting:
    """One white directional light that stays with the camera, and a little ambient light.

    Args:
        azimuth, elevation: degrees, see the module's head; (-60, 15) lights the left half of the image.
        batch: number of equal copies.
        intensity, ambient: linear radiance of the light and of the surroundings.
        device: of the result.
    """
    return _lighting([(azimuth, elevation, intensity)], ambient, batch, device)


def studio_lighting(batch: int = 1, device: torch.device | str = "cpu") -> Lighting:
    """The neutral light of every standard picture: a key from the upper left, a weaker fill, a soft top light."""
    return _lighting([(-35, 30, 0.45), (40, 10, 0.2), (0, 65, 0.15)], 0.3, batch, device)


def frontal_camera(
    vertices_BV3: Tensor, *, yaw: float = 0.0, fill: float = 0.92, focal: float = PORTRAIT_FOCAL
) -> Camera:
    """A portrait camera that looks at the face and just frames it.

    The centre of the bounding box lies on the optical axis, and the distance d is the smallest at which every vertex
    stays inside `fill` of the half side: focal |x| / (d - z) <= fill gives d = max(z + focal max(|x|, |y|) / fill).
    Pass neutral vertices, so that an expression does not move the camera.

    Args:
        vertices_BV3: (B, V, 3) mm, head space.
        yaw: degrees; positive turns the face towards the right of the image.
        fill: share of the image that the face spans, in (0, 1].
        focal: NDC focal length.

    Returns:
        Camera of batch B; no gradient.
    """
    vertices = vertices_BV3.detach()
    rotation = vertices.new_tensor([0.0, math.radians(yaw), 0.0]).expand(len(vertices), 3)
    turned = vertices @ rotation_matrix(rotation).transpose(1, 2)
    centre = (turned.amin(1) + turned.amax(1)) / 2
    x, y, z = (turned - centre[:, None]).unbind(-1)
    distance = (z + focal / fill * torch.maximum(x.abs(), y.abs())).amax(1)
    translation = -centre - distance[:, None] * vertices.new_tensor([0.0, 0.0, 1.0])
    return Camera(
        rotation, translation, distance.new_full((len(vertices),), focal), vertices.new_zeros(len(vertices), 2)
    )


def standard_views(
    renderer: Renderer, vertices_BV3: Tensor, neutral_BV3: Tensor, maps: FaceMaps, scene: Scene, size: int
) -> dict[str, Rendering]:
    """The renderings that `pictures.comparison` shows, without gradients.

    Args:
        renderer: of the avatar's topology.
        vertices_BV3: (B, V, 3) mm with the photo's expression.
        neutral_BV3: (B, V, 3) mm with the neutral expression.
        maps: batch B.
        scene: of the photos.
        size: side of the images in pixels: the photo's.

    Returns:
        `fit` in the photo's scene, `relit_left` in its camera under a light from the left, `frontal` neutral in studio
        light.
    """
    batch, device = len(vertices_BV3), vertices_BV3.device
    left = light_from(-60, 15, batch=batch, device=device)
    studio = studio_lighting(batch, device)
    with torch.no_grad():
        return {
            "fit": renderer(vertices_BV3, maps, scene.camera, scene.lighting, size),
            "relit_left": renderer(vertices_BV3, maps, scene.camera, left, size),
            "frontal": renderer(neutral_BV3, maps, frontal_camera(neutral_BV3), studio, size),
        }


def _lighting(
    lights: Sequence[tuple[float, float, float]], ambient: float, batch: int, device: torch.device | str
) -> Lighting:
    """Lights as (azimuth, elevation, intensity)."""
    azimuth, elevation, intensity = torch.tensor(lights, device=device, dtype=torch.float32).unbind(1)
    azimuth, elevation = torch.deg2rad(azimuth), torch.deg2rad(elevation)
    directions = torch.stack([azimuth.sin() * elevation.cos(), elevation.sin(), azimuth.cos() * elevation.cos()], 1)
    colours = intensity[:, None].expand(-1, 3)
    return Lighting(
        torch.full((batch, 3), ambient, device=device), directions.repeat(batch, 1, 1), colours.repeat(batch, 1, 1)
    )
