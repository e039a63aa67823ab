"""Texture look-up: from UV coordinates to texels, without aliasing where a map has more texels than the image pixels.

Bilinear look-ups skip texels of a minified map: the image aliases and most texels get no gradient. Two remedies:

    * `halve`, the whole map before the look-up, while it is at least twice as large as the image. Free of cost, and
      blind to perspective, to the UVs' stretch and to any ratio below two.
    * `look_up_mipmapped`, the level of each pixel by its own footprint (Williams 1983), and several look-ups along the
      footprint's longer axis, so that a surface seen at a grazing angle is not blurred along its shorter one.

Legend: P covered pixels, lists are channels first, B images of `counts` pixels each · C channels · R side of a map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as nnf
from torch import Tensor

from fitdiff.renderer.compiled import serves
from fitdiff.renderer.interpolation import Fragments
from fitdiff.renderer.texture_kernels import BlockMeans, LookUp
from fitdiff.renderer.visibility import screen_points
from fitdiff.types import Camera


def look_up(texture_BCRR: Tensor, uv_2P: Tensor, counts: Sequence[int]) -> Tensor:
    """Bilinear look-up of each image's pixels in its own map; the border texels continue outwards.

    Args:
        texture_BCRR: one map for each of `counts`, or a single one for all.
        uv_2P: UV space.

    Returns:
        (C, P). Differentiable in both.
    """
    if serves(texture_BCRR, uv_2P):
        return LookUp.apply(texture_BCRR, uv_2P, tuple(counts))
    runs = tuple(counts) if len(texture_BCRR) > 1 else uv_2P.shape[1:]
    grids = (2 * uv_2P.t() - 1)[None, None].split(runs, 2)
    samples = [
        nnf.grid_sample(texture, grid, padding_mode="border", align_corners=False)
        for texture, grid in zip(texture_BCRR.split(1), grids, strict=True)
    ]
    return torch.cat(samples, -1)[0, :, 0]


def halve(maps: Sequence[Tensor], samples: int) -> Tensor:
    """Join (B, C_i, R, R) maps, averaged down by powers of two to fewer than twice as many texels a side as `samples`.

    Maps of an odd side are not halved.
    """
    side, n = maps[0].shape[-1], 1
    while side >= 2 * n * samples and side % (2 * n) == 0:
        n *= 2
    return block_means(maps, n)


def block_means(maps: Sequence[Tensor], n: int) -> Tensor:
    """Means of n x n texels of (B, C_i, R, R) maps, joined: (B, sum C_i, R / n, R / n). Differentiable."""
    if n > 1 and serves(*maps):
        return BlockMeans.apply(n, *maps)
    joined = torch.cat(tuple(maps), 1)
    return nnf.avg_pool2d(joined, n) if n > 1 else joined


def look_up_mipmapped(
    texture_BCRR: Tensor, uv_2P: Tensor, footprint_22P: Tensor, counts: Sequence[int], taps: int
) -> Tensor:
    """Trilinear look-up: bilinear in the two levels of a pyramid of 2 x 2 means next to the footprint's size.

    Args:
        footprint_22P: d(u, v) / d(column, row) as `footprints` gives it; no gradient flows into it.
        taps: look-ups along the longer side of the footprint. The level fits the shorter side as far as they reach.

    Returns:
        (C, P). Differentiable in maps and uv.
    """
    lengths = footprint_22P.square().sum(0)
    across, down = footprint_22P.unbind(1)
    longer = torch.where(lengths[0] > lengths[1], across, down)
    length = lengths.amax(0).sqrt()
    area = (across[0] * down[1] - across[1] * down[0]).abs()
    shorter = torch.maximum(area / length.clamp_min(1e-12), length / taps)
    level = (shorter * texture_BCRR.shape[-1]).clamp_min(1).log2().nan_to_num(0.0)
    pyramid = _pyramid(texture_BCRR, float(level.max()) if level.numel() else 0.0)
    places = [uv_2P + longer * ((tap + 0.5) / taps - 0.5) for tap in range(taps)]
    return sum(_trilinear(pyramid, place, level, counts) for place in places) / taps  # type: ignore[return-value]


def _pyramid(texture_BCRR: Tensor, top: float) -> list[Tensor]:
    """The map and its successive 2 x 2 means, up to the level `top` or an odd side."""
    levels = [texture_BCRR]
    while len(levels) - 1 < top and levels[-1].shape[-1] % 2 == 0:
        levels.append(block_means(levels[-1:], 2))
    return levels


def _trilinear(pyramid: list[Tensor], uv_2P: Tensor, level_P: Tensor, counts: Sequence[int]) -> Tensor:
    """Look-ups in each level by those pixels only that need it: where nothing is minified, one look-up a pixel."""
    level = level_P.clamp_max(len(pyramid) - 1)
    total = uv_2P.new_zeros(pyramid[0].shape[1], uv_2P.shape[1])
    for number, texture in enumerate(pyramid):
        share = (1 - (level - number).abs()).clamp_min(0)
        index = share.nonzero()[:, 0]
        runs = [int(run.count_nonzero()) for run in share.split(tuple(counts))]
        total = total.index_add(1, index, look_up(texture, uv_2P[:, index], runs) * share[index])
    return total


@torch.no_grad()
def footprints(
    vertices_BV3: Tensor,
    uv_V2: Tensor,
    faces_F3: Tensor,
    camera: Camera,
    fragments: Fragments,
    uv_2P: Tensor,
    depth_P: Tensor,
) -> Tensor:
    """How far in UV space one pixel to the right and one down are, on the plane of the pixel's own triangle.

    With depth d, u/d and 1/d are linear over the image (Blinn 1992), so that du = d (d(u/d) - u d(1/d)), where
    differentials are per pixel and those of u/d and 1/d are constant over a triangle.

    Args:
        vertices_BV3: camera space, mm. depth_P: -z of the surface points.

    Returns:
        (2, 2, P): d(u, v) / d(column, row). No gradient.
    """
    screen = screen_points(vertices_BV3, camera, fragments.size)
    columns = torch.cat([screen, uv_V2.to(screen) * screen[..., 2:]], -1)
    a, b, c = columns.flatten(0, 1)[fragments.corners(faces_F3, vertices_BV3.shape[1])].transpose(1, 2)
    e1, e2 = (b - a).to(uv_2P.dtype), (c - a).to(uv_2P.dtype)
    area = e1[0] * e2[1] - e1[1] * e2[0]
    per_column = (e1[2:] * e2[1] - e2[2:] * e1[1]) / area
    per_row = (e2[2:] * e1[0] - e1[2:] * e2[0]) / area
    slopes = torch.stack([per_column, per_row], 1)
    return depth_P * (slopes[1:] - uv_2P[:, None] * slopes[:1])
