"""Things before the face: glasses, strands of hair, a hand, a mask or scarf.

Glasses, hair and hand are drawn on planes in head space, so that they turn with the head, in perspective; masks and
scarves are laid over the maps before rendering, so that they bend and are lit as the face is. None of them changes what
is stored about the person.

Legend of shape suffixes: N views · S side of the picture · R map side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fitdiff.colour import srgb_to_linear
from fitdiff.data.atlas import UvAtlas
from fitdiff.data.people.options import Augmentation
from fitdiff.data.people.views import Views
from fitdiff.geometry import project, rotation_matrix, to_camera_space
from fitdiff.randomness import Draws
from fitdiff.types import Camera, FaceMaps, Lighting, TensorRecord

EYE_CORNERS = (36, 39, 42, 45)
NOSE_BRIDGE, NOSE_TIP, BROW_TOPS = 27, 30, (19, 24)
STRANDS = 32
FINGERS = ((-26.0, 56.0, 7.5), (-9.0, 70.0, 8.5), (9.0, 66.0, 8.5), (26.0, 50.0, 7.5))
"""Across, length and radius in mm."""


@dataclass(frozen=True)
class Worn(TensorRecord):
    """Which views have what, (N,) bool."""

    glasses: Tensor
    strands: Tensor
    hand: Tensor
    cover: Tensor

    @classmethod
    def draw(cls, views: Views, options: Augmentation) -> Worn:
        """By the shares in the options."""
        draws = views.draws("occluders")
        shares = (options.glasses, options.hair_strands, options.hand, options.cover)
        return cls(*(draws.uniform() < share for share in shares))

    def any(self) -> Tensor:
        """(N,) whether anything is before the face."""
        return self.glasses | self.strands | self.hand | self.cover


@dataclass(frozen=True)
class Sheet:
    """A plane in head space as the pixels see it.

    Attributes:
        x, y: (N, S, S) mm, where the pixels' rays meet the plane. pixel: (N, 1, 1) mm, width of a pixel there.
    """

    x: Tensor
    y: Tensor
    pixel: Tensor

    @classmethod
    def seen(cls, camera: Camera, size: int, origin_N3: Tensor, up_N3: Tensor) -> Sheet:
        """The plane through `origin_N3` along head space's x and along `up_N3`, orthogonal to it."""
        rotation = rotation_matrix(camera.rotation)
        right = torch.zeros_like(up_N3)
        right[:, 0] = 1
        axes = rotation @ torch.stack([right, up_N3], 2)
        origin = rotation @ origin_N3[..., None] + camera.translation[..., None]
        inverse = torch.linalg.inv(torch.cat([axes, origin], 2))
        place = (torch.arange(size, device=origin.device) + 0.5) * (2 / size) - 1
        across = (place - camera.principal_point[:, :1]) / camera.focal[:, None]
        upwards = (-place - camera.principal_point[:, 1:]) / camera.focal[:, None]
        x, y, w = (
            row[:, 0, None, None] * across[:, None] + row[:, 1, None, None] * upwards[..., None] - row[:, 2, None, None]
            for row in inverse.unbind(1)
        )
        pixel = -origin[:, 2:] / camera.focal[:, None, None] * (2 / size)
        return cls(x / w, y / w, pixel)

    def inside(self, distance: Tensor) -> Tensor:
        """Coverage of pixels by where a distance in mm is negative, its edge a pixel wide."""
        return (0.5 - distance / self.pixel).clamp(0, 1)


