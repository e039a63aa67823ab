"""How far samples of one person differ: what a photo leaves open, by vertex in mm and by texel as displayed.

Legend of shape suffixes: K samples · V vertices · R map side · S image side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fitdiff.avatar.pictures import contact_sheet
from fitdiff.avatar.relight import frontal_camera
from fitdiff.colour import srgb_to_linear
from fitdiff.data.atlas import rasterise_uv
from fitdiff.evaluation.metrics import similarity_align
from fitdiff.types import FaceMaps, Lighting, composite

HEAT_SIDE = 128
"""Side of the map that carries the vertices' colours to the renderer."""


@dataclass(frozen=True)
class Spread:
    """Standard deviations of K samples of one person, with K - 1 in the denominator.

    Attributes:
        model: whose samples they are.
        vertices: (V,) mm, of positions after similarity alignment to their mean: the root of the summed variances of
            the three coordinates.
        texels: by map, (R, R): the root of the channels' mean variance, values in [0, 1] as displayed.
        mean_vertices: (V, 3) mm.
    """

    model: Any
    vertices: Tensor
    texels: dict[str, Tensor]
    mean_vertices: Tensor

    def figures(self) -> dict[str, Any]:
        """For fit.json: mean and 95th percentile over vertices (mm) and texels (displayed values in [0, 1])."""
        rows = {"vertices_mm": self.vertices, **{f"{name}_texels": values for name, values in self.texels.items()}}
        return {
            name: {"mean": round(float(v.mean()), 4), "p95": round(float(v.flatten().quantile(0.95)), 4)}
            for name, v in rows.items()
        }

    def picture(self, size: int = 256) -> np.ndarray:
        """Heat maps on the mean face and on the maps, each with its colour bar: uint8 (H, W, 3)."""
        top = _round_up(float(self.vertices.max()))
        cells = {"shape": self._on_mesh(top, size), "": colour_bar(top, "mm", size)}
        texel_top = _round_up(max(float(values.max()) for values in self.texels.values()) * 255)
        for name, values in self.texels.items():
            cells[name] = heat(values * 255, texel_top)
        bar = colour_bar(texel_top, "levels of 255", size)
        return contact_sheet([[*cells.values(), bar]], columns=[*cells, ""], cell=size)

    def _on_mesh(self, top: float, size: int) -> Tensor:
        """(3, S, S) the mean face from the front, coloured by spread."""
        topology = self.model.shape_model.topology
        triangle, weights = rasterise_uv(topology.uv.cpu(), topology.faces.cpu(), HEAT_SIDE)
        values = (self.vertices.cpu()[topology.faces.cpu()[triangle.clamp_min(0)]] * weights).sum(-1)
        colour = torch.from_numpy(heat(values, top)).movedim(-1, 0)[None].to(self.mean_vertices) / 255
        flat = torch.zeros_like(colour)
        flat[:, 2] = 1
        vertices = self.mean_vertices[None]
        # Mostly ambient: the colours of the bar are those of the face, with just enough shading to see the shape.
        lighting = Lighting(colour.new_full((1, 3), 0.75), colour.new_tensor([[[0.0, 0, 1]]]), colour.new_full((1, 1, 3), 0.25))  # fmt: skip # noqa: E501
        maps = FaceMaps(srgb_to_linear(colour), torch.zeros_like(colour), flat)
        rendering = self.model.renderer(vertices, maps, frontal_camera(vertices), lighting, size)
        return composite(rendering, 1.0)[0]


@torch.no_grad()
def spread_of(model: Any, z_KN: Tensor) -> Spread:
    """Spread of K samples of one person, as of a fit's `candidates.z`.

    Raises:
        ValueError: fewer than two samples.
    """
    if len(z_KN) < 2:
        raise ValueError(f"got {len(z_KN)} samples; a spread needs 2 or more: fit with samples=8")
    deviation, mean = vertex_spread(model.vertices(z_KN))
    images = model.maps(z_KN).to_images()
    texels = {name: image.var(0).mean(0).sqrt() for name, image in images.items()}
    return Spread(model, deviation, texels, mean)


def vertex_spread(vertices_KV3: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviation (V,) of positions in mm after alignment, and the mean (V, 3) of the aligned."""
    target = vertices_KV3.mean(0).expand_as(vertices_KV3)
    aligned = similarity_align(vertices_KV3, target)
    return aligned.var(0).sum(1).sqrt(), aligned.mean(0)


def heat(values: Tensor, top: float) -> np.ndarray:
    """(H, W) values in [0, top] -> uint8 (H, W, 3), from dark blue to yellow (viridis: equal steps look equal)."""
    levels = (values.detach().cpu() * (255 / top)).round().clamp(0, 255).to(torch.uint8).numpy()
    return cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)


def colour_bar(top: float, unit: str, size: int) -> np.ndarray:
    """The colours of `heat` from 0 to `top`, upwards, with their values: uint8 (size, size, 3)."""
    margin, width = size // 10, size // 8
    ramp = torch.linspace(top, 0, size - 2 * margin)[:, None].expand(-1, width)
    bar = Image.new("RGB", (size, size), (255, 255, 255))
    bar.paste(Image.fromarray(heat(ramp, top)), (margin, margin))
    draw, font = ImageDraw.Draw(bar), ImageFont.load_default(max(12, size // 16))
    for share in (0, 0.5, 1):
        y = size - margin - share * (size - 2 * margin)
        draw.text((margin + width + 6, y), f"{share * top:g}", (30, 30, 30), font, anchor="lm")
    draw.text((margin + width + 6, size / 4), unit, (30, 30, 30), font, anchor="lm")
    return np.asarray(bar)


def _round_up(value: float) -> float:
    """To the next of 1, 2, 5, 10, ... times a power of ten, for the end of a scale."""
    value = max(value, 1e-6)
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step * power for step in (1, 2, 5, 10) if value <= step * power * (1 + 1e-9)))
