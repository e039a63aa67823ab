"""One update of the weights: gradients unscaled and clipped, then every optimiser's step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer


def update(
    optimisers: Mapping[str, Optimizer], rate: float, max_norm: float, scaler: GradScaler | None = None
) -> dict[str, Tensor]:
    """Step the optimisers and clear their gradients.

    Args:
        optimisers: those that got a loss. rate: their learning rate. max_norm: gradients are scaled down to this norm.
        scaler: of fp16's gradients. It is updated once, after all optimisers: each must be unscaled by the scale that
            its loss was multiplied with. It skips an optimiser whose gradients overflow.

    Returns:
        Norms of the gradients before clipping, `grad_norm_<name>`.
    """
    norms = {}
    for name, optimiser in optimisers.items():
        if scaler is not None:
            scaler.unscale_(optimiser)
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        norms[f"grad_norm_{name}"] = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        for group in optimiser.param_groups:
            group["lr"] = rate
    for optimiser in optimisers.values():
        if scaler is None:
            optimiser.step()
        else:
            scaler.step(optimiser)
        optimiser.zero_grad()
    if scaler is not None:
        scaler.update()
    return norms


@contextmanager
def graphs_kept() -> Iterator[None]:
    """Within, compiled networks may be gone back through twice, as VQGAN's adaptive weight does.

    Else the first backward pass would overwrite what the second needs. The tag keeps networks compiled here apart from
    others in torch's cache, whose key does not tell: gradients would be wrong.
    """
    with (
        torch._functorch.config.patch(donated_buffer=False),
        torch.compiler.config.patch(cache_key_tag="graphs are kept"),
    ):
        yield


class GradientScale:
    """State of a gradient scaler as tensors, so that a checkpoint treats it as a module."""

    def __init__(self, scaler: GradScaler) -> None:
        self.scaler = scaler

    def state_dict(self) -> dict[str, Tensor]:
        """Numbers of the scaler, each a tensor ()."""
        return {key: torch.tensor(value) for key, value in self.scaler.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor], strict: bool = True) -> None:
        """The reverse."""
        self.scaler.load_state_dict({key: value.item() for key, value in state.items()})
