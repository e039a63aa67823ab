"""Trackio: a dashboard without account or server. `TRACKIO_DIR=outputs/dashboards/trackio trackio show`."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from fitdiff.registry import register
from fitdiff.storage import write_json
from fitdiff.tracker.base import Artifact, Status, TrackedRun, Tracker, columns
from fitdiff.tracker.several import require

AWAY = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
"""Variables of the environment by which Trackio sends runs elsewhere."""

IDENTIFIER = "identifier"
"""Where a run's config has what tells it from another of the same name."""


@register("tracker", "trackio")
class TrackioTracker(Tracker):
    """All runs in one local store, by default `<outputs>/dashboards/trackio`; nothing leaves the machine.

    Args:
        project: a store may hold several. group: None is the experiment. folder: of the store.
    """

    def __init__(self, *, project: str = "fitdiff", group: str | None = None, folder: str | None = None) -> None:
        require("trackio", "trackio")
        if away := [name for name in AWAY if os.environ.get(name)]:
            raise ValueError(
                f"{' and '.join(away)} would send runs to a server, and tracker=trackio keeps them on this machine: "
                f"unset {' '.join(away)}"
            )
        self.project, self.group, self.folder = project, group, folder
        self.run: Any = None
        self._store = Path()

    def start(self, run: TrackedRun) -> None:
        """Open the run, or go on with it; where another has its name, as `<name>-<identifier>`.

        Raises:
            RuntimeError: this process uses another store already; Trackio knows one a process.
        """
        self._store = (Path(self.folder) if self.folder else run.shared("trackio")).resolve()
        trackio = _trackio(self._store)
        identifier = run.identifier
        config = {**run.settings, "tags": list(run.tags), "job_type": run.job_type, IDENTIFIER: identifier}
        with _quiet():
            self.run = trackio.init(
                project=self.project, name=self._free_name(run.name, identifier), config=config,
                group=self.group or run.compared_with, resume="allow", embed=False,
                auto_log_cpu=False, auto_log_gpu=False,
            )  # fmt: skip

    def logged(self) -> dict[str, int]:
        """From the store."""
        from trackio.sqlite_storage import SQLiteStorage

        newest: dict[str, int] = {}
        for entry in SQLiteStorage.get_logs(self.project, self.run.name):
            for name in entry:
                newest[name] = max(entry["step"], newest.get(name, -1))
        return newest

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Log scalars at a step."""
        self.run.log(dict(scalars), step=step)

    def log_images(self, images: Mapping[str, np.ndarray], step: int) -> None:
        """Log pictures at a step."""
        import trackio

        self.run.log({name: trackio.Image(image) for name, image in images.items()}, step=step)

    def log_mesh(self, name: str, path: Path, step: int) -> None:
        """Log a GLB as an object that can be turned."""
        import trackio

        self.run.log({name: trackio.Object3D(str(path))}, step=step)

    def log_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log a table."""
        import trackio

        header = columns(rows)
        table = trackio.Table(
            columns=header, data=[[row.get(key) for key in header] for row in rows], allow_mixed_types=True
        )
        self.run.log({name: table}, step=0)

    def log_artifact(self, artifact: Artifact, uses: Sequence[Artifact] = ()) -> None:
        """Record a version with references to its files, which stay where they are, and what it was made from."""
        for used in uses:
            self.use_artifact(used)
        self.run.log_artifact(self._pack(artifact, uses))

    def use_artifact(self, artifact: Artifact) -> None:
        """Record that this run consumes an artifact, of whichever run."""
        try:
            self.run.use_artifact(artifact.name)
        except ValueError:  # the store does not know it yet
            self.run.use_artifact(self.run.log_artifact(self._pack(artifact)))

    def finish(self, status: Status = "finished") -> None:
        """Write what is queued."""
        import trackio

        with _quiet():
            trackio.finish()

    def _free_name(self, name: str, identifier: str) -> str:
        from trackio.sqlite_storage import SQLiteStorage

        holder = SQLiteStorage.get_run_config(self.project, name)
        return name if holder is None or holder.get(IDENTIFIER) == identifier else f"{name}-{identifier}"

    def _pack(self, artifact: Artifact, uses: Sequence[Artifact] = ()) -> Any:
        import trackio

        about = {**artifact.about, "uses": [used.name for used in uses]}
        packed = trackio.Artifact(artifact.name, type=artifact.kind, metadata=about)
        for path in artifact.files():
            packed.add_reference(path.resolve().as_uri(), name=path.name)
        if not artifact.files():  # none is refused
            about = self._store / "descriptions" / f"{artifact.name}.json"
            write_json(about, artifact.describe())
            packed.add_reference(about.as_uri(), name=about.name)
        return packed


def _trackio(folder: Path) -> Any:
    """The package, which reads its store's place from the environment when it is imported."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TRACKIO_DIR"] = str(folder)
    import trackio
    import trackio.run as runs
    from trackio.utils import TRACKIO_DIR

    if TRACKIO_DIR.resolve() != folder:
        raise RuntimeError(f"this process has Trackio's store in {TRACKIO_DIR} already, which cannot become {folder}")
    # A token on this machine would make it ask the Hub for a user name, of which a local store has no need.
    runs._get_default_namespace = lambda: None
    return trackio


@contextmanager
def _quiet() -> Iterator[None]:
    with redirect_stdout(io.StringIO()):
        yield
