"""Tensors and JSON on disk: every file appears whole or not at all, and nothing is ever unpickled."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs
from safetensors.torch import save_file
from torch import Tensor, nn


def cache_folder() -> Path:
    """Where what is built once lies: `$FITDIFF_CACHE`, or the platform's user cache folder."""
    return Path(os.environ.get("FITDIFF_CACHE") or platformdirs.user_cache_dir("fitdiff"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON under a temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(temporary, path)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write safetensors under a temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary)
    os.replace(temporary, path)


def pack_modules(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """State dicts of several modules under `name/`."""
    return {f"{name}/{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}


def unpack_modules(tensors: Mapping[str, Tensor], modules: Mapping[str, nn.Module]) -> None:
    """Load what `pack_modules` packed; anything missing, left over or of another shape raises."""
    for name, module in modules.items():
        prefix = f"{name}/"
        state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        module.load_state_dict(state, strict=True)
