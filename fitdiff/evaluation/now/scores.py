"""Distances of scans from predictions, image by image, each kept on disk: an interrupted benchmark goes on.

Legend of shape suffixes: N vertices of a cropped scan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fitdiff.data.workers import cores, worker_processes
from fitdiff.evaluation.file_digest import digest_of
from fitdiff.evaluation.mesh_files import Mesh, read_mesh
from fitdiff.evaluation.now.alignment import Aligned, align, crop, procrustes
from fitdiff.evaluation.now.folder import Item, NowError, NowFileError, NowFolder, find_prediction, read_landmarks
from fitdiff.evaluation.surface import Surface
from fitdiff.storage import CheckpointError, read_tensors, write_tensors

VERSION = 1
"""Raise when the same files give other distances: what is stored is keyed by it."""


@dataclass(frozen=True)
class Settings:
    """How predictions are laid over scans.

    Attributes:
        metrical: whether the size of a prediction counts; else its scale is fitted, too.
        unit: mm per unit of the predictions; of no consequence unless metrical.
    """

    metrical: bool = False
    unit: float = 1.0


@dataclass(frozen=True)
class Scan:
    """What of a scan counts: points (N, 3) mm, the vertices inside the crop; landmarks (7, 3) mm."""

    points: NDArray[np.float64]
    landmarks: NDArray[np.float64]

    @classmethod
    def read(cls, folder: NowFolder, subject: str) -> Scan:
        """Of a subject.

        Raises:
            NowError: a file is damaged, or no vertex lies near the landmarks.
        """
        try:
            landmarks, mesh = folder.scan_landmarks(subject), read_mesh(folder.scan(subject))
        except ValueError as error:
            raise NowError(f"{error}. Copy it again from NoW") from error
        points = crop(mesh.vertices, landmarks)
        if not len(points):
            raise NowError(
                f"{folder.scan(subject)}: none of {len(mesh.vertices)} vertices is near the landmarks of "
                f"{folder.landmarks_file(subject)}; expected both in the same millimetres"
            )
        return cls(points, landmarks)


@dataclass(frozen=True)
class Score:
    """Of one image: distance (N,) float32 mm; scale, scan units per prediction's unit; whether it converged."""

    distance: NDArray[np.float32]
    scale: float
    converged: bool


def score(mesh: Mesh, landmarks: NDArray[np.float64], scan: Scan, settings: Settings) -> Aligned:
    """Lay a prediction over a scan, and measure.

    Args:
        landmarks: (7, 3) of the prediction, in its own unit and place.

    Raises:
        ValueError: the prediction has no triangles, or has collapsed.
    """
    if not len(mesh.faces):
        raise ValueError("the mesh has no triangles")
    start = procrustes(landmarks, scan.landmarks, settings.unit if settings.metrical else None)
    if not start.scale > 0:
        raise ValueError(f"the landmarks fit at no positive scale ({start.scale:.3g}): they are not the seven points")
    return align(Surface(mesh.vertices, mesh.faces), scan.points, start, scaled=not settings.metrical)


Outcome = tuple[str, Path | None, str]
"""Key of an image, the file of its score or None, and the reason why there is none."""


def score_subject(
    folder: NowFolder, items: Sequence[Item], predictions: Path, out: Path, settings: Settings
) -> list[Outcome]:
    """Score the images of one subject, past predictions that are missing or damaged; what is on disk is kept.

    Raises:
        NowError: the scan or its landmarks are damaged.
    """
    subject = items[0].subject
    try:
        about_scan = _digest((folder.scan(subject), folder.landmarks_file(subject)), f"{VERSION} {settings}")
    except NowFileError as error:
        raise NowError(str(error)) from error
    scan = cache(lambda: Scan.read(folder, subject))  # read once, and not at all where every score is there

    def outcome(item: Item) -> Outcome:
        try:
            found = find_prediction(predictions, item.key)
            path = out / f"{item.key}-{_digest((found.mesh, found.landmarks), about_scan)[:12]}.safetensors"
            if read_score(path) is None:
                mesh, landmarks = read_mesh(found.mesh), read_landmarks(found.landmarks)
                _write_score(path, score(mesh, landmarks, scan(), settings))
            return item.key, path, ""
        except ValueError as error:
            return item.key, None, " ".join(str(error).split())

    return [outcome(item) for item in items]


