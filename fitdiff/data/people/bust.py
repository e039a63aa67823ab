"""A crude bust behind the face: skull with hair, ears, neck, shoulders, so that a portrait is not a floating mask.

Not part of the truth of a sample, only of its pictures: it is drawn behind the face, at a lower resolution, and no
landmark, map or code depends on it. The skull begins at the outer edge of the face's own mesh and its own colours.

Legend of shape suffixes: N views · M vertices of the face's edge · K rings · V vertices of the bust · T texture side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from fitdiff.colour import srgb_to_linear
from fitdiff.data.people.views import Views
from fitdiff.data.skin_hair import Hairline
from fitdiff.shape_model.anny_population import Population
from fitdiff.types import FaceMaps, TensorRecord, Topology

SKULL_CENTRE = (0.0, 25.0, -70.0)
SKULL_HEIGHT, SKULL_DEPTH = 104.0, 96.0
"""mm, semi-axes; the width is that of the face's edge."""

RINGS = 12
TORSO = (
    (-30, -74, 0.90, 0.90, 0), (-80, -75, 0.92, 0.92, 0), (-105, -78, 0.96, 0.96, 0), (-122, -82, 1.0, 1.0, 0.03),
    (-136, -86, 1.0, 1.0, 0.12), (-148, -90, 1.0, 1.0, 0.30), (-158, -93, 1.0, 1.0, 0.52), (-170, -95, 1.0, 1.0, 0.74),
    (-190, -97, 1.0, 1.0, 0.90), (-230, -98, 1.0, 1.0, 1.0), (-500, -98, 1.0, 1.0, 1.0),
)  # fmt: skip
"""Rings of neck and shoulders: y and z of the middle in mm, factors of the neck's half width and half depth, and the
share of the shoulders' in both."""

COLUMNS = 33
STRIPS = {"skull": (0, 32), "torso": (32, 48), "ears": (48, 52), "curtain": (52, 64)}
TEXTURE = 64
"""Rows of the texture that each part has, of `TEXTURE` in all."""


@dataclass(frozen=True)
class Wearer(TensorRecord):
    """What the bust takes from the person, a row for each view.

    Attributes:
        hair: (N, 3) linear colour. hairiness: (N,) 0 bald to 1. long: (N,) 1 where hair falls beside the face.
        male, weight: (N,) in [0, 1].
    """

    hair: Tensor
    hairiness: Tensor
    long: Tensor
    male: Tensor
    weight: Tensor

    @classmethod
    def of(cls, people: Population, hairline: Hairline) -> Wearer:
        """Of people and the scalp hair that their skin shows."""
        long = (hairline.bottom < -100).float()
        return cls(hairline.colour, hairline.opacity, long, people.gender, people.weight)


