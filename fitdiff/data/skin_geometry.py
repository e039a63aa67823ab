"""Where each texel lies relative to the parts of the face: the static, person-free half of skin painting.

All lengths are mm of the atlas' chart (`UvAtlas.chart`): `side` to the subject's left or right alike, `up` upwards.

Legend of shape suffixes: R map side · N = R * R texels · P texels of a patch · K points.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from fitdiff.data.atlas import UvAtlas

MIRROR = (
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1), 45, 44, 43, 42, 47, 46, 39, 38, 37, 36,
    41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
)  # fmt: skip
"""The iBUG 68 landmark on the other side of the face."""


class FaceGeometry:
    """Folded chart coordinates of the texels and landmarks of an atlas.

    Attributes:
        side, up: (N,) chart mm; side >= 0 on both halves, up = 0 at the eyes.
        signed: (N,) chart mm, positive on the subject's left.
        texel: (N,) mm, width of a texel: the limit of what can be drawn there.
        position: (3, N) mm head space.
        landmarks: (68, 2) chart mm, made symmetric; those of the subject's left have side > 0 and stand for both.
        landmarks_3d: (68, 3) head-space mm, likewise.
    """

    def __init__(self, atlas: UvAtlas) -> None:
        self.size = atlas.size
        across, down = (atlas.chart_centres(axis) for axis in (0, 1))
        self.signed = across.expand(self.size, -1).flatten()
        self.up = down[:, None].expand(-1, self.size).flatten()
        self.side = self.signed.abs()
        self.texel = (atlas.frame[0] * atlas.frame[2]).sqrt().flatten()
        self.position = atlas.position.flatten(1)
        chart = atlas.landmark_chart
        mirrored = chart[list(MIRROR)] * chart.new_tensor([-1.0, 1.0])
        self.landmarks = (chart + mirrored) / 2
        points = atlas.landmarks
        self.landmarks_3d = (points + points[list(MIRROR)] * points.new_tensor([-1.0, 1.0, 1.0])) / 2

    def at(self, *landmarks: int, side: float = 0.0, up: float = 0.0) -> Tensor:
        """(2,) mean of landmarks, displaced by mm."""
        return self.landmarks[list(landmarks)].mean(0) + self.landmarks.new_tensor([side, up])

    def bump(self, centre_2: Tensor, radii: tuple[float, float]) -> Tensor:
        """(N,) Gaussian exp(-d^2 / 2) with standard deviations (across, up) in mm."""
        across = (self.side - centre_2[0]) / radii[0]
        along = (self.up - centre_2[1]) / radii[1]
        return torch.exp(-0.5 * (across.square() + along.square()))


def smooth_curve(points_KD: Tensor, per_span: int = 8) -> Tensor:
    """Points along a Catmull-Rom spline through the given ones: (1 + (K - 1) per_span, D)."""
    first, last = 2 * points_KD[:1] - points_KD[1:2], 2 * points_KD[-1:] - points_KD[-2:-1]
    a, b, c, d = (torch.cat([first, points_KD, last])[i : len(points_KD) - 1 + i, None] for i in range(4))
    t = (torch.arange(per_span).to(points_KD) / per_span)[None, :, None]
    curve = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return torch.cat([curve.flatten(0, 1), points_KD[-1:]])


def nearest_on_polyline(points_PD: Tensor, polyline_MD: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to a polyline and the arc length at the nearest point, both (P,)."""
    distance = torch.full_like(points_PD[:, 0], float("inf"))
    along = torch.zeros_like(distance)
    passed = 0.0
    for start, end in itertools.pairwise(polyline_MD):
        step = end - start
        length = step.norm()
        share = ((points_PD - start) @ step / length.square()).clamp(0, 1)
        candidate = (points_PD - start - share[:, None] * step).norm(dim=1)
        along = torch.where(candidate < distance, passed + share * length, along)
        distance = torch.minimum(distance, candidate)
        passed = passed + length
    return distance, along


def height_above(side_P: Tensor, up_P: Tensor, curve_M2: Tensor) -> Tensor:
    """How far texels lie above the graph of a curve (side increasing), continued straight beyond its ends: (P,)."""
    x, y = curve_M2.contiguous().unbind(1)
    i = torch.searchsorted(x.contiguous(), side_P.contiguous()).clamp(1, len(x) - 1)
    slope = (y[i] - y[i - 1]) / (x[i] - x[i - 1])
    return up_P - (y[i - 1] + slope * (side_P - x[i - 1]))


def signed_distance(atlas: UvAtlas, region: str, *, whole: bool = False, reach: float = 25.0) -> Tensor:
    """(N,) distance in mm through space to the rim of a region of the mesh, negative inside, cut off at `reach`.

    The region is the triangles with at least one of its vertices, or `whole` ones with all three.

    Raises:
        ValueError: the topology has no such region.
    """
    topology = atlas.topology
    if region not in topology.regions:
        raise ValueError(f"skin needs the region {region!r} of the topology, which has {sorted(topology.regions)}")
    corners = topology.regions[region][topology.faces]
    inside = corners.all(1) if whole else corners.any(1)
    sides = topology.faces[inside][:, [0, 1, 1, 2, 2, 0]].view(-1, 2).sort(1).values
    edges, count = sides.unique(dim=0, return_counts=True)
    rim = atlas.mean[edges[count == 1]]
    distance = distance_to_segments(atlas.position.flatten(1).T, rim[:, 0], rim[:, 1], reach)
    in_texel = inside[atlas.triangle.clamp_min(0)] & atlas.mask
    return torch.where(in_texel.flatten(), -distance, distance)


def distance_to_segments(points_ND: Tensor, start_MD: Tensor, end_MD: Tensor, reach: float) -> Tensor:
    """Distance (N,) from each point to the nearest of a set of segments, or `reach` where that is shorter."""
    low, high = (torch.minimum(start_MD, end_MD).amin(0) - reach, torch.maximum(start_MD, end_MD).amax(0) + reach)
    near = ((points_ND > low) & (points_ND < high)).all(1).nonzero().squeeze(1)
    points = points_ND[near]
    nearest = torch.full_like(points[:, 0], reach**2)
    for start, step in zip(start_MD, end_MD - start_MD, strict=True):
        share = ((points - start) @ step / step.square().sum()).clamp(0, 1)
        nearest = torch.minimum(nearest, (points - start - share[:, None] * step).square().sum(1))
    distance = torch.full_like(points_ND[:, 0], reach)
    distance[near] = nearest.sqrt()
    return distance


def inside_polygon(points_P2: Tensor, polygon_M2: Tensor) -> Tensor:
    """(P,) bool, by the parity of the edges that a ray to the right crosses."""
    inside = torch.zeros_like(points_P2[:, 0], dtype=torch.bool)
    for a, b in zip(polygon_M2, polygon_M2.roll(-1, 0), strict=True):
        spans = (a[1] > points_P2[:, 1]) != (b[1] > points_P2[:, 1])
        crossing = a[0] + (points_P2[:, 1] - a[1]) * (b[0] - a[0]) / torch.where(a[1] == b[1], 1.0, b[1] - a[1])
        inside ^= spans & (points_P2[:, 0] < crossing)
    return inside