class Cover(nn.Module):
    """Masks and scarves over mouth and chin, laid over the maps.

    Args:
        atlas: of the maps.
    """

    def __init__(self, atlas: UvAtlas) -> None:
        super().__init__()
        self.register_buffer("position", atlas.position, persistent=False)

    def forward(self, maps: FaceMaps, views: Views, worn_N: Tensor) -> FaceMaps:
        """Maps of batch N with cloth over those of the views that wear one; others stay as they are."""
        rows = worn_N.nonzero()[:, 0]
        if not len(rows):
            return maps
        draws = views[rows].draws("cover")
        x, y, _ = self.position
        edge = draws.uniform(-30.0, 8.0)[:, None, None] - draws.uniform(0.05, 0.3)[:, None, None] * x.abs()
        fold = torch.sin(y / draws.uniform(3.0, 9.0)[:, None, None] + draws.uniform(0.0, 6.0)[:, None, None] + x / 40)
        opacity = torch.sigmoid((edge + 0.8 * fold - y) / 0.8)[:, None]
        colour = srgb_to_linear(_muted(draws, 0.15, 0.95, 0.5))[..., None, None]
        normals = torch.stack([torch.zeros_like(fold), 0.35 * fold, torch.ones_like(fold)], 1)
        cloth = FaceMaps(colour * (1 + 0.12 * fold[:, None]), torch.full_like(colour, 0.1), normals)
        layers = (
            _replaced(below, rows, torch.lerp(below[rows], over.expand_as(below[rows]), opacity))
            for below, over in (
                (maps.diffuse_albedo, cloth.diffuse_albedo),
                (maps.specular_albedo, cloth.specular_albedo),
                (maps.normals, cloth.normals / cloth.normals.norm(dim=1, keepdim=True)),
            )
        )
        return FaceMaps(*layers, maps.occlusion)


@dataclass(frozen=True)
class Sitter(TensorRecord):
    """Who sits before the camera, as far as things are drawn over them.

    Attributes:
        camera, lighting: of batch N. landmarks: (N, 68, 3) mm in head space. skin, hair: (N, 3) linear colours.
    """

    camera: Camera
    lighting: Lighting
    landmarks: Tensor
    skin: Tensor
    hair: Tensor

    @property
    def light(self) -> Tensor:
        """(N, 3, 1, 1) what something receives that faces the camera."""
        directions = self.lighting.directions / self.lighting.directions.norm(dim=-1, keepdim=True).clamp_min(1e-6)
        lamps = (directions[..., 2:].clamp_min(0.15) * self.lighting.colours).sum(1)
        return (self.lighting.ambient + lamps)[..., None, None]


def add_occluders(linear_N3SS: Tensor, views: Views, worn: Worn, sitter: Sitter) -> Tensor:
    """Draw strands of hair, glasses and a hand, in this order, over portraits in linear light."""
    for chosen, part, paint in (
        (worn.strands, "strands", paint_strands),
        (worn.glasses, "glasses", paint_glasses),
        (worn.hand, "hand", paint_hand),
    ):
        rows = chosen.nonzero()[:, 0]
        if len(rows):
            painted = paint(linear_N3SS[rows], views[rows].draws(part), sitter[rows])
            linear_N3SS = _replaced(linear_N3SS, rows, painted)
    return linear_N3SS


def paint_strands(image: Tensor, draws: Draws, sitter: Sitter) -> Tensor:
    """Locks of thin curved strands that fall from the hairline over the forehead."""
    brows = sitter.landmarks[:, BROW_TOPS].mean(1)
    origin = torch.stack([torch.zeros_like(brows[:, 0]), brows[:, 1], brows[:, 2] + 5], 1)
    up = torch.tensor([0.0, 0.93, -0.37], device=image.device).expand_as(origin)
    sheet = Sheet.seen(sitter.camera, image.shape[-1], origin, up)
    part, sweep, density = draws.normal(std=22.0), draws.normal(std=14.0), draws.uniform(0.35, 0.95)
    length = draws.uniform(30.0, 85.0)
    for _ in range(STRANDS):
        root, reach = part + draws.normal(std=18.0), length * draws.uniform(0.5, 1.1)
        slant, bend, width = sweep + draws.normal(std=7.0), draws.normal(std=9.0), draws.uniform(0.3, 1.3)
        root, reach, slant, bend, width = (x[:, None, None] for x in (root, reach, slant, bend, width))
        down = (68 - sheet.y) / reach
        distance = (sheet.x - root - slant * down - bend * down.square()).abs()
        thin = width * (1 - down.clamp(0, 1).square()).sqrt()
        # Thinner than a pixel, a strand covers its share of it.
        opacity = sheet.inside(distance - thin) * (2 * thin / sheet.pixel).clamp(0, 1) * (down > 0) * (down < 1)
        opacity = opacity * (density * (draws.uniform() < density))[:, None, None]
        colour = (sitter.hair * draws.uniform(0.7, 1.4)[:, None])[..., None, None] * sitter.light * 0.8
        image = torch.lerp(image, colour.expand_as(image), opacity[:, None])
    return image


