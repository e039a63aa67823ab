"""What trackers get of a training besides what its stages log: how it ended, and a face that the model draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console

from fitdiff.avatar import save_glb
from fitdiff.report.runs import FAILED
from fitdiff.storage import CheckpointError, write_json
from fitdiff.tracker import Artifact, Status, TrackedRun, Trackers
from fitdiff.tracker.runs import model_artifact, trained_by
from fitdiff.training.log import tell_history
from fitdiff.uses.sampling import avatar_of

SAMPLE = "sample.glb"


@contextmanager
def tracked(trackers: Trackers, run: TrackedRun) -> Iterator[None]:
    """A run that trackers show from its start to its end, however that comes; its folder tells of a failure, too."""
    (run.folder / FAILED).unlink(missing_ok=True)
    trackers.start(run)
    status: Status = "stopped"
    try:
        yield
        status = "finished"
    except Exception as error:  # told, whatever it is, and raised again
        status = "failed"
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with suppress(OSError):  # as where the disk is full, and that is the reason
            write_json(run.folder / FAILED, {"reason": f"{type(error).__name__}: {error}", "date": date})
        raise
    finally:
        trackers.finish(status)


def show_curves(trackers: Trackers, folder: Path, stage: str, run: str) -> None:
    """Show what a run's finished stage has logged, as far as a tracker lacks it: a kill may have come between.

    Args:
        folder: of the stage. run: name of this run; where another trained the stage, the curves are that one's.
    """
    log = folder / "log.jsonl"
    if not trackers or trained_by(folder) != run or not log.exists():
        return
    try:
        tell_history(log, stage, trackers)
    except CheckpointError as error:
        Console(stderr=True).print(f"note: {error}", soft_wrap=True, highlight=False, markup=False)


def show_model(trackers: Trackers, model: Any, run_dir: Path, last: Path) -> None:
    """Record the model, and show one face that it draws, as `<run>/sample.glb`.

    Args:
        model: that was saved in `<run>/model`. last: folder of the stage that it comes from.
    """
    if not trackers:
        return
    trackers.log_artifact(model_artifact(run_dir / "model"), [Artifact(last.name, "checkpoint", last)])
    avatar = replace(avatar_of(model, model.sample(1).z), expressions={})  # dashboards show it at rest
    sample = save_glb(avatar, run_dir / SAMPLE)
    trackers.log_mesh("model/sample", sample, 0)
