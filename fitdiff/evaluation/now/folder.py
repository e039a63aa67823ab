"""The user's copy of NoW: what must be there, what is missing, and readers of its files.

DIR/imagepathsvalidation.txt                   a line an image, ending in <subject>/<challenge>/<image>.jpg
DIR/**/<subject>/<challenge>/<image>.jpg       the photos, directly below DIR or in one of `PHOTO_FOLDERS`
DIR/scans/<subject>/*.obj                      one scan a subject, mm
DIR/scans_lmks_onlypp/<subject>/*.pp           its seven points as MeshLab picks them, in the order of `alignment.IBUG`

Predictions, of whatever system: <subject>/<challenge>/<image>.obj or .ply, and .npy or .txt with the same seven points.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from fitdiff.evaluation.mesh_files import SUFFIXES
from fitdiff.storage import write_atomically

CHALLENGES = ("multiview_neutral", "multiview_expressions", "multiview_occlusions", "selfie")
VALIDATION, TEST = "imagepathsvalidation.txt", "imagepathstest.txt"
PHOTO_FOLDERS = (".", "iphone_pictures", "final_release_version/iphone_pictures")
LANDMARK_SUFFIXES = (".npy", ".txt")
POINTS = 7
NAMED = 5
"""Faults of one kind that a message names; the rest are counted."""

WHERE = (
    "NoW is given by the Max Planck Institute for Intelligent Systems to people who register on the benchmark's site "
    "(the NoW challenge, now.is.tue.mpg.de) and accept its licence, for non-commercial research; its download page has "
    "the photos, and the scans and landmarks of the validation set. `python -m fitdiff.evaluation.now.synthetic "
    "out=DIR` writes a folder of the same layout from synthetic people"
)


class NowError(FileNotFoundError):
    """Files are missing or are not what the benchmark needs; the message says which, and where one applies for them."""


class NowFileError(ValueError):
    """One file is missing or cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class Item:
    """One image of the benchmark: `key` is <subject>/<challenge>/<image>, without a suffix."""

    subject: str
    challenge: str
    image: str

    @property
    def key(self) -> str:
        return f"{self.subject}/{self.challenge}/{Path(self.image).stem}"


@dataclass(frozen=True)
class NowFolder:
    """A folder in NoW's layout.

    Attributes:
        path: of it. items: images in the order of the list.
    """

    path: Path
    items: tuple[Item, ...]

    @classmethod
    def open(cls, path: str | Path, listed: str = VALIDATION, *, photos: bool = True, scans: bool = True) -> NowFolder:
        """Read the list, and look for everything that will be needed.

        Args:
            listed: name of the list below the folder, or a path. photos, scans: whether they will be needed.

        Raises:
            NowError: names everything that is missing, all at once.
        """
        path = Path(path).expanduser()
        if not path.is_dir():
            raise NowError(f"benchmark=now needs a copy of NoW; benchmark.path is {path}, which is no folder. {WHERE}")
        folder = cls(path, _read_list(path, listed))
        faults = [folder._missing_photos()] if photos else []
        faults += (
            [folder._missing_of_subjects("scans", ".obj"), folder._missing_of_subjects(*LANDMARKS)] if scans else []
        )
        if any(faults):
            raise NowError(f"{path} is not all of NoW: {'; '.join(filter(None, faults))}. {WHERE}")
        return folder

    @property
    def subjects(self) -> tuple[str, ...]:
        """In the order of the list."""
        return tuple(dict.fromkeys(item.subject for item in self.items))

    def photo(self, item: Item) -> Path | None:
        """The photo's path; None if it is not there."""
        names = (self.path / folder / item.subject / item.challenge / item.image for folder in PHOTO_FOLDERS)
        return next((name for name in names if name.is_file()), None)

    def scan(self, subject: str) -> Path:
        """The path of a subject's scan."""
        return _files(self.path / "scans" / subject, ".obj")[0]

    def scan_landmarks(self, subject: str) -> NDArray[np.float64]:
        """(7, 3) mm, on the subject's scan."""
        return read_picked_points(self.landmarks_file(subject))

    def landmarks_file(self, subject: str) -> Path:
        """The path of what `scan_landmarks` reads."""
        folder, suffix = LANDMARKS
        return _files(self.path / folder / subject, suffix)[0]

    def _missing_photos(self) -> str:
        return _named("photos", [f"{item.key}{Path(item.image).suffix}" for item in self.items if not self.photo(item)])

    def _missing_of_subjects(self, folder: str, suffix: str) -> str:
        counts = {subject: len(_files(self.path / folder / subject, suffix)) for subject in self.subjects}
        several = [f"{folder}/{subject}" for subject, count in counts.items() if count > 1]
        lacking = _named(f"files {folder}/<subject>/*{suffix}", [name for name, count in counts.items() if not count])
        return "; ".join(filter(None, [lacking, f"more than one *{suffix} in {several[:NAMED]}" if several else ""]))


