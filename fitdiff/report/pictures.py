"""Pictures inside the page: small JPEGs as data URLs, in rows of the same picture of different runs."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from fitdiff.report.groups import Group
from fitdiff.report.metrics import later_stages_first

WIDEST, NARROWEST = 900, 300
"""Width of a picture in pixels where there are few, and where there are very many."""

FEW = 12
"""Pictures up to which each has the full width; beyond, their bytes together grow only slowly."""

FORMATS = ("PNG", "JPEG")
"""What is decoded: a run's folder may hold a stranger's files."""

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
    shown: list[Shown]


def galleries(groups: Sequence[Group], problems: list[str]) -> list[Gallery]:
    """All pictures of all runs by name; what cannot be read is added to `problems`."""
    owners: dict[str, dict[Path, _Owners]] = {}
    for group in groups:
        for run in group.runs:
            for picture in run.pictures:
                of_name = owners.setdefault(picture.name, {})
                of_name.setdefault(picture.path.resolve(), _Owners(picture.caption)).add(run.name, group.index)
    count = sum(len(paths) for paths in owners.values())
    width = max(NARROWEST, round(WIDEST * min(1.0, (FEW / max(count, 1)) ** 0.5)))
    made = [Gallery(name, list(_shown(owners[name], width, problems))) for name in later_stages_first(owners)]
    return [gallery for gallery in made if gallery.shown]


@dataclass
class _Owners:
    """The runs that have a picture."""

    caption: str
    names: list[str] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)

    def add(self, name: str, group: int) -> None:
        self.names.append(name)
        self.groups.append(group)


def _shown(paths: dict[Path, _Owners], width: int, problems: list[str]) -> Iterator[Shown]:
    for path, owners in paths.items():
        try:
            url, size = thumbnail(path, width)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            problems.append(f"{path.name} of {owners.names[0]} cannot be read ({str(error) or type(error).__name__})")
            continue
        more = f" and {len(owners.names) - 1} more" if len(owners.names) > 1 else ""
        indices = " ".join(map(str, dict.fromkeys(owners.groups)))
        yield Shown(owners.names[0] + more, owners.caption, url, *size, indices)


def thumbnail(path: Path, width: int) -> tuple[str, tuple[int, int]]:
    """A picture as the data URL of a JPEG of at most that width, and the JPEG's size; transparency lies on white.

    Raises:
        OSError, ValueError: not a PNG or JPEG, damaged, or larger than `PIXELS`.
    """
    with Image.open(path, formats=FORMATS) as file:
        if file.width * file.height > PIXELS:
            raise ValueError(f"{file.width} x {file.height} pixels are too many, {PIXELS} are the most")
        picture = _opaque(file)
    if picture.width > width:
        height = max(1, round(picture.height * width / picture.width))
        picture = picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode(), picture.size


def _opaque(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layers = picture.convert("RGBA")
    flat = Image.new("RGB", layers.size, "white")
    flat.paste(layers, mask=layers.getchannel("A"))
    return flat
