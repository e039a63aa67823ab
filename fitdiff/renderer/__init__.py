"""Renderers: avatar + scene -> rendering (`renderer=torch`)."""

from fitdiff.renderer.torch_renderer import SurfaceImages, TorchRenderer

__all__ = ["SurfaceImages", "TorchRenderer"]