class Bust(nn.Module):
    """Vertices and maps of the bust for faces of one topology.

    Args:
        topology: of the face, whose longest open edge is where the bust begins.
        mean: (V, 3) mm, of the mean face.
    """

    def __init__(self, topology: Topology, mean: Tensor) -> None:
        super().__init__()
        edge = outer_edge(topology.faces)[::2]
        self.register_buffer("edge", torch.cat([edge, edge[:1]]), persistent=False)
        inwards = 0.97 * (topology.uv[self.edge] - 0.5) + 0.5
        self.register_buffer("edge_uv", inwards, persistent=False)
        self.register_buffer("edge_heights", mean[self.edge, 1], persistent=False)
        columns = {"skull": len(self.edge), "torso": COLUMNS, "ears": COLUMNS, "curtain": COLUMNS}
        rows = {"skull": RINGS + 2, "torso": len(TORSO), "ears": 7, "curtain": 9}
        grids = [("skull", 1), ("torso", -1), ("ears", -1), ("ears", -1), ("curtain", -1)]
        faces, uvs, first = [], [], 0
        for name, side in grids:
            faces.append(first + _grid_faces(rows[name], columns[name], side))
            uvs.append(_grid_uv(rows[name], columns[name], STRIPS[name]))
            first += rows[name] * columns[name]
        corners = torch.zeros(68, 3, dtype=torch.int64)
        self.topology = Topology(torch.cat(faces), torch.cat(uvs), corners, torch.ones(68, 3) / 3)
        angle = torch.linspace(0, 2 * math.pi, COLUMNS)
        self.register_buffer("circle", torch.stack([angle.sin(), angle.cos()], 1), persistent=False)
        self.register_buffer("torso", torch.tensor(TORSO), persistent=False)

    def forward(self, views: Views, face_NV3: Tensor, maps: FaceMaps, wearer: Wearer) -> tuple[Tensor, FaceMaps]:
        """Vertices (N, V, 3) mm in head space, and maps (N, 3, T, T).

        Args:
            face_NV3: vertices of the face. maps: of the face, batch N.
        """
        draws = views.of_person.draws("bust")
        draws.uniform()  # whether there is a bust at all
        volume = wearer.hairiness * (draws.uniform(3.0, 16.0) + wearer.long * draws.uniform(0.0, 16.0))
        length = draws.uniform(-190.0, -40.0)
        cloth = torch.stack([draws.uniform(0.15, 0.85) for _ in range(3)], 1) * draws.uniform(0.2, 1.0)[:, None]
        cloth = srgb_to_linear(torch.lerp(cloth.mean(1, keepdim=True).expand_as(cloth), cloth, 0.6))
        edge = face_NV3[:, self.edge]
        skull, hair_cover = self._skull(edge, volume)
        width = edge[..., 0].abs().amax(1)
        ends = 12 * views.of_person.normals("threads", (COLUMNS,))
        curtain = self._curtain(width, volume, length, ends, wearer)
        parts = [skull, self._torso(wearer), self._ear(width, -1), self._ear(width, 1), curtain]
        edge_colour = self._edge_colours(maps)
        return torch.cat(parts, 1), self._maps(views, edge_colour, hair_cover, cloth, wearer)

    def _skull(self, edge_NM3: Tensor, volume: Tensor) -> tuple[Tensor, Tensor]:
        """The ellipsoid from the face's edge to the back of the head, (N, K * M, 3), and where it bears hair (N, K, M).

        Directions turn from each vertex of the edge to the back, at the ellipsoid's radius; hair lies on top.
        """
        width = edge_NM3[..., 0].abs().amax(1)
        axes = torch.stack([width + 1, torch.full_like(width, SKULL_HEIGHT), torch.full_like(width, SKULL_DEPTH)], 1)
        centre = edge_NM3.new_tensor(SKULL_CENTRE)
        scaled = (edge_NM3 - centre) / axes[:, None]
        radius = scaled.norm(dim=-1)
        start = scaled / radius[..., None]
        back = start.new_tensor([0.0, 0.0, -1.0])
        turn = torch.linspace(0, 1, RINGS + 1, device=edge_NM3.device)[:, None]
        angle = (start @ back).clamp(-0.999, 0.999).acos()[:, None]
        weights = torch.stack([(angle * (1 - turn)).sin(), (angle * turn).sin()]) / angle.sin()
        direction = weights[0][..., None] * start[:, None] + weights[1][..., None] * back
        radii = 1 + (radius[:, None] - 1) * (1 - turn).square()
        cover = torch.sigmoid((direction[..., 1] - 0.1) / 0.07)
        lift = volume[:, None, None] * cover * (1 - torch.exp(-5 * turn)) * (0.7 + 0.5 * direction[..., 1].clamp_min(0))
        points = direction * radii[..., None] * axes[:, None, None] + direction * lift[..., None]
        # A ring under the face's outline, so that nothing shows through where it is feathered.
        under = edge_NM3 * edge_NM3.new_tensor([0.88, 0.88, 1.0]) - edge_NM3.new_tensor([0.0, 0.0, 4.0])
        return torch.cat([under[:, None], points + centre], 1).flatten(1, 2), cover

    def _torso(self, wearer: Wearer) -> Tensor:
        """Neck and shoulders: elliptic rings round an upright axis."""
        neck = 46 + 8 * wearer.male + 7 * wearer.weight
        shoulders = 160 + 35 * wearer.male + 25 * wearer.weight
        y, z, wide, deep, share = self.torso.unbind(1)
        across = torch.lerp(neck[:, None] * wide, shoulders[:, None].expand(-1, len(y)), share)
        along = torch.lerp(neck[:, None] * deep, 0.55 * shoulders[:, None].expand(-1, len(y)), share)
        x = across[..., None] * self.circle[:, 0]
        depth = along[..., None] * self.circle[:, 1] + z[:, None]
        return torch.stack([x, y[:, None].expand_as(x), depth], -1).flatten(1, 2)

    def _ear(self, width: Tensor, side: int) -> Tensor:
        """A flat ellipsoid that stands off the head."""
        polar = torch.linspace(0.05, math.pi - 0.05, 7, device=width.device)[:, None]
        x, z = 6 * polar.sin() * self.circle[:, 0], 15 * polar.sin() * self.circle[:, 1]
        y = (30 * polar.cos()).expand_as(x)
        turned = torch.stack([0.85 * x - side * 0.5 * z, y, 0.5 * side * x + 0.85 * z - 0.15 * y], -1).flatten(0, 1)
        centre = torch.stack([side * (width + 2), torch.full_like(width, 6.0), torch.full_like(width, -66.0)], 1)
        return turned + centre[:, None]

    def _curtain(self, width: Tensor, volume: Tensor, length: Tensor, ends: Tensor, wearer: Wearer) -> Tensor:
        """Long hair behind face and neck; without it the rings shrink into the head."""
        down = torch.linspace(0, 1, 9, device=width.device)
        y = torch.lerp(
            torch.full_like(length, 75.0)[:, None, None], length[:, None, None] + ends[:, None], down[:, None]
        )
        swing = 1 + 0.18 * (math.pi * down).sin()
        across = (width + volume)[:, None] * swing * (0.86 + 0.14 * (4 * down).clamp_max(1))
        x = across[..., None] * self.circle[:, 0]
        z = 62 * self.circle[:, 1].expand_as(x) - 100
        hidden = (1 - wearer.long * (wearer.hairiness > 0.5))[:, None, None, None]
        points = torch.stack([x, y, z], -1)
        return torch.lerp(points, points.new_tensor(SKULL_CENTRE), hidden.expand_as(points)).flatten(1, 2)

    def _edge_colours(self, maps: FaceMaps) -> Tensor:
        """(N, 3, M) the face's own diffuse albedo where the bust begins."""
        grid = (2 * self.edge_uv - 1)[None, None].expand(len(maps.normals), -1, -1, -1)
        return nnf.grid_sample(maps.diffuse_albedo, grid, padding_mode="border", align_corners=False)[:, :, 0]

    def _maps(self, views: Views, edge: Tensor, hair_cover: Tensor, cloth: Tensor, wearer: Wearer) -> FaceMaps:
        """Textures: skin of the colour at the jaw, hair in threads, cloth from the collar down."""
        n = len(edge)
        threads = views.of_person.normals("threads", (2, 1, TEXTURE))
        low = self.edge_heights <= self.edge_heights.quantile(0.35)
        skin = edge[..., low].mean(-1)[..., None, None]
        thread = 1 + 0.22 * threads[:, :1] + 0.1 * threads[:, 1:]
        hair = wearer.hair[..., None, None] * thread.clamp(0.4, 1.7)
        rows = torch.linspace(0, 1, 32, device=edge.device)[:, None]
        cover = nnf.interpolate(hair_cover[:, None], (32, TEXTURE), mode="bilinear", align_corners=True)
        cover = cover * wearer.hairiness[:, None, None, None]
        begin = nnf.interpolate(edge[:, :, None], (1, TEXTURE), mode="bilinear", align_corners=True)
        grown = torch.lerp(skin.expand(-1, -1, 32, TEXTURE), hair.expand(-1, -1, 32, -1), cover)
        skull = torch.lerp(begin.expand_as(grown), grown, (rows / 0.12).clamp_max(1))
        down = torch.linspace(0, 1, 16, device=edge.device)[:, None]
        shade = 0.45 + 0.55 * ((down - 0.1) / 0.3).clamp(0, 1)
        collar = torch.sigmoid((down - 0.42) / 0.02)
        neck = (skin * shade).expand(-1, -1, 16, TEXTURE)
        torso = torch.lerp(neck, cloth[..., None, None].expand_as(neck), collar)
        ears = (0.9 * skin).expand(-1, -1, 4, TEXTURE)
        diffuse = torch.cat([skull, torso, ears, (0.75 * hair).expand(-1, -1, 12, -1)], 2)
        up = diffuse.new_tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(n, -1, TEXTURE, TEXTURE)
        return FaceMaps(diffuse.clamp(0, 1), torch.full_like(diffuse, 0.2), up)


