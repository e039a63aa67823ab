"""Results of photos on disk: a folder a face, whole or not there, and known by what it was made from."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fitdiff.avatar.export import MAP_NAMES
from fitdiff.config import config_hash
from fitdiff.storage import read_json, write_json

SEAL = "fit.json"
"""The last file of a result to appear."""
STAMP = "made_from.json"
OURS = (
    SEAL, "avatar.glb", "avatar.obj", "avatar.mtl",
    *(f"{prefix}{name}.png" for prefix in ("", "avatar_") for name in MAP_NAMES),
    "render.png", "comparison.png", "z.safetensors", "spread.png", "frame.jpg", STAMP,
)  # fmt: skip
"""Every file that a result may have."""
SHARED = "person"
"""Folder of what the photos of one person share."""

METRICS = ("id_cosine", "id_cosine_centred", "id_cosine_frontal", "landmark_error")
"""Of fit.json, those that an album shows."""


@dataclass(frozen=True)
class Entry:
    """One line of an album: a face that was fitted, or a photo that could not be.

    Attributes:
        name: of the photo in the album, with `/face2` where several faces were asked for. folder: of the result,
            relative to the album; None: there is none. error: why not. metrics: of the fit.
        notes: what a user should know. seconds: of the fit. kept: it was there already.
    """

    name: str
    folder: str | None = None
    error: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float | None = None
    kept: bool = False

    def row(self) -> dict[str, Any]:
        """For results.json."""
        return {key: value for key, value in asdict(self).items() if key != "kept"}


def made_from(photos: Sequence[Path], settings: Mapping[str, Any]) -> str:
    """Key of a result: size and date of the photos, and all that decides the fit."""
    return config_hash([_state(photo) for photo in photos], dict(settings))


def _state(photo: Path) -> list[int]:
    """What changes with a file; nothing if it cannot be looked at, which reading it will tell."""
    try:
        status = photo.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def publish(folder: Path, write: Callable[[Path], object]) -> Path:
    """Let a result appear whole: written beside its place, then renamed.

    Of an earlier result in the folder nothing stays: its seal goes first, its stamp last. Other people's files do.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as temporary:
        made = Path(temporary) / "result"
        made.mkdir()
        write(made)
        if not folder.exists():
            made.rename(folder)
            return folder
        if (folder / SEAL).exists() or (folder / STAMP).exists():
            for name in OURS:
                (folder / name).unlink(missing_ok=True)
        for file in sorted(made.iterdir(), key=lambda file: file.name == SEAL):
            if (folder / file.name).is_dir() and not (folder / file.name).is_symlink():
                shutil.rmtree(folder / file.name)
            os.replace(file, folder / file.name)
    return folder


def seal_result(folder: Path, key: str, faces: int) -> None:
    """Note what a result was made from, and how many faces of the photo are fitted in all."""
    write_json(folder / STAMP, {"key": key, "faces": faces})


def find_whole(out: Path, name: str, key: str) -> list[Entry]:
    """The entries of a photo whose results are all there and made from this photo with these settings; else none."""
    alone = _read_entry(out, name, key)
    if alone:
        return [alone]
    stamp = read_json(out / name / "face1" / STAMP) or {}
    entries = [_read_entry(out, f"{name}/face{number + 1}", key) for number in range(stamp.get("faces", 0))]
    return [entry for entry in entries if entry] if all(entries) else []


def _read_entry(out: Path, folder: str, key: str) -> Entry | None:
    stamp, report = (read_json(out / folder / name) for name in (STAMP, SEAL))
    if stamp is None or report is None or stamp.get("key") != key:
        return None
    try:
        metrics = {name: report[name] for name in METRICS}
        return Entry(folder, folder, None, metrics, report["notes"], report["seconds"]["total"], kept=True)
    except KeyError:  # an older version wrote less
        return None


def is_whole(folder: Path, key: str) -> bool:
    """Whether a folder holds a result that was made with this key."""
    stamp = read_json(folder / STAMP)
    return stamp is not None and stamp.get("key") == key and (folder / SEAL).exists()
