"""The z-buffer of `visibility` as an NVIDIA Warp kernel, for CPU and CUDA. Importing this module imports Warp.

Same definition, same float32 operations in the same order: the result equals the other implementations bit for bit.
(No postponed annotations here: Warp reads the types of a kernel's arguments when it is declared.)
"""

import contextlib
import functools
import os
from collections.abc import Iterator

import torch
import warp as wp
from torch import Tensor

from fitdiff.renderer.visibility import EMPTY, unpack
from fitdiff.storage import cache_folder

# A fused multiply-add would round edge functions differently on the two sides of an edge: cracks and overlaps.
wp.set_module_options({"fuse_fp": False, "enable_backward": False})


@wp.func
def _owns_edge(start: wp.vec3, end: wp.vec3) -> bool:
    return end[1] < start[1] or (end[1] == start[1] and end[0] > start[0])


@wp.func
def _edge(a: wp.vec2, b: wp.vec2) -> float:
    return a[0] * b[1] - a[1] * b[0]


@wp.func
def _first(low: float, limit: float) -> int:
    return int(wp.ceil(wp.clamp(low, 0.0, limit) - 0.5))


@wp.func
def _last(high: float, limit: float) -> int:
    return int(wp.floor(wp.clamp(high, 0.0, limit) - 0.5))


@wp.kernel
def _draw(points_BV: wp.array2d[wp.vec3], faces_F3: wp.array2d[wp.int64], cull: bool, winner_BSS: wp.array3d[wp.int64]):
    """One thread a triangle and image: the largest key (1/depth, then the smaller triangle id) wins each pixel."""
    image, face = wp.tid()
    i = points_BV[image, int(faces_F3[face, 0])]
    j = points_BV[image, int(faces_F3[face, 1])]
    k = points_BV[image, int(faces_F3[face, 2])]
    if not wp.min(wp.min(i[2], j[2]), k[2]) > 0.0:
        return
    # As in `visibility`: front faces are negative. Turn all of them positive.
    area = (j[0] - i[0]) * (k[1] - i[1]) - (j[1] - i[1]) * (k[0] - i[0])
    if not wp.isfinite(area) or area == 0.0 or (cull and area > 0.0):
        return
    if area < 0.0:
        j, k = k, j
    limit = float(winner_BSS.shape[2])
    first_column = _first(wp.min(wp.min(i[0], j[0]), k[0]), limit)
    last_column = _last(wp.max(wp.max(i[0], j[0]), k[0]), limit)
    first_row = _first(wp.min(wp.min(i[1], j[1]), k[1]), limit)
    last_row = _last(wp.max(wp.max(i[1], j[1]), k[1]), limit)
    own_i, own_j, own_k = _owns_edge(j, k), _owns_edge(k, i), _owns_edge(i, j)
    for row in range(first_row, last_row + 1):
        y = float(row) + 0.5
        for column in range(first_column, last_column + 1):
            x = float(column) + 0.5
            a, b, c = wp.vec2(i[0] - x, i[1] - y), wp.vec2(j[0] - x, j[1] - y), wp.vec2(k[0] - x, k[1] - y)
            ei, ej, ek = _edge(b, c), _edge(c, a), _edge(a, b)
            inside = (ei > 0.0 or (ei == 0.0 and own_i)) and (ej > 0.0 or (ej == 0.0 and own_j))
            if inside and (ek > 0.0 or (ek == 0.0 and own_k)):
                w = (ei * i[2] + ej * j[2] + ek * k[2]) / (ei + ej + ek)
                if w > 0.0:
                    key = wp.int64(wp.cast(w, wp.int32)) << wp.int64(32)
                    wp.atomic_max(winner_BSS, image, row, column, key | wp.int64(0x7FFFFFFF - face))


def rasterize(points_BV3: Tensor, faces_F3: Tensor, size: int, cull_back_faces: bool) -> Tensor:
    """Z-buffer by Warp, on the tensors' device and stream. Arguments and result as `visibility.rasterize_torch`."""
    device = wp.device_from_torch(points_BV3.device)
    _load(device.alias)
    winner = torch.full((len(points_BV3), size, size), EMPTY, dtype=torch.int64, device=points_BV3.device)
    points = wp.from_torch(points_BV3.detach().contiguous(), wp.vec3)
    arguments = (points, wp.from_torch(faces_F3.contiguous()), cull_back_faces, wp.from_torch(winner))
    stream = wp.stream_from_torch(points_BV3.device) if device.is_cuda else None
    wp.launch(_draw, (len(points_BV3), len(faces_F3)), arguments, device=device, stream=stream)
    return unpack(winner)


@functools.cache
def _load(device: str) -> None:
    """Start Warp, and compile the kernel or read it from the cache, without a word.

    Compiled kernels lie in `$WARP_CACHE_PATH` where that is set, else in `fitdiff.storage.cache_folder()`. Warp builds
    in a folder of the process and renames it, so that several processes may start at once.
    """
    with _quiet():
        wp.load_module(__name__, device=device)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    level, wp.config.log_level = wp.config.log_level, wp.LOG_ERROR
    try:
        yield
    finally:
        wp.config.log_level = level


if wp.config.kernel_cache_dir is None and "WARP_CACHE_PATH" not in os.environ:
    wp.config.kernel_cache_dir = str(cache_folder() / "warp")
with _quiet():  # a greeting, and a warning where there is no CUDA
    wp.init()
