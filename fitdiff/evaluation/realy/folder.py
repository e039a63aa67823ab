"""The user's copy of REALY: found, checked at once, and read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fitdiff.evaluation.benchmark import BenchmarkError
from fitdiff.evaluation.file_digest import digest_of
from fitdiff.evaluation.mesh_files import MeshError, read_mesh
from fitdiff.evaluation.realy.keypoints import N_KEYPOINTS, REGIONS, Keypoints, read_template
from fitdiff.evaluation.realy.regions import Scan

KEYPOINT_FOLDER, SCAN_FOLDER, IMAGE_FOLDER = "REALY_HIFI3D_keypoints", "REALY_scan_region", "REALY_image"
SCALE_FILE, SYNTHETIC_FILE = "metrical_scale.txt", "synthetic.json"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
NAME = re.compile(r"(\d+)(_.+)?")
"""Of a photo or a prediction: the person's number from 1, and a view."""

APPLY = (
    "REALY is given out by its authors: apply as the participation guideline of the project page "
    "(REALY: Rethinking the Evaluation of 3D Face Reconstruction, Chai et al., ECCV 2022; realy3dface.com) says; the "
    "scans come from the LYHM data set of the University of York, whose licence you sign"
)
PUBLIC = "comes with the benchmark's public code (github.com/czh-98/REALY, folder data)"
MOST_NAMED = 8


class FolderError(BenchmarkError):
    """The user's copy is not complete; the message lists all that is missing, and where it is to be had."""


@dataclass(frozen=True)
class RealyFolder:
    """Paths of a copy. Each part may lie in the folder itself or in its `data`, as the public code wants it.

    Attributes:
        keypoints, scans: number of the person -> file of keypoints, folder of regions.
        mm_per_unit: number of the person -> metrical scale.
    """

    path: Path
    keypoints: Mapping[int, Path]
    scans: Mapping[int, Path]
    mm_per_unit: Mapping[int, float]

    @classmethod
    def open(cls, path: str | Path) -> RealyFolder:
        """Find the parts and check them, contents of meshes aside.

        Raises:
            FolderError: naming everything that is missing.
        """
        path = Path(path).expanduser()
        if not path.is_dir():
            raise FolderError(f"benchmark.path={path} is not a folder; it should hold {SCAN_FOLDER} and more. {APPLY}")
        keypoints = _numbered(_part(path, KEYPOINT_FOLDER), lambda p: p.is_file() and p.suffix == ".obj")
        scans = _numbered(_part(path, SCAN_FOLDER), Path.is_dir)
        scales = _scales(path)
        if faults := [*_lacking(keypoints, scans), *_wrong_scales(scales, max(scans, default=0))]:
            raise FolderError(f"{path} is no complete copy of REALY:\n- " + "\n- ".join(faults))
        return cls(path, keypoints, scans, dict(enumerate(scales.tolist(), 1)))

    @property
    def synthetic(self) -> bool:
        """Whether `realy.synthetic` wrote it."""
        return (self.path / SYNTHETIC_FILE).is_file()

    def scan(self, number: int) -> Scan:
        """The truth of a person.

        Raises:
            MeshError: a damaged file, or other than 85 keypoints.
        """
        keypoints = read_mesh(self.keypoints[number]).vertices
        if len(keypoints) != N_KEYPOINTS:
            raise MeshError(
                f"{self.keypoints[number]}: has {len(keypoints)} vertices, expected {N_KEYPOINTS} keypoints"
            )
        regions = {name: read_mesh(_region(self.scans[number], name)) for name in REGIONS}
        return Scan(regions, keypoints, self.mm_per_unit[number])

    def fingerprint(self, number: int) -> str:
        """Changes when a file of the person's truth does.

        Raises:
            OSError: one of them cannot be read.
        """
        files = [self.keypoints[number], *(_region(self.scans[number], name) for name in REGIONS)]
        return digest_of(files, f"{self.mm_per_unit[number]}")

    def photos(self, images: str | None) -> dict[str, Path]:
        """Photos by name, in the order of their numbers.

        Args:
            images: their folder, below the copy or anywhere; None is REALY_image.

        Raises:
            FolderError: no such folder, no photo of a person with a scan, or two photos of one name.
        """
        elsewhere = Path(images).expanduser() if images else None
        folder = _part(self.path, images or IMAGE_FOLDER) or elsewhere
        if folder is None or not folder.is_dir():
            raise FolderError(
                f"{self.path}: lacks {images or IMAGE_FOLDER}, the photos to fit; give their folder as "
                f"benchmark.images=DIR, or meshes as benchmark.predictions=DIR. {APPLY}"
            )
        files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES]
        return self.named(files, folder, "photos")

    def template(self, topology: str) -> Keypoints:
        """Keypoints of a topology by the name of its files, `<topology>.obj` and `.txt`, or by the path of its mesh.

        Raises:
            FolderError: one of the two is missing or damaged.
        """
        mesh = Path(topology).expanduser() if topology.lower().endswith((".obj", ".ply")) else None
        mesh = mesh or _part(self.path, f"{topology}.obj") or self.path / "data" / f"{topology}.obj"
        table = mesh.with_suffix(".txt")
        if missing := [path for path in (mesh, table) if not path.is_file()]:
            known = sorted(p.stem for where in _places(self.path) for p in where.glob("*.txt") if p.name != SCALE_FILE)
            raise FolderError(
                f"benchmark.topology={topology}: lacks {', '.join(map(str, missing))}. The template mesh and its 85 "
                f"keypoints {PUBLIC}, for some topologies; here are {', '.join(known) or 'none'}"
            )
        try:
            return read_template(mesh, table)
        except MeshError as error:
            raise FolderError(str(error)) from error

    def named(self, files: Iterable[Path], folder: Path, what: str) -> dict[str, Path]:
        """Files by their stem, of people with a scan, in the order of their numbers.

        Raises:
            FolderError: there are none, or two of one name.
        """
        found: dict[str, Path] = {}
        for path in files:
            if not (match := NAME.fullmatch(path.stem)) or int(match[1]) not in self.scans:
                continue
            if path.stem in found:
                raise FolderError(f"{folder} has two {what} of the name {path.stem}: {found[path.stem]} and {path}")
            found[path.stem] = path
        if not found:
            raise FolderError(
                f"{folder} has no {what} named <id> or <id>_<view>, with one of the ids {_short(self.scans)}"
            )
        return {name: found[name] for name in sorted(found, key=by_person)}


