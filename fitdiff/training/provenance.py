"""Where a result comes from: code, data, packages and machines."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("fitdiff", "torch", "torchvision", "numpy", "accelerate", "diffusers", "safetensors")
"""Packages whose version can change a result."""

CODE = Path(__file__).parents[1]
"""The folder of this package."""


def provenance(data: str, components: Mapping[str, str], processes: int) -> dict[str, Any]:
    """What a checkpoint tells about its origin; plain values for JSON.

    Args:
        data: hash of the training data. components: versions of components whose weights do not travel with a
            checkpoint but give its numbers their meaning (`FitDiff.versions`). processes: that train together.

    Returns:
        `data`, `components`, `git` (see `git_state`), `packages` (name -> version), `device`, `processes`.
    """
    return {
        "data": data,
        "components": dict(components),
        "git": git_state(),
        "packages": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "processes": processes,
    }


@functools.cache
def git_state(folder: Path = CODE) -> dict[str, Any] | None:
    """Commit of the code in a folder, and what was changed since.

    Read once: later edits do not change code that is already running.

    Returns:
        `commit`, and `changes`: None, or a hash of the difference to it (names alone of files that git does not know).
        None if the folder is not under git's control, as that of an installed package.
    """
    # A package installed inside another project's repository is not of that repository.
    if not _git(folder, "ls-files", "."):
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain") + _git(folder, "diff", "HEAD", "--no-ext-diff", "--no-textconv")
    return {
        "commit": commit.decode().strip() or None,
        "changes": hashlib.sha256(changes).hexdigest()[:12] if changes else None,
    }


def differences(theirs: Any, ours: Any, key: str = "") -> list[str]:
    """`denoiser.channels: checkpoint 32, this run 48` for every leaf in which two nested dicts differ."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        keys = [*theirs, *(name for name in ours if name not in theirs)]
        parts = (differences(theirs.get(k, "nothing"), ours.get(k, "nothing"), f"{key}.{k}".lstrip(".")) for k in keys)
        return [line for part in parts for line in part]
    return [] if theirs == ours else [f"{key}: checkpoint {theirs}, this run {ours}"]


def _git(folder: Path, *arguments: str) -> bytes:
    """Output of a git command; nothing if there is no git, or no repository."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True)
    except FileNotFoundError:
        return b""
    return done.stdout if done.returncode == 0 else b""


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
