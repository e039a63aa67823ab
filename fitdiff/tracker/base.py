"""What is tracked, and what a tracker is. Trackers show a run; the run's own files stay the source of truth."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fitdiff.registry import register
from fitdiff.storage import read_json, write_json

DASHBOARDS = "dashboards"
"""Folder, among the runs, of stores that all of them share: a dashboard compares the runs of one store."""

IDENTITIES = ".tracked.json"
"""File in a run's folder: what decided a result -> the identifier that dashboards know it by."""

LONGEST_NAME = 120
"""Characters; W&B takes 128 of an artifact's name."""

Status = Literal["finished", "failed", "stopped", "running"]
"""How a run ended; `stopped` was asked to, `running` has not ended."""


@dataclass(frozen=True)
class TrackedRun:
    """A run as dashboards know it.

    Attributes:
        folder: of its results. name: unique among the runs in `outputs`; `<experiment>/<variant>` in an experiment.
        config: plain values. outputs: folder of all runs; None: that of `folder`.
        decided_by: what tells one result in this folder from another: a training's last stage, an evaluation's date.
        job_type: train or evaluate. group: runs that are compared; None: the part of the name before the last slash.
        tags: to filter by. origin: code, data and packages (`training.provenance`).
    """

    folder: Path
    name: str
    config: Mapping[str, Any]
    outputs: Path | None = None
    job_type: str = "train"
    group: str | None = None
    tags: tuple[str, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)
    decided_by: str = ""

    @property
    def identifier(self) -> str:
        """Random, made once for what the folder's result is decided by, and kept there.

        So the same command continues the same run, another config under the same name is another run, and folders of
        one path on two machines are two.
        """
        path = self.folder / IDENTITIES
        kept = read_json(path)
        known = kept if isinstance(kept, dict) else {}
        if self.decided_by not in known:
            known[self.decided_by] = uuid.uuid4().hex[:12]
            write_json(path, known)
        return known[self.decided_by]

    @property
    def settings(self) -> dict[str, Any]:
        """The config, with the origin beside it."""
        return {**self.config, **({"origin": dict(self.origin)} if self.origin else {})}

    @property
    def compared_with(self) -> str | None:
        """The group's name."""
        return self.group or self.name.rpartition("/")[0] or None

    def shared(self, name: str) -> Path:
        """Folder of a store of all runs."""
        return ((self.outputs or self.folder.parent) / DASHBOARDS / name).resolve()


@dataclass(frozen=True)
class Artifact:
    """Something that a run makes or uses.

    Attributes:
        name: holds the hash of what it was made from; what `safe_name` makes of it.
        kind: data, checkpoint, model or evaluation.
        folder: the files directly in it are the artifact; None: it has no files, only `about`.
        about: what it is, in plain values.
    """

    name: str
    kind: str
    folder: Path | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", safe_name(self.name.replace("/", "_")))

    def files(self) -> list[Path]:
        """Its files by name; hidden ones and folders are no part of it."""
        if self.folder is None:
            return []
        return sorted(path for path in self.folder.iterdir() if path.is_file() and not path.name.startswith("."))

    def describe(self, uses: Sequence[Artifact] = ()) -> dict[str, Any]:
        """Name, kind, what it was made from, and its files: where they are, their sizes and their SHA-256."""
        files = {path.name: {"bytes": path.stat().st_size, "sha256": _digest(path)} for path in self.files()}
        where = None if self.folder is None else str(self.folder)
        made = {"name": self.name, "kind": self.kind, "about": dict(self.about), "folder": where, "files": files}
        return made | {"uses": [used.name for used in uses]}


class Tracker:
    """Receives what a run has to show; only the main process calls it. A tracker overrides what it can show.

    Names are as in `diffusion/loss_noise`: the part before the first slash is a stage, whose steps count for all its
    names. Steps of one name only grow.
    """

    def start(self, run: TrackedRun) -> None:
        """Open the run; the same folder continues the same run."""

    def logged(self) -> dict[str, int]:
        """Newest step of each scalar and picture that earlier sessions of this run have brought to the store."""
        return {}

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Log scalars, finite ones."""

    def log_images(self, images: Mapping[str, np.ndarray], step: int) -> None:
        """Log uint8 (H, W, 3) pictures."""

    def log_mesh(self, name: str, path: Path, step: int) -> None:
        """Log a mesh, a binary glTF (.glb)."""

    def log_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log a table, one row an item, such as a photo; a row may lack columns."""

    def log_artifact(self, artifact: Artifact, uses: Sequence[Artifact] = ()) -> None:
        """Record what the run made, and what it was made from."""

    def use_artifact(self, artifact: Artifact) -> None:
        """Record what the run uses and another has made."""

    def finish(self, status: Status = "finished") -> None:
        """Flush and close; `status` tells how the run ended."""


@register("tracker", "none")
class NoTracker(Tracker):
    """Shows nothing."""


def safe_name(name: str) -> str:
    """The name, where every dashboard takes it: of letters of ASCII, digits, `_`, `.`, `-` and `/`, and not too long.

    Else what they refuse is replaced, and digits of a hash keep two names two.
    """
    safe = re.sub(r"[^A-Za-z0-9_.\-/]+", "_", name)
    if safe == name and len(name) <= LONGEST_NAME:
        return name
    return f"{safe[: LONGEST_NAME - 7]}-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:6]}"


def columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Columns of a table in the order in which its rows name them."""
    return list(dict.fromkeys(key for row in rows for key in row))


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 24):
            digest.update(part)
    return digest.hexdigest()