def score_all(
    folder: NowFolder,
    predictions: Path,
    out: Path,
    settings: Settings,
    workers: int | None = None,
    track: Callable[[Iterable[list[Outcome]], str, int], Iterable[list[Outcome]]] = lambda results, what, total: (
        results
    ),
) -> tuple[dict[str, Score], dict[str, str]]:
    """Score every image of a folder, subject by subject, in processes.

    Args:
        predictions: folder of <subject>/<challenge>/<image>. out: folder of what is kept. workers: None is one a core.
        track: gives the results on while it shows how far the work is; see `Context.track`.

    Returns:
        Scores by key, in the folder's order; and for keys without one, why.
    """
    groups = [[item for item in folder.items if item.subject == subject] for subject in folder.subjects]
    jobs = [(folder, items, predictions, out, settings) for items in groups]
    outcomes = [
        outcome for results in track(_run(jobs, workers or cores()), "subjects", len(jobs)) for outcome in results
    ]
    found = {key: (path, reason) for key, path, reason in outcomes}
    scores: dict[str, Score] = {}
    missing: dict[str, str] = {}
    for key in (item.key for item in folder.items):
        path, reason = found[key]
        stored = path and read_score(path)
        if stored:
            scores[key] = stored
        else:
            missing[key] = reason or f"{path} was lost; run again"
    return scores, missing


def _run(jobs: Sequence[tuple[Any, ...]], workers: int) -> Iterator[list[Outcome]]:
    """Results of `score_subject`, in whatever order they come."""
    if min(workers, len(jobs)) <= 1:
        yield from (score_subject(*job) for job in jobs)
        return
    with worker_processes(min(workers, len(jobs)), _nothing) as pool:
        for future in as_completed([pool.submit(score_subject, *job) for job in jobs]):
            yield future.result()


def _nothing() -> None:
    """Worker processes need no start."""


def _digest(files: Sequence[Path], text: str) -> str:
    try:
        return digest_of(files, text)
    except OSError as error:
        raise NowFileError(f"{error.filename}: cannot be read: {error.strerror}") from None


def _write_score(path: Path, aligned: Aligned) -> None:
    numbers = torch.tensor([aligned.similarity.scale, float(aligned.converged)], dtype=torch.float64)
    write_tensors(path, {"distance": torch.from_numpy(aligned.distance.astype(np.float32)), "numbers": numbers})


def read_score(path: Path) -> Score | None:
    """What is on disk; None if nothing is, or it is damaged, so that it is made again."""
    try:
        tensors = read_tensors(path)
        scale, converged = tensors["numbers"].tolist()
        return Score(tensors["distance"].numpy(), scale, bool(converged))
    except (CheckpointError, KeyError, ValueError):
        return None


def pooled(distances: Sequence[NDArray[np.float32]]) -> dict[str, float | None]:
    """Median, mean and standard deviation over all vertices of all images, in mm: every vertex counts the same."""
    if not distances:
        return dict.fromkeys(("median", "mean", "std"))
    joint = np.concatenate(distances)
    mean = joint.mean(dtype=np.float64)
    return {"median": float(np.median(joint)), "mean": float(mean), "std": float(joint.std(dtype=np.float64))}


def cumulative(distances: Sequence[NDArray[np.float32]], thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Percentage of all vertices of all images whose distance is at most each threshold, in mm; nan without images."""
    if not distances:
        return np.full(len(thresholds), np.nan)
    joint = np.sort(np.concatenate(distances))
    return 100 * np.searchsorted(joint, thresholds.astype(np.float32), "right") / len(joint)


def by_challenge(scores: Mapping[str, Score]) -> dict[str, list[NDArray[np.float32]]]:
    """Distances of the images of each challenge, sorted by name, and of all of them."""
    challenges = sorted({key.split("/")[1] for key in scores})
    groups = {name: [s.distance for key, s in scores.items() if key.split("/")[1] == name] for name in challenges}
    return {**groups, "all": [s.distance for s in scores.values()]}
