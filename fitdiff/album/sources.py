"""Which photos are meant: a file, a list of files, a folder with all below it, or the frames of a video."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fitdiff.album.results import SEAL, SHARED
from fitdiff.alignment.photo import PhotoError
from fitdiff.config import config_hash
from fitdiff.storage import read_json, write_json

PHOTO_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".avif",
    ".heic", ".heif", ".jp2",
)  # fmt: skip
"""Of the files of a folder that are taken for photos, HEIC too: that it cannot be read must be said."""

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg")
RESERVED = (SHARED, "frames", "film.mp4", "film.gif", "index.html", "results.json", "results.csv")
"""Names of an album's own files."""
STAMP = "video.json"
"""Beside the frames of a video: what they were taken from."""


@dataclass(frozen=True)
class Source:
    """A photo to fit: its file, and the name of its result, unique in an album (`sub/a.jpg`)."""

    name: str
    path: Path


@dataclass(frozen=True)
class Sources:
    """What a request stands for.

    Attributes:
        title: of the album. results: where they go. photos: in order. unusable: what cannot be looked at, and why.
        frames_per_second: of a video, of the frames that were taken; None for photos.
        single: one photo was asked for, not an album.
    """

    title: str
    results: Path
    photos: list[Source]
    unusable: dict[str, str]
    frames_per_second: float | None = None
    single: bool = False


def find_sources(request: str, results: Path | None = None, every: int = 1) -> Sources:
    """Find the photos of a request.

    Args:
        request: a file, a folder, a video, or a list `[a.jpg, "b, c.jpg"]`.
        results: folder of the album's results: never searched for photos; the frames of a video go into it. None: as
            `default_results`.
        every: of a video, take each n-th frame.

    Raises:
        PhotoError: nothing there, an empty folder or list, or a video that cannot be read.
    """
    path = Path(request).expanduser()
    listed = re.fullmatch(r"\[(.*)\]", request, re.DOTALL)
    if listed and not path.exists():
        return _listed(listed[1], results)
    if path.is_dir():
        return _folder(path, results or default_results(path.resolve().name, [path]))
    if is_video(path) or _moves(path):
        return _video(path, results or default_results(path.stem, [path]), every)
    return Sources(path.stem, results or default_results(path.stem), [Source(path.name, path)], {}, single=True)


def default_results(title: str, album: Sequence[Path] = ()) -> Path:
    """Where results go if nothing else is said: two albums of one name, of different people, never share a folder."""
    digits = f"-{config_hash([str(path.resolve()) for path in album])[:6]}" if album else ""
    return Path("outputs/fits") / f"{title or 'photos'}{digits}"


def _listed(text: str, results: Path | None) -> Sources:
    """The files of a list; names with commas stand in double quotes. Equal names are told apart by number."""
    row = next(csv.reader([text], skipinitialspace=True), [])
    paths = list(dict.fromkeys(Path(item.strip()).expanduser() for item in row if item.strip()))
    if not paths:
        raise PhotoError("the list of photos is empty; write photo='[a.jpg,b.jpg]'")
    photos, unusable = [], {}
    names = set(RESERVED)
    for path in paths:
        if path.is_dir() or is_video(path):
            unusable[str(path)] = "not a photo: give folders and videos on their own"
            continue
        name = next(n for n in _numbered(path.name) if n not in names)
        names.add(name)
        photos.append(Source(name, path))
    return Sources("list", results or default_results("list", paths), photos, unusable)


def _numbered(name: str) -> Iterator[str]:
    """a.jpg, 2-a.jpg, 3-a.jpg ..."""
    yield name
    number = 2
    while True:
        yield f"{number}-{name}"
        number += 1


