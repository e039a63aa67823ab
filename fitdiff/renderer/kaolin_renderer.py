"""`renderer=kaolin`: visibility by NVIDIA's kaolin; interpolation, texture and shading are those of `renderer=torch`.

Written against the documented API of kaolin 0.13 to 0.18 (`kaolin.render.mesh.rasterize`) and tested with a stand-in of
that function only: kaolin runs on CUDA alone and was not at hand where this was developed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fitdiff.registry import register
from fitdiff.renderer.torch_renderer import TorchRenderer
from fitdiff.renderer.visibility import front_facing, screen_points
from fitdiff.types import Camera, Topology


@register("renderer", "kaolin")
class KaolinRenderer(TorchRenderer):
    """The torch renderer with kaolin's rasteriser; constructor and call as there.

    Raises:
        ImportError: NVIDIA's kaolin is not installed.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        shininess: float = 30.0,
        antialias: int = 1,
        prefilter: bool = True,
        cull_back_faces: bool = True,
    ) -> None:
        try:
            from kaolin.render.mesh import rasterize
        except ImportError as error:
            raise ImportError(
                "renderer=kaolin needs a CUDA device and NVIDIA's kaolin, built for the installed torch: get the wheel "
                "from NVIDIA's own list (kaolin's installation page). The package index's `kaolin 0.1` is an empty "
                "placeholder. renderer=torch needs neither"
            ) from error
        super().__init__(
            topology,
            shininess=shininess,
            antialias=antialias,
            prefilter=prefilter,
            cull_back_faces=cull_back_faces,
        )
        self._rasterize = rasterize

    @torch.no_grad()
    def visibility(self, vertices_BV3: Tensor, camera: Camera, size: int) -> Tensor:
        """(B, S, S) int64 triangle id per pixel, -1 for none; `vertices_BV3` in camera space. No gradient."""
        points = screen_points(vertices_BV3, camera, size)[:, self.faces]
        # kaolin takes NDC with y up, interpolates its depth linearly over the image and keeps the largest value: given
        # 1/depth instead of z, its order is correct in perspective.
        ndc = (points[..., :2] * (2 / size) - 1) * points.new_tensor([1.0, -1.0])
        inverse_depth = points[..., 2].contiguous()
        valid = front_facing(points, self.cull_back_faces)
        _, triangle = self._rasterize(
            size, size, inverse_depth, ndc.contiguous(), inverse_depth[..., None], valid_faces=valid
        )
        return triangle
