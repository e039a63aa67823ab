"""Where metrics, pictures, meshes, tables and artifacts of a run are shown: one small interface, several dashboards."""

from fitdiff.tracker import mlflow, tensorboard, trackio, wandb
from fitdiff.tracker.base import Artifact, NoTracker, Status, TrackedRun, Tracker
from fitdiff.tracker.several import Trackers, build_trackers

__all__ = [
    "Artifact", "NoTracker", "Status", "TrackedRun", "Tracker", "Trackers", "build_trackers", "mlflow", "tensorboard",
    "trackio", "wandb",
]  # fmt: skip
