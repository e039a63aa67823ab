"""Exponential moving average of weights, used by every preview, export and fit."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Ema:
    """Average of a module's weights with a half-life counted in images, so that batch size does not change it.

    Args:
        module: its weights are copied; its buffers are shared, so that they are always the module's.
        half_life: images after which a weight's influence has halved.
        batch_size: images a step.
    """

    def __init__(self, module: nn.Module, half_life: float, batch_size: int) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        for mine, theirs in zip(self.module.modules(), module.modules(), strict=True):
            mine._buffers = theirs._buffers
        self.decay = 0.5 ** (batch_size / half_life)

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Blend in the weights of `step` (0-based). Early steps average over what there is: decay (1+s)/(10+s)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averaged = [p for p in self.module.parameters()]
        torch._foreach_lerp_(averaged, [p.detach() for p in module.parameters()], 1 - decay)
