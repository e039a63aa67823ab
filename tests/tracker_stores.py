"""What each tracker's store holds, read by the tracker's own reader: `READERS[name](run) -> Store`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fitdiff.tracker import TrackedRun


@dataclass
class Store:
    """Points are (step, value) in the order in which the store gives them; lineage is artifact or run -> names."""

    scalars: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    images: dict[str, list[tuple[int, np.ndarray]]] = field(default_factory=dict)
    meshes: dict[str, int] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    artifacts: dict[str, list[str]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    config: str = ""
    group: str | None = None
    failed: bool | None = None
    """Whether the last session is shown as failed; None: the store has no place for it."""


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def read_wandb(run: TrackedRun) -> Store:
    from fitdiff.tracker.wandb_file import history, records

    store = Store()
    for file in sorted(run.folder.glob(f"wandb/offline-run-*-{run.identifier}/*.wandb")):
        for entry in history(file):
            for name, value in entry.items():
                step = entry.get(f"{name.partition('/')[0]}/step")
                if not isinstance(value, dict):
                    store.scalars.setdefault(name, []).append((step, value))
                    continue
                path = file.parent / "files" / value["path"]
                if value["_type"] == "image-file":
                    store.images.setdefault(name, []).append((step, pixels(path)))
                elif value["_type"] == "object3D-file":
                    store.meshes[name] = path.stat().st_size
                elif value["_type"] == "table-file":
                    table = json.loads(path.read_text())
                    store.tables[name] = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
        for record in records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                assert record.run.run_id == run.identifier
                store.group = record.run.run_group
                store.config = " ".join(f"{item.key}={item.value_json}" for item in record.run.config.update)
            if kind == "exit":
                store.failed = record.exit.exit_code != 0
            if kind == "artifact" and record.artifact.use_after_commit:
                store.used.add(record.artifact.name)
            elif kind == "artifact" and record.artifact.type != "run_table":  # W&B keeps tables as artifacts
                store.artifacts[record.artifact.name] = json.loads(record.artifact.metadata)["uses"]
    return store


def read_tensorboard(run: TrackedRun) -> Store:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(
        str(run.folder / "tensorboard" / run.identifier), {"scalars": 0, "images": 0, "tensors": 0}
    ).Reload()
    tags, store = events.Tags(), Store()
    store.scalars = {name: [(e.step, e.value) for e in events.Scalars(name)] for name in tags["scalars"]}
    for name in tags["images"]:
        decoded = ((e.step, e.encoded_image_string) for e in events.Images(name))
        store.images[name] = [(step, pixels(_file(data))) for step, data in decoded]
    texts = {}
    for name in tags["tensors"]:
        tensor = events.Tensors(name)[-1].tensor_proto
        if name.endswith("/text_summary"):
            texts[name.removesuffix("/text_summary")] = tensor.string_val[0].decode()
        elif name.endswith("_VERTEX"):
            store.meshes[name.removesuffix("_VERTEX")] = tensor.tensor_shape.dim[1].size
    for name, text in texts.items():
        if text.startswith("|"):
            lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
            store.tables[name] = [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]
        elif name.startswith("artifacts/"):
            about = json.loads(text.strip("`").removeprefix("json"))
            store.artifacts[about["name"]] = about["uses"]
        elif name.startswith("uses/"):
            store.used.add(name.removeprefix("uses/"))
    store.config = texts["config"]
    store.group = json.loads(texts["config"].strip("`").removeprefix("json"))["group"]
    return store


def read_trackio(run: TrackedRun) -> Store:
    from trackio.sqlite_storage import SQLiteStorage
    from trackio.utils import MEDIA_DIR

    store = Store()
    configs = {name: SQLiteStorage.get_run_config("fitdiff", name) for name in SQLiteStorage.get_runs("fitdiff")}
    (name_there,) = (name for name, config in configs.items() if config["identifier"] == run.identifier)
    for entry in SQLiteStorage.get_logs("fitdiff", name_there):
        for name, value in entry.items():
            if name in ("step", "timestamp"):
                continue
            if not isinstance(value, dict):
                store.scalars.setdefault(name, []).append((entry["step"], value))
            elif value["_type"] == "trackio.image":
                store.images.setdefault(name, []).append((entry["step"], pixels(MEDIA_DIR / value["file_path"])))
            elif value["_type"] == "trackio.object3d":
                store.meshes[name] = (MEDIA_DIR / value["file_path"]).stat().st_size
            elif value["_type"] == "trackio.table":
                store.tables[name] = value["_value"]
    config = configs[name_there]
    store.config, store.group = json.dumps(config), config["_Group"]
    links = SQLiteStorage.get_run_artifacts("fitdiff", name_there, None)
    store.used = {used["name"] for used in links["input"]}
    for made in (made for made in links["output"] if made["name"] not in store.used):
        metadata = SQLiteStorage.get_artifact_manifest("fitdiff", made["name"], f"v{made['version']}")["metadata"]
        store.artifacts[made["name"]] = metadata["uses"]
    return store


def read_mlflow(run: TrackedRun) -> Store:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{run.shared('mlflow')}/mlflow.db")
    experiment = client.get_experiment_by_name("fitdiff").experiment_id
    (entity,) = client.search_runs([experiment], f"tags.`fitdiff.run` = '{run.identifier}'")
    store, key = Store(), entity.info.run_id
    for name in entity.data.metrics:
        store.scalars[name] = [(m.step, m.value) for m in client.get_metric_history(key, name)]
    place = Path(entity.info.artifact_uri.removeprefix("file://"))
    for path in sorted((place / "images").glob("*.png")):
        match = re.match(r"(.+)\+step\+(\d+)\+", path.name)
        store.images.setdefault(match[1].replace("~", "/"), []).append((int(match[2]), pixels(path)))
    for path in place.glob("meshes/**/*.glb"):
        store.meshes[path.relative_to(place / "meshes").parent.parent.as_posix()] = path.stat().st_size
    for table in json.loads(entity.data.tags.get("mlflow.loggedArtifacts", "[]")):
        content = json.loads((place / table["path"]).read_text())
        rows = [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]
        store.tables[table["path"].removesuffix(".json")] = rows
    for path in (place / "artifacts").glob("*.json"):
        about = json.loads(path.read_text())
        store.artifacts[about["name"]] = about["uses"]
    store.used = {used.dataset.name for used in entity.inputs.dataset_inputs}
    store.config = " ".join(f"{name}={value}" for name, value in entity.data.params.items())
    store.group, store.failed = entity.data.tags["group"], entity.info.status != "FINISHED"
    return store


def _file(data: bytes) -> Any:
    import io

    return io.BytesIO(data)


READERS = {"wandb": read_wandb, "tensorboard": read_tensorboard, "trackio": read_trackio, "mlflow": read_mlflow}
