"""Renderers: avatar + scene -> rendering.

`renderer=auto` takes the fastest of these for the device: `torch` (everywhere), `warp` (CPU and CUDA), never `kaolin`
(CUDA, on request).
"""

from fitdiff.renderer.auto import AutomaticRenderer
from fitdiff.renderer.kaolin_renderer import KaolinRenderer
from fitdiff.renderer.torch_renderer import SurfaceImages, TorchRenderer
from fitdiff.renderer.warp_renderer import WarpRenderer

__all__ = ["AutomaticRenderer", "KaolinRenderer", "SurfaceImages", "TorchRenderer", "WarpRenderer"]
