"""Which texels of a face's maps lie in a region, and which a photo shows.

Legend of shape suffixes: B photos · V vertices · F triangles · R map side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fitdiff.data.atlas import rasterise_uv
from fitdiff.geometry import to_camera_space
from fitdiff.types import Camera, Topology

TONE_REGIONS = ("forehead", "cheek", "nose")
"""Where skin shows its colour."""

FACE_REGIONS = (*TONE_REGIONS, "mouth")
FINE = 768
"""Side of the image in which visible triangles are sought: most cover a pixel's centre there."""


class Texels:
    """The texels of maps of a given size.

    Args:
        topology: with the regions of `types.Topology`. resolution: R.

    Attributes:
        triangle: (R, R) int64, -1 outside of the mesh.
    """

    def __init__(self, topology: Topology, resolution: int, device: torch.device | str = "cpu") -> None:
        self.topology = topology
        self.faces = topology.faces.to(device)
        self.triangle = rasterise_uv(topology.uv.cpu(), topology.faces.cpu(), resolution)[0].to(device)

    def of_regions(self, names: Sequence[str]) -> Tensor:
        """(R, R) bool: all corners of the texel's triangle lie in the regions."""
        inside = torch.stack([self.topology.regions[name] for name in names]).any(0).to(self.faces.device)
        return self._take(inside[self.faces].all(1)[None])[0]

    def visible(self, renderer: Any, vertices_BV3: Tensor, camera: Camera) -> Tensor:
        """(B, R, R) bool: the texel's triangle covers a pixel, in front of all others, of a fine image.

        Args:
            renderer: with `visibility`. vertices_BV3: mm, head space.
        """
        ids = renderer.visibility(to_camera_space(vertices_BV3, camera), camera, FINE).flatten(1)
        seen = torch.zeros(len(ids), len(self.faces) + 1, dtype=torch.bool, device=ids.device)
        return self._take(seen.scatter_(1, ids + 1, True)[:, 1:])

    def _take(self, of_triangles_BF: Tensor) -> Tensor:
        """Each texel's value; False outside of the mesh."""
        return of_triangles_BF[:, self.triangle.clamp_min(0)] & (self.triangle >= 0)
