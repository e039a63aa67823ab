"""Renderers: avatar + scene -> rendering (`renderer=torch` everywhere, `renderer=kaolin` on CUDA)."""

from fitdiff.renderer.auto import automatic
from fitdiff.renderer.kaolin_renderer import KaolinRenderer
from fitdiff.renderer.torch_renderer import SurfaceImages, TorchRenderer

__all__ = ["KaolinRenderer", "SurfaceImages", "TorchRenderer", "automatic"]
