"""The layout of a folder of people, what is wrong with one, and who is held out. See docs/data.md."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fitdiff.data.folder.scenes import CAMERA, read_scene
from fitdiff.data.folder.shapes import NAMES, count_vertices, mesh_sizes, read_code
from fitdiff.images import SUFFIXES, probe
from fitdiff.registry import ComponentError

MAPS = {"diffuse": ("diffuse",), "specular": ("specular",), "normals": ("normals", "normal")}
"""Map -> stems of its file."""
PHOTO_PREFIXES = ("photo", "view")
PHOTO_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
HELD_OUT_FILE = "held_out.txt"
LISTED_FAULTS = 20


class FolderError(ComponentError):
    """A folder of people that cannot be used; the message lists its faults, file by file."""


@dataclass(frozen=True)
class PersonFiles:
    """Files of one person; several where there should be one is a fault.

    Attributes:
        name: of the subfolder. maps: map -> candidates. shapes: candidates. photos: in order of their names.
    """

    name: str
    folder: Path
    maps: dict[str, tuple[Path, ...]]
    shapes: tuple[Path, ...]
    photos: tuple[Path, ...]

    def scene_of(self, photo: Path) -> Path | None:
        """The JSON file beside a photo that bears its name, if there is one."""
        path = photo.with_suffix(".json")
        return path if path.is_file() else None

    @property
    def files(self) -> Iterator[Path]:
        """All that enters the data."""
        yield from (path for candidates in self.maps.values() for path in candidates)
        yield from self.shapes
        for photo in self.photos:
            yield photo
            if scene := self.scene_of(photo):
                yield scene


def find_people(root: Path) -> list[PersonFiles]:
    """Everyone in a folder, sorted by name. Subfolders whose names start with a dot or underscore are skipped.

    Raises:
        FolderError: there is no such folder, or nobody in it.
    """
    if not root.is_dir():
        raise FolderError(f"data.path: {root} is not a folder; give one that holds a subfolder for each person")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] not in "._")
    if not folders:
        raise FolderError(f"{root}: holds nobody; expected a subfolder for each person (see docs/data.md)")
    return [_person(folder) for folder in folders]


def _person(folder: Path) -> PersonFiles:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    maps = {
        name: tuple(f for f in files if f.stem in stems and f.suffix.lower() in SUFFIXES)
        for name, stems in MAPS.items()
    }
    photos = (f for f in files if f.stem.startswith(PHOTO_PREFIXES) and f.suffix.lower() in PHOTO_SUFFIXES)
    return PersonFiles(folder.name, folder, maps, tuple(f for f in files if f.name in NAMES), tuple(photos))


def check(people: Sequence[PersonFiles], shape_model: Any) -> None:
    """Look at every file of every person without decoding pixels.

    Raises:
        FolderError: with all faults, up to a limit.
    """
    faults: list[str] = []
    for person in people:
        faults += _structure(person)
        faults += [f"{path}: {fault}" for path in person.files if (fault := _fault(path, shape_model))]
        scenes = ((photo, scene) for photo in person.photos if (scene := person.scene_of(photo)))
        faults += [fault for photo, scene in scenes if (fault := _scene_fault(photo, scene, shape_model))]
    if faults:
        raise FolderError(listed(faults))


def _structure(person: PersonFiles) -> Iterator[str]:
    wanted = [(stem[0], person.maps[name], f"{stem[0]}.png (or .exr, .tif)") for name, stem in MAPS.items()]
    wanted += [("shape", person.shapes, " or ".join(NAMES))]
    for what, found, names in wanted:
        if not found:
            yield f"{person.folder}: no {what} file; add {names}"
        elif len(found) > 1:
            yield f"{person.folder}: {len(found)} {what} files, {', '.join(f.name for f in found)}; keep one"
    if not person.photos:
        yield f"{person.folder}: no photo; add photo.jpg, photo_2.png, ... or view0.png, ..."


def _fault(path: Path, shape_model: Any) -> str | None:
    """What is wrong with one map, shape or photo file."""
    try:
        if path.name == "shape.json":
            read_code(path, shape_model.n_identity)
        elif path.name in NAMES:
            sizes, got = mesh_sizes(shape_model), count_vertices(path)
            if got not in sizes:
                expected = " or ".join(map(str, sizes))
                return f"has {got} vertices, the shape model has {expected}: choose the model that the mesh is of"
        elif path.suffix != ".json":
            height, width = probe(path)
            if height != width and not path.stem.startswith(PHOTO_PREFIXES):
                return f"is {width} x {height} pixels; maps must be square"
    except Exception as error:  # whatever is wrong with one file must not hide the faults of the others
        return str(error) or type(error).__name__
    return None


def _scene_fault(photo: Path, path: Path, shape_model: Any) -> str | None:
    """What is wrong with the scene file of a photo."""
    try:
        scene = read_scene(path, shape_model.expression_names)
        if CAMERA[0] in scene and len(set(probe(photo))) > 1:
            return f"{photo}: is not square, but {path.name} gives its camera, which is of a square photo"
    except Exception as error:  # as in `_fault`
        return f"{path}: {str(error) or type(error).__name__}"
    return None


def listed(faults: Sequence[str]) -> str:
    """Faults as a numbered list, up to `LISTED_FAULTS`."""
    shown = [f"({i}) {fault}" for i, fault in enumerate(faults[:LISTED_FAULTS], 1)]
    more = [f"... and {len(faults) - LISTED_FAULTS} more"] if len(faults) > LISTED_FAULTS else []
    return "\n".join([f"{len(faults)} fault{'s' * (len(faults) > 1)} in the data:", *shown, *more])


def split(root: Path, people: Sequence[PersonFiles], share: float) -> tuple[list[PersonFiles], list[PersonFiles]]:
    """Training and held-out people.

    Held out is who stands in `held_out.txt` (a name a line). Without that file: whose name has a hash in the lowest
    `share` of all hashes, so that a person never changes sides when others are added, and the lowest in any case.

    Raises:
        FolderError: a listed name is nobody's, or a side would be empty.
    """
    path = root / HELD_OUT_FILE
    if path.is_file():
        names = {line.strip() for line in path.read_text().splitlines()} - {""}
        if unknown := sorted(names - {person.name for person in people}):
            raise FolderError(f"{path}: nobody is called {', '.join(unknown[:5])}; remove the line or add the folder")
    else:
        draws = {person.name: hash_of_name(person.name) for person in people}
        names = {name for name, draw in draws.items() if draw < share or draw == min(draws.values())}
    held_out = [person for person in people if person.name in names]
    train = [person for person in people if person.name not in names]
    if not train or not held_out:
        raise FolderError(f"{root}: {len(train)} people to train on and {len(held_out)} held out; both need at least 1")
    return train, held_out


def hash_of_name(name: str) -> float:
    """In [0, 1), uniform: the first 8 bytes of the name's SHA-256."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
