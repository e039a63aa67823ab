"""`renderer=warp`: visibility by NVIDIA Warp, on CPU and CUDA; everything after it is `renderer=torch`."""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor

from fitdiff.registry import register
from fitdiff.renderer.torch_renderer import TorchRenderer
from fitdiff.renderer.visibility import visible_triangles
from fitdiff.types import Camera


@register("renderer", "warp")
class WarpRenderer(TorchRenderer):
    """The torch renderer with a Warp rasteriser: the same images to the bit; constructor and call as there.

    The kernel is compiled at its first use on a device (seconds; see `warp_kernel`) and cached on disk.

    Raises:
        ImportError: Warp is not installed.
    """

    @functools.wraps(TorchRenderer.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            import warp  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "renderer=warp needs NVIDIA Warp (Apache-2.0): pip install warp-lang. renderer=torch does without"
            ) from error
        super().__init__(*args, **kwargs)

    def visibility(self, vertices_BV3: Tensor, camera: Camera, size: int) -> Tensor:
        """(B, S, S) int64 triangle id per pixel, -1 for none; `vertices_BV3` in camera space. No gradient."""
        from fitdiff.renderer.warp_kernel import rasterize

        return visible_triangles(
            vertices_BV3, camera, self.faces, size, cull_back_faces=self.cull_back_faces, rasterize=rasterize
        )
