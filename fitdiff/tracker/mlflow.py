"""MLflow: `mlflow ui --backend-store-uri sqlite:///outputs/dashboards/mlflow/mlflow.db`, or a server's URI."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from fitdiff.registry import register
from fitdiff.report.runs import flatten
from fitdiff.tracker.base import Artifact, Status, TrackedRun, Tracker, columns
from fitdiff.tracker.several import require

RUN_TAG = "fitdiff.run"
ENDED = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
LONGEST, MOST = 6000, 100
"""Characters of a parameter, and parameters a request, that MLflow takes."""


@register("tracker", "mlflow")
class MlflowTracker(Tracker):
    """All runs in one SQLite store, by default `<outputs>/dashboards/mlflow`. The slim package `mlflow-skinny` will do.

    Args:
        experiment: a store may hold several. uri: of a server, or null for the local store.
    """

    def __init__(self, *, experiment: str = "fitdiff", uri: str | None = None) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before its import, which would send who we are
        needed = "mlflow-skinny" if uri else "mlflow-skinny sqlalchemy alembic"
        for package in ("mlflow",) if uri else ("mlflow", "sqlalchemy", "alembic"):
            require(package, needed)
        self.experiment, self.uri = experiment, uri
        self.client: Any = None
        self.id = ""

    def start(self, run: TrackedRun) -> None:
        """Open the run that has the folder's tag, or a new one."""
        from mlflow.tracking import MlflowClient

        for chatty in ("alembic", "mlflow"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        if self.uri:
            self.client = MlflowClient(tracking_uri=self.uri)
            experiment = self._experiment(None)
        else:
            store = run.shared("mlflow")
            store.mkdir(parents=True, exist_ok=True)
            with FileLock(store / ".lock"):  # of runs that start together, one makes the store
                self.client = MlflowClient(tracking_uri=f"sqlite:///{store / 'mlflow.db'}")
                experiment = self._experiment((store / "artifacts").as_uri())
        known = self.client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{run.identifier}'")
        tags = {RUN_TAG: run.identifier, "job_type": run.job_type, "group": run.compared_with or ""}
        tags |= {f"tag.{tag}": "true" for tag in run.tags}
        entity = known[0] if known else self.client.create_run(experiment, tags=tags, run_name=run.name)
        self.id = entity.info.run_id
        self.client.update_run(self.id, status="RUNNING")
        self._log_parameters(run.settings, entity.data.params)

    def logged(self) -> dict[str, int]:
        """From the store."""
        metrics = self.client.get_run(self.id).data.metrics
        newest = {name: max(m.step for m in self.client.get_metric_history(self.id, name)) for name in metrics}
        for path, step in self._pictures():
            newest[path] = max(step, newest.get(path, -1))
        return newest

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Log scalars at a step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.id, [Metric(name, float(value), now, step) for name, value in scalars.items()])

    def log_images(self, images: Mapping[str, np.ndarray], step: int) -> None:
        """Log pictures at a step."""
        for name, image in images.items():
            self.client.log_image(self.id, image, key=name, step=step)

    def log_mesh(self, name: str, path: Path, step: int) -> None:
        """Log a GLB among the run's files."""
        self.client.log_artifact(self.id, str(path), f"meshes/{name}/{step}")

    def log_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log a table, in the form that MLflow shows and compares (`log_table`, which needs pandas)."""
        header = columns(rows)
        data = [[row.get(key) for key in header] for row in rows]
        file, tag = f"{name}.json", "mlflow.loggedArtifacts"
        self.client.log_dict(self.id, {"columns": header, "data": data}, file)
        tables = json.loads(self.client.get_run(self.id).data.tags.get(tag, "[]"))
        entry = {"path": file, "type": "table"}
        self.client.set_tag(self.id, tag, json.dumps([*(t for t in tables if t != entry), entry]))

    def log_artifact(self, artifact: Artifact, uses: Sequence[Artifact] = ()) -> None:
        """Log what the artifact is, where its files are, and what it was made from; to a server, the files as well."""
        self.client.log_dict(self.id, artifact.describe(uses), f"artifacts/{artifact.name}.json")
        for path in artifact.files() if self.uri else ():
            self.client.log_artifact(self.id, str(path), f"artifacts/{artifact.name}")
        for used in uses:
            self.use_artifact(used)

    def use_artifact(self, artifact: Artifact) -> None:
        """Record an input of the run."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = json.dumps({"folder": None if artifact.folder is None else str(artifact.folder)})
        used = Dataset(artifact.name, artifact.name.rpartition("-")[2][:36], "local", source)
        self.client.log_inputs(self.id, [DatasetInput(used, [InputTag("mlflow.data.context", artifact.kind)])])

    def finish(self, status: Status = "finished") -> None:
        """Mark how the run ended, if it has."""
        if status in ENDED:
            self.client.set_terminated(self.id, ENDED[status])

    def _experiment(self, place: str | None) -> str:
        found = self.client.get_experiment_by_name(self.experiment)
        return found.experiment_id if found else self.client.create_experiment(self.experiment, place)

    def _log_parameters(self, config: Mapping[str, Any], known: Mapping[str, str]) -> None:
        """Those that are new: MLflow lets none change, as where a run goes on with another `trainer.log_every`."""
        from mlflow.entities import Param

        leaves = flatten(dict(config)) if config else {}
        flat = {re.sub(r"[^\w\-. :/]", "_", name): str(value)[:LONGEST] for name, value in leaves.items()}
        new = [Param(name, value) for name, value in flat.items() if name not in known]
        for first in range(0, len(new), MOST):
            self.client.log_batch(self.id, params=new[first : first + MOST])

    def _pictures(self) -> list[tuple[str, int]]:
        """(name, step) of the pictures in the store, by the names that MLflow gives their files."""
        files = self.client.list_artifacts(self.id, "images")
        matches = (re.fullmatch(r"images/(.+)[%+]step[%+](\d+)[%+]timestamp.*\.png", file.path) for file in files)
        return [(re.sub("[#~]", "/", match[1]), int(match[2])) for match in matches if match]
