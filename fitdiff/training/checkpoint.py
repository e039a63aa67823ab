"""Checkpoints of a stage: safetensors + JSON in a folder that appears whole or not at all.

A checkpoint is weights, optimiser state, averages and the step; the batch order and every random number are functions
of (seed, step), so nothing else is needed to continue exactly.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fitdiff.storage import pack_modules, unpack_modules, write_json, write_tensors


def save_checkpoint(
    folder: Path,
    step: int,
    modules: Mapping[str, nn.Module],
    optimisers: Mapping[str, torch.optim.Optimizer],
    config_hash: str,
    keep: int,
) -> Path:
    """Write `folder/step-<step>` atomically, then delete all but the newest `keep`."""
    target = folder / f"step-{step:08d}"
    temporary = folder / f".tmp-{target.name}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tensors, groups = pack_modules(modules), {}
    for name, optimiser in optimisers.items():
        state = optimiser.state_dict()
        groups[name] = state["param_groups"]
        for index, entry in state["state"].items():
            tensors |= {f"optimiser/{name}/{index}/{key}": torch.as_tensor(value) for key, value in entry.items()}
    write_tensors(temporary / "state.safetensors", tensors)
    write_json(temporary / "state.json", {"step": step, "config_hash": config_hash, "param_groups": groups})
    shutil.rmtree(target, ignore_errors=True)
    os.replace(temporary, target)
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old)
    return target


def load_checkpoint(
    folder: Path,
    modules: Mapping[str, nn.Module],
    optimisers: Mapping[str, torch.optim.Optimizer],
    config_hash: str,
) -> int:
    """Restore the newest checkpoint of a folder in place.

    Returns:
        The number of steps done; 0 if there is no checkpoint.

    Raises:
        ValueError: it was written under another config (both hashes are named).
        RuntimeError: weights are missing or of another shape.
    """
    found = sorted(folder.glob("step-*"))
    if not found:
        return 0
    meta = json.loads((found[-1] / "state.json").read_text())
    if meta["config_hash"] != config_hash:
        raise ValueError(
            f"{found[-1]} was written under config {meta['config_hash']}, this run has {config_hash}: "
            "use another name=..., or delete that folder"
        )
    tensors = load_file(found[-1] / "state.safetensors")
    unpack_modules(tensors, modules)
    for name, optimiser in optimisers.items():
        prefix = f"optimiser/{name}/"
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(prefix):
                index, entry = key.removeprefix(prefix).split("/")
                state.setdefault(int(index), {})[entry] = value
        optimiser.load_state_dict({"state": state, "param_groups": meta["param_groups"][name]})
    return int(meta["step"])
