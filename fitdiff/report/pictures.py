"""Pictures inside the page: small JPEGs as data URLs, in rows of the same picture of different runs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from fitdiff.images import FORMATS
from fitdiff.report.groups import Group

WIDEST, NARROWEST = 900, 300
"""Width of a picture in pixels where there are few, and where there are very many."""

FEW = 12
"""Pictures up to which each has the full width; beyond, their bytes together grow only slowly."""

PIXELS = 64_000_000
"""Of a picture that is read: more is no preview."""


@dataclass
class Shown:
    """A picture on the page; `groups` are those whose switching off hides it. `url` is empty if it cannot be read."""

    run: str
    caption: str
    url: str
    width: int
    height: int
    groups: str


@dataclass
class Gallery:
    """Pictures of one name, one a run or a stage that runs share."""

    name: str
    shown: list[Shown] = field(default_factory=list)


def galleries(groups: Sequence[Group], problems: list[str]) -> list[Gallery]:
    """All pictures of all runs by name; what cannot be read is added to `problems`."""
    owners: dict[str, dict[Path, tuple[list[str], list[int], str]]] = {}
    for group in groups:
        for run in group.runs:
            for picture in run.pictures:
                owner = owners.setdefault(picture.name, {}).setdefault(
                    picture.path.resolve(), ([], [], picture.caption)
                )
                owner[0].append(run.name)
                owner[1].append(group.index)
    count = sum(len(paths) for paths in owners.values())
    width = max(NARROWEST, round(WIDEST * min(1.0, (FEW / max(count, 1)) ** 0.5)))
    made = []
    for name, paths in owners.items():
        gallery = Gallery(name)
        for path, (names, indices, caption) in paths.items():
            try:
                url, size = thumbnail(path, width)
            except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
                problems.append(f"{path.name} of {names[0]} cannot be read ({str(error) or type(error).__name__})")
                continue
            label = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
            gallery.shown.append(Shown(label, caption, url, *size, " ".join(map(str, dict.fromkeys(indices)))))
        if gallery.shown:
            made.append(gallery)
    return made


def thumbnail(path: Path, width: int) -> tuple[str, tuple[int, int]]:
    """A picture as the data URL of a JPEG of at most that width, and the JPEG's size; transparency lies on white.

    Raises:
        OSError, ValueError: not a PNG or JPEG, damaged, or larger than `PIXELS`.
    """
    with Image.open(path, formats=FORMATS) as file:
        if file.width * file.height > PIXELS:
            raise ValueError(f"{file.width} x {file.height} pixels are too many, {PIXELS} are the most")
        file.draft("RGB", (width, width))
        picture = file.convert("RGBA")
    if picture.width > width:
        height = max(1, round(picture.height * width / picture.width))
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    flat = Image.new("RGB", picture.size, "white")
    flat.paste(picture, mask=picture.getchannel("A"))
    buffer = io.BytesIO()
    flat.save(buffer, "JPEG", quality=80, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode(), flat.size
