"""What is tracked, and what a tracker is. Trackers show a run; the run's own files stay the source of truth."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fitdiff.registry import register

GOALS = (
    ("max", r"psnr|cosine|similarity|tar_at|in_use"),
    ("min", r"loss|error|_mm\b|lpips|median|mean_mm|seconds"),
)
"""Which way a metric is better, by what its name contains; others have no goal."""

DASHBOARDS = "dashboards"
"""Folder, among the runs, of stores that all of them share: a dashboard compares the runs of one store."""


@dataclass(frozen=True)
class TrackedRun:
    """A run as dashboards know it.

    Attributes:
        folder: of its results. name: unique among the runs in `outputs`; `<experiment>/<variant>` in an experiment.
        config: plain values. outputs: folder of all runs; None: that of `folder`.
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

    @property
    def identifier(self) -> str:
        """Hash of the folder, so that the same command continues the same run."""
        return hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:12]

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
        name: holds the hash of what it was made from. kind: data, checkpoint, model or evaluation.
        folder: the files directly in it are the artifact; None: it has no files, only `about`.
        about: what it is, in plain values.
    """

    name: str
    kind: str
    folder: Path | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

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

    def finish(self) -> None:
        """Flush and close."""


@register("tracker", "none")
class NoTracker(Tracker):
    """Shows nothing."""


def goal(name: str) -> str | None:
    """`min` or `max`: which way the metric of that name is better; None if its name does not say."""
    return next((way for way, pattern in GOALS if re.search(pattern, name.rpartition("/")[2])), None)


def columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Columns of a table in the order in which its rows name them."""
    return list(dict.fromkeys(key for row in rows for key in row))


def leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`("trainer.cpu", False)` for every value of a nested config."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 24):
            digest.update(part)
    return digest.hexdigest()
