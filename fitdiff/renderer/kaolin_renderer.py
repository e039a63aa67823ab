"""`renderer=kaolin`: visibility by NVIDIA's kaolin; interpolation, texture and shading are those of `renderer=torch`.

Written against the documented API of kaolin 0.13 to 0.18 (`kaolin.render.mesh.rasterize`) and tested with a stand-in of
that function only: kaolin runs on CUDA alone and was not at hand where this was developed.
"""

from __future__ import annotations

import functools
import importlib.metadata
from typing import Any

import torch
from torch import Tensor

from fitdiff.registry import register
from fitdiff.renderer.torch_renderer import TorchRenderer
from fitdiff.renderer.visibility import front_facing, screen_points
from fitdiff.types import Camera

OLDEST, NEWEST = (0, 13), (0, 18)
"""Versions of kaolin whose `rasterize` has the documented signature."""


@register("renderer", "kaolin")
class KaolinRenderer(TorchRenderer):
    """The torch renderer with kaolin's rasteriser; constructor and call as there.

    Raises:
        ImportError: NVIDIA's kaolin is not installed, is of an unknown version, or there is no CUDA device.
    """

    @functools.wraps(TorchRenderer.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _check_installation()
        super().__init__(*args, **kwargs)

    @torch.no_grad()
    def visibility(self, vertices_BV3: Tensor, camera: Camera, size: int) -> Tensor:
        """(B, S, S) int64 triangle id per pixel, -1 for none; `vertices_BV3` in camera space. No gradient."""
        from kaolin.render.mesh import rasterize

        points = screen_points(vertices_BV3, camera, size)[:, self.faces]
        # kaolin takes NDC with y up, interpolates its depth linearly over the image and keeps the largest value: given
        # 1/depth instead of z, its order is correct in perspective.
        ndc = (points[..., :2] * (2 / size) - 1) * points.new_tensor([1.0, -1.0])
        inverse_depth = points[..., 2].contiguous()
        valid = front_facing(points, self.cull_back_faces)
        _, triangle = rasterize(
            size, size, inverse_depth, ndc.contiguous(), inverse_depth[..., None], valid_faces=valid
        )
        return triangle


def _check_installation() -> None:
    """Fail where the renderer is built, not at the first image, and tell the real kaolin from its placeholder."""
    advice = (
        "renderer=kaolin needs a CUDA device and NVIDIA's kaolin 0.13 to 0.18, built for the installed torch: get the "
        "wheel from NVIDIA's own list (kaolin's installation page). The package index's `kaolin 0.1` is an empty "
        "placeholder. renderer=warp and renderer=torch need neither"
    )
    try:
        version = importlib.metadata.version("kaolin")
    except importlib.metadata.PackageNotFoundError as error:
        raise ImportError(f"kaolin is not installed. {advice}") from error
    if not OLDEST <= tuple(int(part) for part in version.split(".")[:2]) <= NEWEST:
        raise ImportError(f"kaolin {version} is installed. {advice}")
    if not torch.cuda.is_available():
        raise ImportError(f"kaolin {version} is installed, but torch finds no CUDA device. {advice}")
