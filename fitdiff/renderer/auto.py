"""renderer=auto: the fastest backend that this machine has."""

from __future__ import annotations

import importlib.util

import torch

from fitdiff.registry import register
from fitdiff.renderer.kaolin_renderer import KaolinRenderer
from fitdiff.renderer.torch_renderer import TorchRenderer
from fitdiff.types import Renderer, Topology


@register("renderer", "auto")
def automatic(topology: Topology) -> Renderer:
    """kaolin where CUDA and the real kaolin are present, else torch; both with their default settings."""
    package = importlib.util.find_spec("kaolin")
    # The Python index's package of that name is an empty placeholder without submodules.
    real = package and package.submodule_search_locations and importlib.util.find_spec("kaolin.render")
    return KaolinRenderer(topology) if torch.cuda.is_available() and real else TorchRenderer(topology)
