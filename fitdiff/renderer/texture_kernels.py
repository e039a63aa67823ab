"""Texture look-up and minification in compiled loops with derivatives by hand: float32 on the CPU (see `compiled`).

torch's own take several times as long on a CPU: `grid_sample` looks up one list of pixels on one thread, and
`avg_pool2d` moves a tenth of what the memory allows. `texture` decides when these serve.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fitdiff.renderer.compiled import arrays, compiled, for_each_image


class BlockMeans(torch.autograd.Function):
    """`(n, maps...)`: means of n x n texels of (B, C_i, R, R) maps, joined as (B, sum C_i, R / n, R / n).

    The joined map never exists at full size.
    """

    @staticmethod
    def forward(ctx, n, *maps):
        batch, _, rows, columns = maps[0].shape
        ctx.n, ctx.channels = n, [len(m[0]) for m in maps]
        means = maps[0].new_empty(batch, sum(ctx.channels), rows // n, columns // n)
        _each_map(_average, batch, maps, n, means, ctx.channels)
        return means

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient_BCRR):
        batch, _, rows, columns = gradient_BCRR.shape
        maps = [gradient_BCRR.new_empty(batch, c, rows * ctx.n, columns * ctx.n) for c in ctx.channels]
        _each_map(_spread, batch, maps, ctx.n, gradient_BCRR, ctx.channels)
        return None, *maps


def _each_map(kernel, batch: int, maps: Sequence[Tensor], n: int, means: Tensor, channels: list[int]) -> None:
    (joined,) = arrays(means)
    for number, full in enumerate(arrays(*maps)):
        for_each_image(kernel, batch, full, n, joined, sum(channels[:number]))


@compiled("void(int64, float32[:,:,:,::1], int64, float32[:,:,:,::1], int64)")
def _average(image, full, n, means, first_channel):
    scale = np.float32(1 / n**2)
    line = np.empty(full.shape[3], np.float32)
    for channel in range(full.shape[1]):
        for row in range(means.shape[2]):
            line[:] = full[image, channel, row * n]
            for k in range(1, n):
                line += full[image, channel, row * n + k]
            for column in range(means.shape[3]):
                total = line[column * n]
                for k in range(1, n):
                    total += line[column * n + k]
                means[image, first_channel + channel, row, column] = total * scale


@compiled("void(int64, float32[:,:,:,::1], int64, float32[:,:,:,::1], int64)")
def _spread(image, full, n, means, first_channel):
    scale = np.float32(1 / n**2)
    for channel in range(full.shape[1]):
        for row in range(means.shape[2]):
            for column in range(means.shape[3]):
                share = means[image, first_channel + channel, row, column] * scale
                for k in range(n):
                    full[image, channel, row * n, column * n + k] = share
            for k in range(1, n):
                full[image, channel, row * n + k] = full[image, channel, row * n]


class LookUp(torch.autograd.Function):
    """`(texture_TCRR, uv_2P, counts)`: `texture.look_up`; T is the number of images, or 1 map for all of them."""

    @staticmethod
    def forward(ctx, texture_TCRR, uv_2P, counts):
        # Pixels that share a map are one run: threads of several images would add to one gradient.
        runs = counts if len(texture_TCRR) > 1 else (sum(counts),)
        ctx.first = np.cumsum([0, *runs])
        ctx.save_for_backward(texture_TCRR, uv_2P)
        inputs = *arrays(texture_TCRR, uv_2P), ctx.first
        values = texture_TCRR.new_empty(texture_TCRR.shape[1], uv_2P.shape[1])
        unused = np.empty((0, 0, 0, 0), np.float32), np.empty((0, 0), np.float32)
        for_each_image(_look_up, len(texture_TCRR), *inputs, values.numpy(), False, *unused)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient_CP):
        texture, uv = arrays(*ctx.saved_tensors)
        to_texture, to_uv = torch.zeros(texture.shape), torch.empty(uv.shape)
        outputs = arrays(gradient_CP)[0], True, to_texture.numpy(), to_uv.numpy()
        for_each_image(_look_up, len(to_texture), texture, uv, ctx.first, *outputs)
        return to_texture, to_uv, None


@compiled(
    "void(int64, float32[:,:,:,::1], float32[:,::1], int64[::1], float32[:,::1], boolean,"
    " float32[:,:,:,::1], float32[:,::1])"
)
def _look_up(image, texture, uv, first, values, backward, to_texture, to_uv):
    """Write `values` (C, P); or, backward, read them as gradients, add to the map's and write those of `uv`."""
    zero, one, half = np.float32(0), np.float32(1), np.float32(0.5)
    rows, columns = texture.shape[2], texture.shape[3]
    width, height = np.float32(columns), np.float32(rows)
    for p in range(first[image], first[image + 1]):
        # Texels' centres are at the halves; outside of the outermost ones the map goes on unchanged.
        # NaN counts as 0, for an index must be one.
        x, y = uv[0, p] * width - half, uv[1, p] * height - half
        inside_x, inside_y = x > zero and x < width - one, y > zero and y < height - one
        x = min(x, width - one) if x > zero else zero
        y = min(y, height - one) if y > zero else zero
        left, top = int(x), int(y)
        right, bottom = min(left + 1, columns - 1), min(top + 1, rows - 1)
        fx, fy = x - np.float32(left), y - np.float32(top)
        a, b, c, d = (one - fy) * (one - fx), (one - fy) * fx, fy * (one - fx), fy * fx
        if not backward:
            for k in range(len(values)):
                values[k, p] = (
                    a * texture[image, k, top, left]
                    + b * texture[image, k, top, right]
                    + c * texture[image, k, bottom, left]
                    + d * texture[image, k, bottom, right]
                )
            continue
        gx, gy = zero, zero
        for k in range(len(values)):
            g = values[k, p]
            above = texture[image, k, top, right] - texture[image, k, top, left]
            below = texture[image, k, bottom, right] - texture[image, k, bottom, left]
            gx += g * (above + fy * (below - above))
            gy += g * ((texture[image, k, bottom, left] - texture[image, k, top, left]) + fx * (below - above))
            to_texture[image, k, top, left] += a * g
            to_texture[image, k, top, right] += b * g
            to_texture[image, k, bottom, left] += c * g
            to_texture[image, k, bottom, right] += d * g
        to_uv[0, p] = gx * width if inside_x else zero
        to_uv[1, p] = gy * height if inside_y else zero