LANDMARKS = ("scans_lmks_onlypp", ".pp")
"""Folder and suffix of the scans' points."""


def _named(what: str, names: Sequence[str]) -> str:
    """`what` is missing, with the first names; "" if nothing is."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} {what} are missing ({', '.join(names[:NAMED])}{more})" if names else ""


def _files(folder: Path, suffix: str) -> list[Path]:
    """What in a folder has a suffix, sorted; hidden files, as some systems leave them beside others, do not count."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() == suffix and not p.name.startswith("."))


def _read_list(folder: Path, listed: str) -> tuple[Item, ...]:
    candidates = [folder / listed, folder / "final_release_version" / listed, Path(listed).expanduser()]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise NowError(f"{folder} has no {listed}, the list of the images. {WHERE}")
    lines = [
        line.strip().replace("\\", "/") for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
    ]
    paths = [PurePosixPath(line) for line in lines if line]
    if wrong := [line for line in paths if len(line.parts) < 3 or ".." in line.parts]:
        raise NowError(f"{path}: a line is {str(wrong[0])!r}, expected <subject>/<challenge>/<image>.jpg")
    if not paths:
        raise NowError(f"{path} lists no images; expected lines <subject>/<challenge>/<image>.jpg")
    items = tuple(dict.fromkeys(Item(*line.parts[-3:]) for line in paths))
    _refuse_ambiguous(items, path)
    return items


def _refuse_ambiguous(items: Iterable[Item], path: Path) -> None:
    """Two images whose names differ by the suffix alone would share one prediction."""
    seen: dict[str, Item] = {}
    for item in items:
        if item.key in seen:
            raise NowError(
                f"{path}: {item.image} and {seen[item.key].image} of {item.subject} share a prediction's name"
            )
        seen[item.key] = item


def read_picked_points(path: Path) -> NDArray[np.float64]:
    """(7, 3) points of a MeshLab `.pp` file, in its order; points that were not picked (active="0") do not count.

    Raises:
        NowFileError: no such file, no XML, or not seven points.
    """
    try:
        points = [point for point in ElementTree.parse(path).iter("point") if point.get("active", "1") != "0"]
        places = [[float(point.attrib[axis]) for axis in "xyz"] for point in points]
    except (OSError, ElementTree.ParseError, KeyError, ValueError) as error:
        raise NowFileError(
            f"{path}: cannot be read as MeshLab's picked points ({type(error).__name__}: {error})"
        ) from None
    return _seven(np.array(places, np.float64).reshape(-1, 3), path)


def read_landmarks(path: Path) -> NDArray[np.float64]:
    """(7, 3) landmarks of a prediction, `.npy` or `.txt`.

    Raises:
        NowFileError: no such file, or not seven points.
    """
    try:
        points = np.load(path, allow_pickle=False) if path.suffix == ".npy" else _read_text(path)
        points = np.asarray(points, np.float64)
    except (OSError, ValueError, EOFError) as error:
        raise NowFileError(f"{path}: cannot be read as numbers: {error}") from None
    return _seven(points, path)


def write_landmarks(path: Path, points: NDArray[np.float64]) -> Path:
    """Write the (7, 3) landmarks of a prediction as `.npy`, atomically.

    Raises:
        NowFileError: not seven points.
    """
    encoded = io.BytesIO()
    np.save(encoded, _seven(np.asarray(points, np.float64), path), allow_pickle=False)
    return write_atomically(path, encoded.getvalue())


def _read_text(path: Path) -> NDArray[np.float64]:
    lines = path.read_text(encoding="utf-8", errors="replace").replace(",", " ").splitlines()
    return np.loadtxt(lines, ndmin=2)


def _seven(points: NDArray[np.float64], path: Path) -> NDArray[np.float64]:
    if points.shape != (POINTS, 3) or not np.isfinite(points).all():
        raise NowFileError(f"{path}: got points of shape {points.shape}, expected ({POINTS}, 3) finite numbers")
    return points


@dataclass(frozen=True)
class PredictionFiles:
    """A prediction on disk: its mesh, and its seven points."""

    mesh: Path
    landmarks: Path


def find_prediction(folder: Path, key: str) -> PredictionFiles:
    """The prediction of an image.

    Raises:
        NowFileError: mesh or landmarks are missing.
    """
    found = []
    for what, suffixes in (("mesh", SUFFIXES), ("landmarks", LANDMARK_SUFFIXES)):
        path = next((p for p in (folder / f"{key}{suffix}" for suffix in suffixes) if p.is_file()), None)
        if path is None:
            raise NowFileError(f"no {what} ({key} with {' or '.join(suffixes)})")
        found.append(path)
    return PredictionFiles(*found)