def person_of(name: str) -> int:
    """Number of the person in a photo's name."""
    return int(name.split("_")[0])


def by_person(name: str) -> tuple[int, str]:
    """Sorts names of photos by person, then view."""
    return person_of(name), name


def _places(path: Path) -> tuple[Path, Path]:
    return path, path / "data"


def _part(path: Path, name: str) -> Path | None:
    return next((where / name for where in _places(path) if (where / name).exists()), None)


def _region(scan: Path, name: str) -> Path:
    return scan / f"{name}.obj"


def _numbered(folder: Path | None, accept: Callable[[Path], bool]) -> dict[int, Path]:
    entries = sorted(folder.iterdir()) if folder and folder.is_dir() else []
    found = {int(path.stem): path for path in entries if path.stem.isdecimal() and accept(path)}
    return dict(sorted(found.items()))


def _lacking(keypoints: Mapping[int, Path], scans: Mapping[int, Path]) -> list[str]:
    """What scans and keypoints lack."""
    faults = []
    for name, found in ((f"{KEYPOINT_FOLDER}/<id>.obj", keypoints), (f"{SCAN_FOLDER}/<id>/<region>.obj", scans)):
        if not found:
            faults.append(f"{name}: none. {APPLY}")
    if keypoints and scans and (unpaired := keypoints.keys() ^ scans.keys()):
        faults.append(f"people with keypoints but no scan, or the reverse: {_short(sorted(unpaired))}")
    if lacking := [
        f"{i}/{name}.obj" for i, scan in scans.items() for name in REGIONS if not _region(scan, name).is_file()
    ]:
        faults.append(f"{SCAN_FOLDER} lacks {_short(lacking)}")
    return faults


def _scales(path: Path) -> np.ndarray:
    """Metrical scales of the people 1, 2, ...; empty if there is no such list."""
    file = _part(path, SCALE_FILE)
    try:
        return np.loadtxt(file, ndmin=1) if file else np.empty(0)
    except ValueError:
        return np.empty(0)


def _wrong_scales(scales: np.ndarray, n: int) -> list[str]:
    if scales.ndim == 1 and len(scales) >= max(n, 1) and (np.isfinite(scales) & (scales > 0)).all():
        return []
    return [
        f"{SCALE_FILE}: expected a number above 0 for each of {n or 100} people, mm per unit, "
        f"got {scales.size or 'none'}; it {PUBLIC}"
    ]


def _short(items: Iterable[object]) -> str:
    items = list(map(str, items))
    return ", ".join(items[:MOST_NAMED]) + f" and {len(items) - MOST_NAMED} more" * (len(items) > MOST_NAMED)