def outer_edge(faces_F3: Tensor) -> Tensor:
    """Vertex ids of the longest open edge of a mesh, in the order in which its triangles run along it."""
    directed = torch.cat([faces_F3[:, [0, 1]], faces_F3[:, [1, 2]], faces_F3[:, [2, 0]]])
    _, inverse, count = torch.unique(directed.sort(1).values, dim=0, return_inverse=True, return_counts=True)
    following = dict(directed[count[inverse] == 1].tolist())
    loops = []
    while following:
        start, vertex = following.popitem()
        loops.append([start])
        while vertex != start:
            loops[-1].append(vertex)
            vertex = following.pop(vertex)
    if not loops:
        raise ValueError("the face's mesh is closed: it has no edge for a bust to begin at; set augmentation.bust=0")
    return torch.tensor(max(loops, key=len))


def _grid_faces(rows: int, columns: int, side: int) -> Tensor:
    """(F, 3) triangles of a grid of vertices; `side` is -1 where they must face the other way."""
    corner = (torch.arange(rows - 1)[:, None] * columns + torch.arange(columns - 1)).flatten()
    a, b, c, d = corner, corner + 1, corner + columns, corner + columns + 1
    faces = torch.cat([torch.stack([a, c, b], 1), torch.stack([b, c, d], 1)])
    return faces if side > 0 else faces.flip(1)


def _grid_uv(rows: int, columns: int, strip: tuple[int, int]) -> Tensor:
    """(V, 2) from the first to the last texel centre of a strip of rows."""
    u = torch.linspace(0.5, TEXTURE - 0.5, columns) / TEXTURE
    v = torch.linspace(strip[0] + 0.5, strip[1] - 0.5, rows) / TEXTURE
    return torch.stack([u.expand(rows, -1), v[:, None].expand(-1, columns)], -1).flatten(0, 1)
