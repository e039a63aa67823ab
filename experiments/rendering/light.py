"""One face under every kind of light, and each optional effect off and on: `python -m experiments.rendering.light`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as nnf
from torch import Tensor

from fitdiff import registry
from fitdiff.avatar import pictures, relight
from fitdiff.renderer import TorchRenderer, environment, occlusion
from fitdiff.types import FaceMaps, Lighting, composite

PICTURE = Path(__file__).parent / "pictures" / "light.png"
SIZE, RESOLUTION, SKIN = 320, 256, (0.62, 0.40, 0.31)


def main() -> None:
    """Write the picture."""
    torch.manual_seed(0)
    model = registry.build(registry.config_of("shape_model", "anny_face"), "shape_model")
    vertices = model(0.9 * torch.randn(1, model.n_identity)).detach()
    camera, maps = relight.frontal_camera(vertices, yaw=20.0), rough_skin()
    baked = occlusion.bake_occlusion(vertices[0], model.topology, RESOLUTION)
    lamp = relight.light_from(-60, 25, intensity=0.9, ambient=0.1)
    near, sky = replace(lamp, proximity=torch.tensor([[1 / 150]])), environment.environment_lighting(window())

    def show(maps: FaceMaps, lighting: Lighting, **options: object) -> Tensor:
        renderer = TorchRenderer(model.topology, **options)
        with torch.no_grad():
            rendering = renderer(vertices, maps, camera, lighting, SIZE)
        return composite(rendering, pictures.BACKDROP)[0]

    rows = {
        "lamp far / 150 mm away": [show(maps, lamp, antialias=2), show(maps, near, antialias=2)],
        "sky / with occlusion": [show(maps, sky, antialias=2), show(replace(maps, occlusion=baked), sky, antialias=2)],
        "subsurface 0 / 3 mm": [show(maps, lamp, antialias=2), show(maps, lamp, antialias=2, subsurface=3.0)],
        "silhouette off / on": [show(maps, lamp), show(maps, lamp, silhouette=True)],
    }
    sheet = pictures.contact_sheet([[pair[i] for pair in rows.values()] for i in (0, 1)], columns=list(rows), cell=SIZE)
    pictures.save_png(sheet, PICTURE)


def rough_skin() -> FaceMaps:
    """Even skin with a little noise in colour and normals."""
    plane = torch.ones(1, 3, RESOLUTION, RESOLUTION)
    diffuse = plane * torch.tensor(SKIN).view(1, 3, 1, 1) * (1 + 0.05 * torch.randn_like(plane[:, :1])).clamp(0.8, 1.2)
    normals = torch.cat([0.06 * torch.randn_like(plane[:, :2]), plane[:, :1]], 1)
    return FaceMaps(diffuse, 0.35 * plane, nnf.normalize(normals, dim=1))


def window(height: int = 64) -> Tensor:
    """A dim room with one bright window ahead on the left of the subject: (1, 3, H, 2H) radiance."""
    v, u = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(2 * height) + 0.5) / (2 * height), indexing="ij")  # fmt: skip # noqa: E501
    bright = torch.exp(-((u - 0.3).square() + (v - 0.35).square()) / 0.01)
    return torch.stack([0.25 + 4 * bright, 0.28 + 3.6 * bright, 0.3 + 3 * bright + 0.2 * v])[None]


if __name__ == "__main__":
    main()
