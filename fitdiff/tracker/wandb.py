"""Weights & Biases: curves, pictures, 3D objects, tables, and artifacts with their lineage; offline, too."""

from __future__ import annotations

import json
import math
import netrc
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from fitdiff.registry import register
from fitdiff.report.metrics import higher_is_better
from fitdiff.tracker.base import Artifact, Status, TrackedRun, Tracker, columns
from fitdiff.tracker.wandb_file import history

MODES = {"online": "online", "run": "online", "offline": "offline", "dryrun": "offline", "disabled": "disabled"}
"""What WANDB_MODE may say, and what W&B takes it for."""

STEPS = "logged"
"""Where the summary has the newest step of every name, as JSON: as a table it would crowd out the metrics."""


@register("tracker", "wandb")
class WandbTracker(Tracker):
    """Weights & Biases; offline unless logged in, so that nothing leaves the machine unasked.

    Offline runs lie in `<run>/wandb`; `wandb sync <run>/wandb/offline-*` uploads them later. Each session of a run is a
    file of its own there, of the same run id and with growing steps, so that they are synced into one run.

    Args:
        project, entity: where runs go. group: None is the experiment. tags: besides those of the run.
        mode: auto (as WANDB_MODE says, else online if a key is configured) | online | offline.
        files: artifacts carry their files; else only what they are made from.
    """

    def __init__(
        self,
        *,
        project: str = "fitdiff",
        entity: str | None = None,
        group: str | None = None,
        tags: tuple[str, ...] = (),
        mode: str = "auto",
        files: bool = True,
    ) -> None:
        if mode not in ("auto", "online", "offline"):
            raise ValueError(f"tracker.wandb.mode is {mode!r}; expected auto, online or offline")
        self.settings = {"project": project, "entity": entity}
        self.group, self.tags, self.files = group, tuple(tags), files
        self.mode = mode if mode != "auto" else _asked_mode()
        self.run: Any = None
        self.row = 0
        self._folder = Path()
        self._earlier: list[dict[str, Any]] = []
        self._defined: set[str] = set()
        self._best: dict[str, float] = {}
        self._steps: dict[str, int] = {}

    def start(self, run: TrackedRun) -> None:
        """Open the run; its id is the run's identifier, or WANDB_RUN_ID where that is set."""
        import wandb

        self._folder = run.folder
        run.folder.mkdir(parents=True, exist_ok=True)
        identifier = os.environ.get("WANDB_RUN_ID") or run.identifier  # a sweep's agent names its runs itself
        self._earlier = list(self._sessions(identifier)) if self.mode == "offline" else []
        self._await_own_second(identifier)
        self.row = 1 + max((entry["_step"] for entry in self._earlier), default=-1)
        self.run = wandb.init(
            dir=str(run.folder),
            name=run.name,
            id=identifier,
            group=self.group or run.compared_with,
            tags=list(dict.fromkeys([*run.tags, *self.tags])),
            job_type=run.job_type,
            resume="allow" if self.mode == "online" else None,
            reinit="finish_previous",  # else this would be what an earlier run of the process left open
            mode=self.mode,
            config=run.settings,
            settings=wandb.Settings(silent=True),
            **self.settings,
        )
        if self.mode == "online":
            self.row = self.run.step
            self._steps = json.loads(dict(self.run.summary).get(STEPS, "{}"))
            self._best = {
                n.removeprefix("best/"): v for n, v in dict(self.run.summary).items() if n.startswith("best/")
            }
        for entry in self._earlier:
            self._best |= self._improved(entry)
            steps = {name: entry.get(_axis(name)) for name in entry}
            self._steps |= {name: int(step) for name, step in steps.items() if step is not None}

    def logged(self) -> dict[str, int]:
        """Offline, from the files of earlier sessions; online, as the summary has it."""
        return dict(self._steps)

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Log scalars at a step. The summary has the newest, which sweeps go by, and as `best/<name>` the best."""
        self._log(scalars, step)
        best = self._improved(scalars)
        self._best |= best
        self.run.summary.update({f"best/{name}": value for name, value in best.items()})

    def log_images(self, images: Mapping[str, np.ndarray], step: int) -> None:
        """Log pictures at a step."""
        import wandb

        self._log({name: wandb.Image(image) for name, image in images.items()}, step)

    def log_mesh(self, name: str, path: Path, step: int) -> None:
        """Log a GLB as a 3D object that can be turned."""
        import wandb

        self._log({name: wandb.Object3D(str(path))}, step)

    def log_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log a table that can be sorted, filtered and joined over runs."""
        import wandb

        header = columns(rows)
        table = wandb.Table(columns=header, data=[[row.get(key) for key in header] for row in rows])
        self._log({name: table}, 0)

    def log_artifact(self, artifact: Artifact, uses: Sequence[Artifact] = ()) -> None:
        """Log files with what they were made from: W&B draws the lineage, the metadata has it by name."""
        for used in uses:
            self.use_artifact(used)
        self.run.log_artifact(self._pack(artifact, uses))

    def use_artifact(self, artifact: Artifact) -> None:
        """Record a use; equal content is the same version, so it may be of a run that is not uploaded yet."""
        packed = self._pack(artifact)
        if self.mode == "offline":  # the public call refuses what a later sync does well
            self.run._log_artifact(packed, use_after_commit=True)
        else:
            self.run.use_artifact(packed)

    def finish(self, status: Status = "finished") -> None:
        """Flush and close: W&B's process writes the file, and only when that has ended is it whole."""
        import wandb

        self.run.finish(exit_code=int(status in ("failed", "stopped")))
        wandb.teardown()

    def _pack(self, artifact: Artifact, uses: Sequence[Artifact] = ()) -> Any:
        import wandb

        about = {**artifact.about, "uses": [used.name for used in uses]}
        packed = wandb.Artifact(artifact.name, type=artifact.kind, metadata=about)
        for path in artifact.files() if self.files else ():
            packed.add_file(str(path), policy="immutable", skip_cache=True)  # read where it is, never copied
        if not packed.manifest.entries:
            with packed.new_file("name.txt") as file:
                file.write(artifact.name)
        return packed

    def _improved(self, values: Mapping[str, Any]) -> dict[str, float]:
        """The best of each metric that can be better or worse, where one of these values is it."""
        numbers = {n: v for n, v in values.items() if isinstance(v, float | int) and math.isfinite(v)}
        better = {n: {True: max, False: min}.get(higher_is_better(n)) for n in numbers}
        return {n: v for n, v in numbers.items() if better[n] and v == better[n](v, self._best.get(n, v))}

    def _log(self, values: Mapping[str, Any], step: int) -> None:
        """Each stage counts its own steps, so each gets an axis of its own (`<stage>/step`)."""
        for axis in sorted({_axis(name) for name in values}):
            own = {name: value for name, value in values.items() if _axis(name) == axis}
            for name in own.keys() - self._defined:
                self.run.define_metric(name, step_metric=axis)
                self._defined.add(name)
            self.run.log({**own, axis: step}, step=self.row, commit=True)
            self.row += 1
        self._steps |= dict.fromkeys(values, step)
        self.run.summary[STEPS] = json.dumps(self._steps)

    def _await_own_second(self, identifier: str) -> None:
        """W&B names a session's folder by the second, and two in one second would write one file."""
        while list(self._folder.glob(f"wandb/*run-{datetime.now():%Y%m%d_%H%M%S}-{identifier}")):
            time.sleep(0.05)

    def _sessions(self, identifier: str) -> Iterator[dict[str, Any]]:
        """What earlier offline sessions logged."""
        for path in sorted(self._folder.glob(f"wandb/offline-run-*-{identifier}/*.wandb")):
            with suppress(ValueError, OSError):  # a session that was killed before it wrote anything
                yield from history(path)


def _axis(name: str) -> str:
    return f"{name.partition('/')[0]}/step"


def _asked_mode() -> str:
    return MODES.get(os.environ.get("WANDB_MODE", "")) or ("online" if _logged_in() else "offline")


def _logged_in() -> bool:
    """Whether `wandb login` or WANDB_API_KEY has left a key for W&B's server, or one's own; asks no server."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    try:
        return host in netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        return False
