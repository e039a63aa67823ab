"""All photos of a copy of REALY, measured in parallel processes; a file a photo, so that nothing is done twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fitdiff.data.workers import cores, worker_processes
from fitdiff.evaluation.file_digest import digest_of
from fitdiff.evaluation.mesh_files import read_mesh
from fitdiff.evaluation.realy.folder import RealyFolder, person_of
from fitdiff.evaluation.realy.keypoints import REGIONS, Keypoints
from fitdiff.evaluation.realy.regions import region_errors
from fitdiff.storage import read_json, write_json

PROTOCOL = 1
"""Raise it when the same files would give other errors."""


@dataclass(frozen=True)
class Template:
    """What all predictions have in common.

    Attributes:
        keypoints: on them. hidden: (V,) bool, vertices inside of the mouth, whose triangles are no surface of the face.
    """

    keypoints: Keypoints
    hidden: np.ndarray | None = None

    def fingerprint(self) -> str:
        """Changes with the keypoints and with what is hidden."""
        arrays = (self.keypoints.corners, self.keypoints.weights, self.hidden)
        return hashlib.sha256(b"|".join(b"" if a is None else a.tobytes() for a in arrays)).hexdigest()


@dataclass(frozen=True)
class Measured:
    """One photo: errors in mm by region, or why there are none."""

    name: str
    errors: Mapping[str, float] | None
    fault: str = ""


def measure_all(
    folder: RealyFolder, predictions: Mapping[str, Path], template: Template, kept: Path, workers: int | None
) -> Iterator[Measured]:
    """Measure photos, in whatever order they are done.

    Args:
        predictions: name of the photo -> mesh. kept: folder of results, from which those that stand are taken.
        workers: processes; None is one a core.
    """
    jobs = [(folder, name, mesh, template, kept) for name, mesh in predictions.items()]
    workers = min(workers or cores(), len(jobs))
    if workers <= 1:
        yield from (measure(*job) for job in jobs)
        return
    with worker_processes(workers, _nothing) as pool:
        for future in as_completed([pool.submit(measure, *job) for job in jobs]):
            yield future.result()


def measure(folder: RealyFolder, name: str, mesh: Path, template: Template, kept: Path) -> Measured:
    """Errors of one photo's mesh, from `kept` if its files are those of then.

    A prediction or a scan that is damaged is the photo's fault, not the end of the work.
    """
    person = person_of(name)
    path = kept / f"{name}.json"
    try:
        key = digest_of([mesh], folder.fingerprint(person), template.fingerprint(), str(PROTOCOL))
    except OSError as error:
        return Measured(name, None, f"{error.filename}: cannot be read: {error.strerror}")
    stored = read_json(path)
    if isinstance(stored, dict) and stored.get("key") == key and set(stored.get("errors", ())) == set(REGIONS):
        return Measured(name, stored["errors"])
    try:
        prediction = read_mesh(mesh)
        keypoints, faces = template.keypoints(prediction.vertices), prediction.faces
        if template.hidden is not None:
            faces = faces[~template.hidden[faces].any(1)]
        errors = region_errors(prediction.vertices, faces, keypoints, folder.scan(person))
    except ValueError as error:
        return Measured(name, None, str(error))
    write_json(path, {"key": key, "errors": errors})
    return Measured(name, errors)


def _nothing() -> None:
    """Workers need no state."""