def paint_glasses(image: Tensor, draws: Draws, sitter: Sitter) -> Tensor:
    """Two lenses with rims and a bridge in one plane before the eyes, clear or dark, with a reflection; and temples."""
    eyes = sitter.landmarks[:, EYE_CORNERS]
    apart = (eyes[:, 2:, 0] - eyes[:, :2, 0]).mean(1) / 2
    forward = torch.maximum(sitter.landmarks[:, NOSE_BRIDGE, 2], eyes[..., 2].amax(1)) + draws.uniform(2.0, 6.0)
    origin = torch.stack([eyes[..., 0].mean(1), eyes[..., 1].mean(1) - draws.uniform(0.0, 5.0), forward], 1)
    up = torch.tensor([0.0, 0.995, 0.1], device=image.device).expand_as(origin)
    sheet = Sheet.seen(sitter.camera, image.shape[-1], origin, up)
    wide, high = draws.uniform(21.0, 28.0), draws.uniform(14.0, 24.0)
    power, rim = draws.uniform(2.0, 5.0), torch.exp(draws.uniform(math.log(0.5), math.log(2.8)))
    centre = torch.maximum(apart, wide + draws.uniform(6.0, 9.0))
    bridge_height = draws.uniform(0.1, 0.6) * high
    centre, wide, high, power, rim, bridge_height = (
        x[:, None, None] for x in (centre, wide, high, power, rim, bridge_height)
    )
    across, upwards = (sheet.x.abs() - centre) / wide, sheet.y / high
    ratio = (across.abs() ** power + upwards.abs() ** power).clamp_min(1e-9) ** (1 / power)
    edge = (ratio - 1) * (wide * high).sqrt()
    bridge_line = (sheet.y - bridge_height - 2.5 + 5 * (sheet.x / (centre - wide + 1)).square()).abs()
    bridge = torch.where(sheet.x.abs() < centre - wide, bridge_line - 0.6 * rim, torch.inf)
    frame = torch.maximum(sheet.inside(edge.abs() - rim), sheet.inside(bridge))
    dark = draws.chance(0.2)[:, None]
    clear = torch.full_like(sitter.skin, 0.93)
    tinted = draws.uniform(0.04, 0.5)[:, None] * _muted(draws, 0.6, 1.0, 0.5)
    glass = torch.lerp(clear, tinted, dark)
    lens = sheet.inside(edge)[:, None]
    slope, place, breadth = draws.normal(std=0.6), draws.uniform(-20.0, 20.0), draws.uniform(3.0, 14.0)
    band = (sheet.x.abs() - centre - place[:, None, None] + slope[:, None, None] * sheet.y) / breadth[:, None, None]
    shine = (draws.uniform().square() * 0.22)[:, None, None] * torch.exp(-0.5 * band.square())
    image = image * (1 - lens * (1 - glass[..., None, None])) + lens * shine[:, None] * sitter.light
    colour = srgb_to_linear(_muted(draws, 0.05, 0.6, 0.5))[..., None, None] * sitter.light
    image = torch.lerp(image, colour.expand_as(image), frame[:, None])
    hinge = torch.cat([centre + wide, bridge_height.expand_as(centre), torch.zeros_like(centre)], 1)[..., 0]
    temples = _temples(sitter.camera, image.shape[-1], origin, hinge, rim[:, 0, 0])
    return torch.lerp(image, colour.expand_as(image), temples[:, None])


