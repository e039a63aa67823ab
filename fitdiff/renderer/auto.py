"""`renderer=auto`: the fastest rasteriser for the device on which the tensors lie."""

from __future__ import annotations

import functools
import importlib.util

from torch import Tensor

from fitdiff.registry import register
from fitdiff.renderer.torch_renderer import TorchRenderer
from fitdiff.renderer.visibility import Rasterize, visible_triangles
from fitdiff.types import Camera


@register("renderer", "auto")
class AutomaticRenderer(TorchRenderer):
    """Warp for CUDA tensors where it is installed, else what `renderer=torch` does: compiled loops on the CPU.

    The order is by evidence. All give the same image to the bit, so that only time decides: on a CPU the compiled
    loops take two thirds of Warp's time and import nothing new (`python -m fitdiff.renderer.bench`). kaolin is never
    chosen: it breaks ties otherwise and has not been measured here; ask for `renderer=kaolin`.
    """

    def visibility(self, vertices_BV3: Tensor, camera: Camera, size: int) -> Tensor:
        """(B, S, S) int64 triangle id per pixel, -1 for none; `vertices_BV3` in camera space. No gradient."""
        rasterize = fastest(vertices_BV3.device.type)
        cull = self.cull_back_faces
        return visible_triangles(vertices_BV3, camera, self.faces, size, cull_back_faces=cull, rasterize=rasterize)


@functools.cache
def fastest(device_type: str) -> Rasterize | None:
    """The rasteriser for a kind of device; None for that of `renderer=torch`."""
    if device_type != "cuda" or importlib.util.find_spec("warp") is None:
        return None
    from fitdiff.renderer.warp_kernel import rasterize

    return rasterize
