"""`renderer=toon` and `guidance=[...,edges]`: what a third party adds to fitdiff by a `pip install`."""

from dataclasses import replace

from torch import Tensor

from fitdiff.registry import register
from fitdiff.renderer import AutomaticRenderer
from fitdiff.types import Camera, FaceMaps, Lighting, Observation, Prediction, Rendering, Topology


@register("renderer", "toon")
class ToonRenderer(AutomaticRenderer):
    """Cel shading: the built-in rendering in a few flat steps of brightness, hues as they are."""

    def __init__(self, topology: Topology, *, bands: int = 5, shininess: float = 30.0) -> None:
        if bands < 2:
            raise ValueError(f"renderer.bands is {bands}; give the steps of brightness, 2 or more")
        super().__init__(topology, shininess=shininess)
        self.bands = bands

    def forward(self, vertices_BV3: Tensor, maps: FaceMaps, camera: Camera, lighting: Lighting, size: int) -> Rendering:
        """As `renderer=auto`; the gradient is that of the smooth image, as steps have none (straight-through)."""
        rendering = super().forward(vertices_BV3, maps, camera, lighting, size)
        smooth = rendering.image
        brightness = smooth.mean(1, keepdim=True)
        flat = (brightness * (self.bands - 1)).round() / (self.bands - 1)
        toon = (smooth * flat / brightness.clamp_min(1e-3)).clamp(0, 1)
        return replace(rendering, image=smooth + (toon - smooth).detach())


@register("guidance", "edges")
class Edges:
    """Mean absolute difference of the steps between neighbouring pixels, sRGB: blind to a light that is off evenly."""

    def __init__(self, *, weight: float = 20.0) -> None:
        self.weight = weight

    def __call__(self, prediction: Prediction, target: Observation) -> Tensor:
        """-> (B,) in [0, 4]. Gradient flows to the image, none to the mask."""
        mask = prediction.rendering.mask.detach()
        error = prediction.rendering.image - target.image
        down = error.diff(dim=2).abs() * mask[:, :, 1:] * mask[:, :, :-1]
        across = error.diff(dim=3).abs() * mask[..., 1:] * mask[..., :-1]
        return (down.sum((1, 2, 3)) + across.sum((1, 2, 3))) / (3 * mask.sum((1, 2, 3)).clamp_min(1))
