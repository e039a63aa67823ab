"""The data set that a config asks for, and the hash by which everything made from it is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from fitdiff.config import config_hash, plain
from fitdiff.registry import build

PLACES = ("workers", "device", "cache", "cache_gb", "path", "url")
"""Settings of data sets that say where they lie and how they are made, not what they are."""


def build_data(
    config: DictConfig, shape_model: Any, identity: Any, renderer: Any, versions: Mapping[str, str]
) -> tuple[Any, str]:
    """Build `config.data` around the components that samples are made with.

    Args:
        versions: `FitDiff.versions`.

    Returns:
        The data set, and a hash of all that decides what its samples are.
    """
    parts = (config[key] for key in ("shape_model", "identity", "renderer"))
    fingerprint = config_hash(*parts, dict(versions))
    data = build(
        config.data, "data", shape_model=shape_model, identity=identity, renderer=renderer,
        resolution=config.resolution, fingerprint=fingerprint,
    )  # fmt: skip
    settings = {key: value for key, value in plain(config.data).items() if key not in PLACES}
    content = getattr(data, "content", None)  # what the settings do not say: files, or the version of the code
    return data, config_hash(fingerprint, settings, content)
