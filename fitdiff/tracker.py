"""Where metrics and pictures of a run go. Trackers of Accelerate's family behind one small interface."""

from __future__ import annotations

import hashlib
import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fitdiff.registry import register


class Tracker(Protocol):
    """Receives scalars and pictures; only the main process calls it."""

    def start(self, run_dir: Path, name: str, config: Mapping[str, Any]) -> None:
        """Open the run; the same run_dir continues the same run."""

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Log scalars, named as in `train/loss_id`."""

    def log_images(self, images: Mapping[str, np.ndarray], step: int) -> None:
        """Log uint8 (H, W, 3) pictures."""

    def finish(self) -> None:
        """Flush and close."""


@register("tracker", "none")
class NoTracker:
    """Logs nothing."""

    def start(self, run_dir: Path, name: str, config: Mapping[str, Any]) -> None:
        """Nothing."""

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Nothing."""

    def log_images(self, images: Mapping[str, np.ndarray], step: int) -> None:
        """Nothing."""

    def finish(self) -> None:
        """Nothing."""


def _logged_in() -> bool:
    """Whether `wandb login` or WANDB_API_KEY has left a key; asks no server."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return "api.wandb.ai" in netrc.netrc().hosts
    except (FileNotFoundError, netrc.NetrcParseError):
        return False


@register("tracker", "wandb")
class WandbTracker:
    """Weights & Biases; offline unless logged in, so that nothing leaves the machine unasked.

    Offline runs lie in `<run_dir>/wandb`; `wandb sync <run_dir>/wandb/offline-*` uploads them later.
    """

    def __init__(
        self,
        *,
        project: str = "fitdiff",
        entity: str | None = None,
        group: str | None = None,
        tags: tuple[str, ...] = (),
        mode: str = "auto",
    ) -> None:
        """`mode`: auto (online if a key is configured) | online | offline."""
        self.settings = {"project": project, "entity": entity, "group": group, "tags": list(tags)}
        self.mode = mode
        self.run: Any = None

    def start(self, run_dir: Path, name: str, config: Mapping[str, Any]) -> None:
        """Open the run; its id is a hash of the run's folder, so that the same command continues it."""
        import wandb

        mode = self.mode
        if mode == "auto":
            mode = "online" if _logged_in() else "offline"
        identifier = hashlib.sha256(str(run_dir.resolve()).encode()).hexdigest()[:12]
        self.run = wandb.init(
            dir=str(run_dir),
            name=name,
            id=identifier,
            resume="allow" if mode == "online" else None,
            mode=mode,
            config=dict(config),
            settings=wandb.Settings(silent=True),
            **self.settings,
        )

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Log scalars at a step."""
        self._log(scalars, step)

    def log_images(self, images: Mapping[str, np.ndarray], step: int) -> None:
        """Log pictures at a step."""
        import wandb

        self._log({name: wandb.Image(image) for name, image in images.items()}, step)

    def _log(self, values: Mapping[str, Any], step: int) -> None:
        """Each stage counts its own steps, so each gets an axis of its own (`<stage>/step`)."""
        for stage in sorted({name.split("/")[0] for name in values}):
            self.run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            own = {name: value for name, value in values.items() if name.startswith(f"{stage}/")}
            self.run.log({**own, f"{stage}/step": step})

    def finish(self) -> None:
        """Flush and close."""
        self.run.finish()
