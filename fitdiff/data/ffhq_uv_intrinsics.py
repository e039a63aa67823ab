"""FFHQ-UV-Intrinsics with FFHQ-UV's meshes and images, brought into the layout of `data=folder`.

    python -m fitdiff.data.ffhq_uv_intrinsics maps=DIR meshes=DIR photos=DIR out=DIR
    python train.py data=ffhq_uv_intrinsics data.path=OUT shape_model=hifi3d ...

Files are linked (copied where the file system cannot), never changed: the maps' licence forbids sharing derivatives, so
what is made from them, the cache included, stays with whoever downloaded them. Facts of the layouts, from the pages of
the data sets:

* maps: `<ID>/{diffuse,specular,normal,ambient_occlusion,translucency,light_normalized}.png`, 1024 x 1024, in the UVs of
  HIFI3D (github.com/ubisoft/ubisoft-laforge-FFHQ-UV-Intrinsics, CC BY-NC-ND). Occlusion, translucency and the
  light-normalised texture are not among the nine channels of the model and stay behind.
* meshes: `<ID>/stage3_mesh_id.obj` (neutral) as FFHQ-UV's RGB_Fitting writes them, or else `<ID>.obj`: 20481 vertices
  of HIFI3D++, in the unit of the fitting, hence aligned by similarity (github.com/csbhr/FFHQ-UV).
* photos: `<ID>.png`, or with a suffix such as `<ID>_front.png`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from fitdiff.command import run_command
from fitdiff.data.folder import Folder, FolderError
from fitdiff.data.folder.layout import PHOTO_SUFFIXES, PersonFiles, find_people
from fitdiff.data.folder.rules import FILE, Rules
from fitdiff.registry import register
from fitdiff.storage import link_or_copy, write_json

MAPS = {"diffuse": "diffuse", "specular": "specular", "normal": "normals"}
"""Stem of a map in the data set -> in the folder layout."""
NEUTRAL_MESH = "stage3_mesh_id"
MESH_NAMES = re.compile(rf"{NEUTRAL_MESH}|\d+")
SOURCES = (
    "maps: github.com/ubisoft/ubisoft-laforge-FFHQ-UV-Intrinsics (CC BY-NC-ND, research only); meshes and images: "
    "github.com/csbhr/FFHQ-UV (code MIT, images derived from FFHQ); bring them together with "
    "`python -m fitdiff.data.ffhq_uv_intrinsics maps=DIR meshes=DIR photos=DIR out=DIR`, then data.path=OUT"
)


@register("data", "ffhq_uv_intrinsics")
class FfhqUvIntrinsics(Folder):
    """`data=folder` on what the converter wrote; the shape model must be HIFI3D's, whose UVs the maps are in."""

    def _find(self) -> list[PersonFiles]:
        try:
            return find_people(self.root)
        except FolderError as error:
            raise FolderError(f"{error}. This data set is not ours to ship. {SOURCES}") from error


@dataclass
class Options:
    """What the command line sets."""

    maps: str = ""  # holds <ID>/diffuse.png, ... at any depth
    meshes: str = ""  # holds <ID>/stage3_mesh_id.obj or <ID>.obj
    photos: str = ""  # holds <ID>.png or <ID>_front.png
    out: str = ""  # folder to write
    photos_a_person: int = 1


@dataclass(frozen=True)
class Sources:
    """Files of one subject: map stem -> path, the mesh, and photos."""

    maps: dict[str, Path]
    mesh: Path
    photos: tuple[Path, ...]


def main() -> None:
    """Convert; what is incomplete is skipped and counted."""
    run_command(_convert, Options, __doc__)


def _convert(options: Options, console: Console) -> None:
    written, skipped = convert(options, console)
    for what, names in skipped.items():
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        console.print(f"skipped {len(names)} without {what}: {shown}")
    console.print(f"results: {options.out} ({written} people); yours alone: the licence forbids sharing derivatives")


def convert(options: Options, console: Console | None = None) -> tuple[int, dict[str, list[str]]]:
    """Link every complete subject into `out/<ID>/`, and `rules.json` if there is none. Running it again continues.

    Returns:
        Number of people, and the IDs that were skipped by what they lack.

    Raises:
        FolderError: a folder is missing, or not one subject is complete.
    """
    for key in ("maps", "meshes", "photos"):
        if not getattr(options, key) or not Path(getattr(options, key)).is_dir():
            raise FolderError(f"{key}={getattr(options, key)!r} is not a folder; {SOURCES}")
    if not options.out:
        raise FolderError("out= is missing: name the folder to write")
    complete, skipped = match(Path(options.maps), Path(options.meshes), Path(options.photos), options.photos_a_person)
    if not complete:
        lacks = "; ".join(f"{len(names)} without {what}" for what, names in skipped.items()) or "no <ID>/diffuse.png"
        raise FolderError(f"nobody is complete in maps, meshes and photos ({lacks}); {SOURCES}")
    for name, sources in track(complete.items(), "linking", console=console or Console(stderr=True)):
        _link(sources, Path(options.out) / name)
    # The authors state no scale of the specular maps and no direction of green: ours are assumed (see docs/data.md).
    # Whoever knows better says so in that file, which is theirs from then on.
    if not (rules := Path(options.out) / FILE).exists():
        write_json(rules, vars(Rules()))
    return len(complete), skipped


def match(
    maps: Path, meshes: Path, photos: Path, photos_a_person: int = 1
) -> tuple[dict[str, Sources], dict[str, list[str]]]:
    """Subjects by ID, and the IDs that lack something. IDs are compared as numbers: 12 is 00012."""
    folders = {path.parent.name: path.parent for path in sorted(maps.rglob("diffuse.png"))}
    found = [(number, path) for number, path in _numbered(meshes, (".obj",)) if MESH_NAMES.fullmatch(path.stem)]
    mesh_of = dict(sorted(found, key=lambda item: item[1].stem == NEUTRAL_MESH))  # the last of a number counts
    photos_of: dict[int, list[Path]] = {}
    for number, path in _numbered(photos, PHOTO_SUFFIXES):
        photos_of.setdefault(number, []).append(path)
    complete: dict[str, Sources] = {}
    skipped: dict[str, list[str]] = {}
    for name, folder in folders.items():
        number = _number(name)
        files = {stem: folder / f"{stem}.png" for stem in MAPS}
        lacks = [f"{path.name}" for path in files.values() if not path.is_file()]
        lacks += ["a mesh"] * (number not in mesh_of) + ["a photo"] * (number not in photos_of)
        for what in lacks:
            skipped.setdefault(what, []).append(name)
        if not lacks:
            complete[name] = Sources(files, mesh_of[number], tuple(photos_of[number][:photos_a_person]))
    return complete, skipped


def _numbered(root: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[Any, Path]]:
    """Files with the number that their name, or else their folder's, begins with; sorted, so that runs agree."""
    for path in sorted(path for path in root.rglob("*") if path.suffix.lower() in suffixes):
        number = _number(path.stem)
        number = _number(path.parent.name) if number is None else number
        if number is not None:
            yield number, path


def _number(text: str) -> int | None:
    digits = re.match(r"\d+", text)
    return int(digits[0]) if digits else None


def _link(sources: Sources, folder: Path) -> None:
    for stem, path in sources.maps.items():
        link_or_copy(path, folder / f"{MAPS[stem]}.png")
    link_or_copy(sources.mesh, folder / "mesh.obj")
    for i, path in enumerate(sources.photos):
        link_or_copy(path, folder / f"photo_{i}{path.suffix.lower()}")


if __name__ == "__main__":
    main()
