"""Optimisers as tensors and plain values, so that a checkpoint needs no pickle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from fitdiff.storage import CheckpointError

PREFIX = "optimiser/"
"""Of optimisers' tensors, and so no name of a module."""


class Stateful(Protocol):
    """A module, an optimiser, or what wraps one for several processes."""

    def state_dict(self) -> dict[str, Any]:
        """All that must be saved."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """The reverse."""


def pack_optimisers(optimisers: Mapping[str, Stateful]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors under `optimiser/name/parameter/key`, and by optimiser `param_groups` and the numbers in `state`."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for name, optimiser in optimisers.items():
        packed = optimiser.state_dict()
        values[name] = {"param_groups": packed["param_groups"], "state": {}}
        for parameter, entry in packed["state"].items():
            of_entry = {key: value for key, value in entry.items() if isinstance(value, Tensor)}
            tensors |= {f"{PREFIX}{name}/{parameter}/{key}": value for key, value in of_entry.items()}
            values[name]["state"][str(parameter)] = {k: v for k, v in entry.items() if k not in of_entry}
    return tensors, values


def unpack_optimisers(
    tensors: Mapping[str, Tensor], values: Mapping[str, Any], optimisers: Mapping[str, Stateful]
) -> None:
    """Load what `pack_optimisers` packed.

    Raises:
        CheckpointError: other optimisers, or one with other parameters.
    """
    if sorted(values) != sorted(optimisers):
        raise CheckpointError(f"the checkpoint has optimisers {sorted(values)}, this run {sorted(optimisers)}")
    for name, optimiser in optimisers.items():
        state = {_key(text): dict(entry) for text, entry in values[name]["state"].items()}
        for path, tensor in tensors.items():
            if path.startswith(prefix := f"{PREFIX}{name}/"):
                parameter, key = path.removeprefix(prefix).rsplit("/", 1)
                state[_key(parameter)][key] = tensor
        try:
            optimiser.load_state_dict({"state": state, "param_groups": values[name]["param_groups"]})
        except ValueError as error:
            raise CheckpointError(f"the state of optimiser {name!r} does not fit: {error}") from error
        _lay_out(optimiser)


def _lay_out(optimiser: Stateful) -> None:
    """Give moments the strides of their parameters: files have none, and fused optimisers pair numbers by address."""
    for parameter, entry in getattr(optimiser, "state", {}).items():
        for key, value in entry.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                entry[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _key(text: str) -> int | str:
    """Parameters are numbered by torch, and named by what gathers sharded states."""
    return int(text) if text.isdigit() else text
