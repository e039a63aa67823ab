"""What `fit.py` would choose under some overrides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from fitdiff.config import plain, register_schemas
from fitdiff.registry import build, load_plugins
from fitdiff.types import GuidanceTerm

CONF = Path(__file__).parents[2] / "conf"


@dataclass(frozen=True)
class Preset:
    """Config nodes of a way to fit: `guidance` holds one a term."""

    guidance: Mapping[str, Any]
    fitting: Mapping[str, Any]
    sampler: Mapping[str, Any]

    @cached_property
    def terms(self) -> dict[str, GuidanceTerm]:
        """The terms, built once: networks are large, and features of photos are kept."""
        return {name: build(node, "guidance") for name, node in self.guidance.items()}

    @property
    def size(self) -> int:
        """Side of the fitted crop in pixels."""
        return build(self.fitting, "fitting").size


def compose_preset(overrides: str) -> Preset:
    """The preset of `python fit.py <overrides>`.

    Args:
        overrides: separated by spaces, such as `guidance=paper fitting=guided fitting.steps=25`.

    Raises:
        ValueError: Hydra does not take the overrides.
    """
    load_plugins()
    register_schemas()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("fit", overrides.split())
    except HydraException as error:
        raise ValueError(f"preset {overrides!r}: {' '.join(str(error).split())}") from error
    return Preset(*(plain(config[key]) for key in ("guidance", "fitting", "sampler")))