def _temples(camera: Camera, size: int, origin_N3: Tensor, hinge_N3: Tensor, rim_N: Tensor) -> Tensor:
    """(N, S, S) coverage by the two temples, from the hinges back to the ears, on the side that faces the camera."""
    coverage = torch.zeros(len(origin_N3), size, size, device=origin_N3.device)
    place = (torch.arange(size, device=origin_N3.device) + 0.5) * (2 / size) - 1
    for side in (-1.0, 1.0):
        mirrored = origin_N3.new_tensor([side, 1.0, 1.0])
        front = origin_N3 + hinge_N3 * mirrored
        ear = torch.stack([side * torch.full_like(rim_N, 74.0), front[:, 1] - 4, torch.full_like(rim_N, -62.0)], 1)
        ends = to_camera_space(torch.stack([front, ear], 1), camera)
        (x0, y0), (x1, y1) = (point.unbind(1) for point in project(ends, camera).unbind(1))
        visible = side * rotation_matrix(camera.rotation)[:, 2, 0] > 0.12
        along = torch.stack([x1 - x0, y1 - y0], 1)
        length = along.norm(dim=1).clamp_min(1e-6)
        ax, ay = (along / length[:, None])[..., None, None].unbind(1)
        px, py = place - x0[:, None, None], -place[:, None] - y0[:, None, None]
        beyond = (px * ax + py * ay).clamp_min(0).minimum(length[:, None, None])
        distance = ((px - beyond * ax).square() + (py - beyond * ay).square()).sqrt() * (size / 2)
        width = 0.7 * rim_N * camera.focal / -camera.translation[:, 2] * (size / 2)
        coverage = torch.maximum(coverage, (0.5 + width[:, None, None] - distance).clamp(0, 1) * visible[:, None, None])
    return coverage


def paint_hand(image: Tensor, draws: Draws, sitter: Sitter) -> Tensor:
    """Four fingers and a palm of the person's own skin, round and shaded, from somewhere below or beside the face."""
    side = torch.where(draws.uniform() < 0.5, -1.0, 1.0)
    tip = sitter.landmarks[:, NOSE_TIP]
    origin = torch.stack([side * draws.uniform(5.0, 65.0), draws.uniform(-125.0, -65.0), tip[:, 2] + 4], 1)
    up = torch.tensor([0.0, 1.0, 0.0], device=image.device).expand_as(origin)
    sheet = Sheet.seen(sitter.camera, image.shape[-1], origin, up)
    turn = (side * draws.uniform(-0.2, 0.9))[:, None, None]
    x, y = sheet.x * turn.cos() - sheet.y * turn.sin(), sheet.x * turn.sin() + sheet.y * turn.cos()
    opacity, roundness = torch.zeros_like(x), torch.zeros_like(x)
    bones = [(across, 0.0, 0.04 * across, length, radius) for across, length, radius in FINGERS]
    for across, start, fan, length, radius in [(0.0, -70.0, 0.0, 55.0, 38.0), *bones]:
        reach = length * draws.uniform(0.85, 1.1)[:, None, None]
        along = ((y - start) / reach).clamp(0, 1)
        distance = ((x - across - 6 * fan * along).square() + (y - start - along * reach).square()).sqrt()
        height = (1 - (distance / radius).square()).clamp_min(0).sqrt()
        cover = sheet.inside(distance - radius)
        opacity, roundness = torch.maximum(opacity, cover), torch.lerp(roundness, height, cover)
    skin = (sitter.skin * draws.uniform(0.85, 1.1)[:, None])[..., None, None] * sitter.light
    return torch.lerp(image, skin * (0.3 + 0.7 * roundness[:, None]), opacity[:, None])


def _muted(draws: Draws, low: float, high: float, saturation: float) -> Tensor:
    """(N, 3) colours whose channels lie between low and high, moved towards grey."""
    colour = torch.stack([draws.uniform(low, high) for _ in range(3)], 1)
    return torch.lerp(colour.mean(1, keepdim=True).expand_as(colour), colour, saturation)


def _replaced(values: Tensor, rows: Tensor, new: Tensor) -> Tensor:
    values = values.clone()
    values[rows] = new
    return values