def _folder(folder: Path, results: Path) -> Sources:
    """All photos below a folder in natural order: hidden files, results, and folders seen before are left out."""
    unusable: dict[str, str] = {}

    def unreadable(error: OSError) -> None:
        unusable[os.path.relpath(error.filename, folder)] = f"cannot be read ({error.strerror})"

    seen: set[tuple[int, int]] = set()
    found: list[str] = []
    skip = results.resolve()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=unreadable):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in seen or Path(place).resolve() == skip or {SEAL, STAMP} & {*files}:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [os.path.relpath(os.path.join(place, name), folder) for name in files if not name.startswith(".")]
    for name in found:
        if is_video(folder / name):
            unusable[name] = "a video: give it on its own"
    photos = [name for name in found if Path(name).suffix.lower() in PHOTO_SUFFIXES and name not in unusable]
    if not photos and not unusable:
        raise PhotoError(f"{folder}: no photo in this folder; looked for {' '.join(PHOTO_SUFFIXES)}")
    title = folder.resolve().name
    return Sources(title, results, [Source(name, folder / name) for name in sorted(photos, key=_natural)], unusable)


def _natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key that puts 2.jpg before 10.jpg."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(0, int(part), "") if part[0] in "0123456789" else (1, 0, part.casefold()) for part in parts], name


def is_video(path: Path) -> bool:
    """By its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()


def _moves(path: Path) -> bool:
    """A GIF that is given on its own is a video if it has several frames; in an album its first one is a photo."""
    if path.suffix.lower() != ".gif" or not path.is_file():
        return False
    try:
        with Image.open(path, formats=("GIF",)) as file:
            return getattr(file, "n_frames", 1) > 1
    except Exception:  # whatever is wrong with it: reading the photo will say so
        return False


def _video(path: Path, results: Path, every: int) -> Sources:
    """The frames of a video as files, `frames/000000.jpg` in the results' folder; taken once."""
    if every < 1:
        raise PhotoError(f"every={every}: give 1 for every frame, 5 for each fifth")
    folder = results / "frames"
    status = path.stat()
    stamp = {"video": path.name, "bytes": status.st_size, "changed": status.st_mtime_ns, "every": every}
    known = read_json(folder / STAMP) or {}
    if {key: known.get(key) for key in stamp} != stamp:
        known = _take_frames(path, folder, every, stamp)
    photos = [Source(file.name, file) for file in sorted(folder.glob("*.jpg"))]
    return Sources(path.stem, results, photos, {}, frames_per_second=known["frames_per_second"])


def _take_frames(path: Path, folder: Path, every: int, stamp: dict[str, object]) -> dict[str, object]:
    """Write the frames by ffmpeg, all or none."""
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise PhotoError(f"{path}: videos need imageio-ffmpeg: pip install 'fitdiff[video]'") from error
    if folder.exists() and not (folder / STAMP).is_file():
        raise PhotoError(f"{folder} is there, but not from fit.py, and frames would replace it; give another out=")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as temporary:
        made = Path(temporary) / folder.name
        made.mkdir()
        # ffmpeg runs inside: in a path, `%` would be a pattern.
        command = [
            imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-i", str(path.resolve()), "-an",
            "-vf", rf"select=not(mod(n\,{every}))", "-fps_mode", "passthrough", "-q:v", "1", "-qmin", "1",
            "-start_number", "0", "%08d.jpg",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=made, capture_output=True, check=False)
        files = sorted(made.glob("*.jpg"))
        if not files:
            reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it has no picture"]
            raise PhotoError(f"{path}: not a video that can be read ({reason[0]}); save it as MP4")
        for number, file in reversed(list(enumerate(files))):  # names grow, so the last goes first
            file.rename(file.with_name(f"{number * every:08d}.jpg"))
        record = {**stamp, "frames_per_second": _rate(path) / every}
        write_json(made / STAMP, record)
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    return record


def _rate(path: Path) -> float:
    """Frames a second, as the video says."""
    import imageio_ffmpeg

    reader = imageio_ffmpeg.read_frames(str(path))
    try:
        return float(next(reader)["fps"]) or 25.0
    finally:
        reader.close()
