"""Two diffusion models in place of one: shape and reflectance apart (Table 5 of the FitDiff supplement, `separate`).

Both see the same embedding and the same step, each its own part of z. The supplement gives no more than the name, so
**chosen** here: both are built from the denoiser's own config with narrower `channels`, as wide as each other as far as
possible, with as many parameters together as the single network has.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from fitdiff.registry import build
from fitdiff.types import Denoiser

TOLERANCE = 0.02
"""By how much the parameters of both together may differ from the single network's."""

WIDTH_STEPS = (4, 2)
"""Of the widths that are tried, the roundest first: normalisation groups want powers of two, sinusoids even numbers."""


class SeparateDenoiser(nn.Module):
    """Denoisers side by side, each over its own part of z, to callers one denoiser of all. Implements `types.Denoiser`.

    No output of one depends on the input or the weights of another. Positions of z outside of all parts (its pad) get
    the noise 0.

    Args:
        networks: one for each part, built for the part's length and `pads` more.
        parts: of z, adjacent slices from 0. pads: zeros that each network's input ends with.
    """

    def __init__(self, networks: Sequence[Denoiser], parts: Sequence[slice], pads: Sequence[int]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.parts, self.pads = tuple(parts), tuple(pads)

    @property
    def embedding_mean(self) -> Tensor:
        """(D,) of the networks, which all have the same."""
        return self.networks[0].embedding_mean

    def set_embedding_statistics(self, mean_D: Tensor, std_D: Tensor) -> None:
        """Set the standardisation of every network."""
        for network in self.networks:
            network.set_embedding_statistics(mean_D, std_D)

    @property
    def condition(self) -> Callable[..., tuple[Any, ...]]:
        """The networks' conditions, one after another; absent where the networks offer none."""
        conditions = [network.condition for network in self.networks]
        return lambda *arguments: tuple(condition(*arguments) for condition in conditions)

    def forward(
        self,
        z_t_BN: Tensor,
        t_B: Tensor,
        embedding_BD: Tensor | None = None,
        *,
        condition: tuple[Any, ...] | None = None,
        **options: Any,
    ) -> Tensor:
        """(B, N) latent, (B,) step -> (B, N) noise; `options` are the networks'. Differentiable."""
        parts = []
        for i, (network, part, pad) in enumerate(zip(self.networks, self.parts, self.pads, strict=True)):
            own = options if condition is None else {**options, "condition": condition[i]}
            predicted = network(nnf.pad(z_t_BN[:, part], (0, pad)), t_B, embedding_BD, **own)
            parts.append(predicted[:, : predicted.shape[1] - pad])
        return nnf.pad(torch.cat(parts, 1), (0, z_t_BN.shape[1] - self.parts[-1].stop))


def build_separate(
    node: Mapping[str, Any], parts: Sequence[slice], length: int, multiple: int, embedding_dim: int
) -> SeparateDenoiser:
    """Two networks of one config, with the budget of the one that it describes.

    Args:
        node: config of the denoiser; `channels` is its width.
        parts: of z, shape and maps. length: N, of all z. multiple: that lengths are padded to.
        embedding_dim: D, of the identity embedding.

    Raises:
        ValueError: the denoiser has no `channels` to narrow, or no two widths meet the budget.
    """
    sizes = [part.stop - part.start for part in parts]
    pads = [-size % multiple for size in sizes]
    lengths = [size + pad for size, pad in zip(sizes, pads, strict=True)]
    widths = equal_budget_widths(node, lengths, length, embedding_dim)
    networks = [
        build({**node, "channels": width}, "denoiser", length=own, embedding_dim=embedding_dim)
        for width, own in zip(widths, lengths, strict=True)
    ]
    return SeparateDenoiser(networks, parts, pads)


def equal_budget_widths(
    node: Mapping[str, Any], lengths: Sequence[int], single_length: int, embedding_dim: int
) -> tuple[int, int]:
    """`channels` of each network so that together they have the parameters of the single one, within `TOLERANCE`.

    Counted on networks without storage. Of the widths that fit, the most equal ones win, then those closest to the
    budget; a wider network goes to the later part (the maps, with more to say). Wider networks have more parameters, so
    bisection finds them.

    Args:
        node, embedding_dim: see `build_separate`. lengths: of the two parts. single_length: of all z.

    Raises:
        ValueError: see `build_separate`.
    """
    full = node.get("channels")
    if not isinstance(full, int):
        raise ValueError(
            f"model.separate narrows denoiser.channels, and {node.get('_target_')} has none (got {full!r}): "
            "choose model=fitdiff, or a denoiser whose width is called channels"
        )

    @cache
    def count(width: int, length: int) -> int:
        with torch.device("meta"):
            network = build({**node, "channels": width}, "denoiser", length=length, embedding_dim=embedding_dim)
        return sum(parameter.numel() for parameter in network.parameters())

    budget = count(full, single_length)
    for step in WIDTH_STEPS:
        widths = range(-(-full // (2 * step)) * step, full, step)
        for apart in range(len(widths)):

            def together(i: int, pair: tuple[range, range] = (widths, widths[apart:])) -> int:
                return sum(count(own[i], length) for own, length in zip(pair, lengths, strict=True))

            above = bisect_left(range(len(widths) - apart), budget, key=together)
            near = range(max(0, above - 1), min(above + 1, len(widths) - apart))
            best = min(near, key=lambda i: abs(together(i) - budget))
            if abs(together(best) / budget - 1) <= TOLERANCE:
                return widths[best], widths[best + apart]
    raise ValueError(
        f"model.separate: no 2 widths below denoiser.channels={full} have {budget} parameters together "
        f"within {TOLERANCE:.0%}: choose another denoiser.channels"
    )
