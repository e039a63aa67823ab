"""Tensors and JSON on disk: every file appears whole or not at all, and nothing is ever unpickled."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs
from safetensors.torch import save
from torch import Tensor, nn


def cache_folder() -> Path:
    """Where what is built once lies: `$FITDIFF_CACHE`, or the platform's user cache folder."""
    return Path(os.environ.get("FITDIFF_CACHE") or platformdirs.user_cache_dir("fitdiff"))


def write_atomically(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write `data` so that no reader ever sees half a file and a failure leaves the old one untouched.

    The bytes go to a temporary name in the same folder (renaming is atomic only within one file system), reach the
    disk, and are renamed. Missing parent folders are created.

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; an exported file gets the permissions of any new file.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path


def link_or_copy(source: Path, target: Path) -> Path:
    """Let `target` be a file with the content of `source`: a hard link where the file system can, else a copy.

    A target that exists is replaced. Missing parent folders are created.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as folder:
        temporary = Path(folder) / "file"
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copy2(source, temporary)
        os.replace(temporary, target)
    return target


def _umask() -> int:
    """The process's umask; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, value: Any) -> Path:
    """Write JSON atomically."""
    return write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    """Write safetensors atomically."""
    return write_atomically(path, save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}))


def pack_modules(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """State dicts of several modules under `name/`."""
    return {f"{name}/{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}


def unpack_modules(tensors: Mapping[str, Tensor], modules: Mapping[str, nn.Module]) -> None:
    """Load what `pack_modules` packed; anything missing, left over or of another shape raises."""
    for name, module in modules.items():
        prefix = f"{name}/"
        state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        module.load_state_dict(state, strict=True)
