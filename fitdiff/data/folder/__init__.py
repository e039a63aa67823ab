"""Reflectance that users bring (`data=folder`): a folder a person, each converted once.

The cache holds a file a person, named by what the person's files and the settings are, and for each state of the whole
folder links to them in the order of the names (copies, where scenes need more dark lamps to match the others). So a
person who is added, mended or moved between training and held-out costs one conversion, not all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file

from fitdiff.data.folder.layout import FolderError, PersonFiles, check, find_people, listed, split
from fitdiff.data.folder.rules import Rules
from fitdiff.data.folder.scenes import pad_lamps
from fitdiff.data.shards import MANIFEST, ShardedDataset, shard_path, write_manifest
from fitdiff.data.workers import cores, make_shards
from fitdiff.registry import MISSING, register
from fitdiff.storage import cache_folder, link_or_copy, write_tensors

__all__ = ["Folder", "FolderError"]

VERSION = 1
"""Raise when the same files make other tensors: the cache is keyed by it."""


@register("data", "folder")
class Folder:
    """People in the layout of docs/data.md: photos, maps, shape or mesh, optional scenes.

    Run-time objects: as for `data=people`, with any shape model.

    Attributes:
        train, held_out: `ShardedDataset`s with the tensors of `FolderMaker.make`; available after `prepare()`.
        content: changes when a file, a rule or the split does; names the cache and enters the hash of a training.

    Raises:
        FolderError: nobody there, or unusable rules or split; `prepare` raises it for everything else.
    """

    def __init__(
        self,
        shape_model: Any,
        identity: Any,
        renderer: Any,
        resolution: int,
        fingerprint: str,
        *,
        path: str = MISSING,
        views: int = 1,
        portrait_size: int = 224,
        held_out: float = 0.05,
        colour_space: str | None = None,
        specular_space: str | None = None,
        specular_f0: float | None = None,
        normal_space: str | None = None,
        normal_y: str | None = None,
        align: str | None = None,
        detector: str = "mtcnn",
        landmarks: str = "dlib68",
        workers: int | None = None,
        cache: str | None = None,
    ) -> None:
        """`path`: the folder. `views`: portraits a person; who has fewer repeats them. `held_out`: share, see
        `layout.split`. `colour_space` to `align`: see `Rules`; null is what the folder's rules.json says. `detector`,
        `landmarks`: find faces in photos without a camera. `workers`: processes; null is one a core. `cache`: folder;
        null is the user cache."""
        from fitdiff.config import config_hash

        self.root = Path(path).expanduser()
        self.people = self._find()
        try:
            self.rules = Rules.load(
                self.root, colour_space=colour_space, specular_space=specular_space, specular_f0=specular_f0,
                normal_space=normal_space, normal_y=normal_y, align=align,
            )  # fmt: skip
        except ValueError as error:
            raise FolderError(f"data: {error}") from error
        self.splits = dict(zip(("train", "held_out"), split(self.root, self.people, held_out), strict=True))
        self.shape_model, self.identity, self.renderer, self.resolution = shape_model, identity, renderer, resolution
        self.views, self.portrait_size, self.fingerprint = views, portrait_size, fingerprint
        self.detector, self.landmarks = detector, landmarks
        self.workers = workers or cores()
        self.settings = [VERSION, vars(self.rules), detector, landmarks, views, portrait_size]
        self.content = config_hash(self.settings, {k: [_state(p) for p in v] for k, v in self.splits.items()})
        self.settings += [fingerprint, resolution]
        self.cache = Path(cache or cache_folder()) / f"folder-{resolution}px"
        self.folder = self.cache / f"state-{config_hash(self.settings, self.content)}"

    def _find(self) -> list[PersonFiles]:
        return find_people(self.root)

    def prepare(self, shard: int = 0, shards: int = 1) -> None:
        """Check every file, convert who is missing of a share, and link the splits once everybody is there.

        Resumable: each file is written atomically. Job `shard` of `shards` may run beside the others on many machines.

        Raises:
            FolderError: with all faults that can be seen without decoding, before anything is converted; or with those
                that decoding found, after everyone else of the share was converted.
        """
        if self._unplaced():
            self._convert(shard, shards)
            if self._unconverted():
                return  # whoever converts the last person goes on from here
            self._place_all()
        write_manifest(self.folder, 1, self.resolution, self.fingerprint)

    def missing(self) -> list[Path]:
        """Files that are still to be made, by any job: conversions, then the splits, then the manifest."""
        unplaced = [path for path, _ in self._unplaced()]
        manifest = self.folder / MANIFEST
        return (self._unconverted() if unplaced else []) or unplaced or ([] if manifest.exists() else [manifest])

    def _unconverted(self) -> list[Path]:
        return [path for path in self._files().values() if not path.exists()]

    def _place_all(self) -> None:
        files = self._files()
        lamps = max(map(_lamps, files.values()))
        for path, person in self._unplaced():
            _place(files[person.name], path, lamps)

    def _unplaced(self) -> list[tuple[Path, PersonFiles]]:
        """(file, person) of those who are in no split yet."""
        places = (
            (shard_path(self.folder / side, i), person)
            for side, people in self.splits.items()
            for i, person in enumerate(people)
        )
        return [(path, person) for path, person in places if not path.exists()]

    def _files(self) -> dict[str, Path]:
        """Name -> converted file of everyone."""
        from fitdiff.config import config_hash

        keys = {person.name: config_hash(self.settings, _state(person)) for person in self.people}
        return {name: self.cache / "people" / f"{key}.safetensors" for name, key in keys.items()}

    def _convert(self, shard: int, shards: int) -> None:
        from fitdiff.data.folder.maker import FolderMaker

        check(self.people, self.shape_model)
        maker = FolderMaker(
            self.people, self.rules, self.shape_model, self.identity, self.renderer,
            self.resolution, self.portrait_size, self.views, self.detector, self.landmarks,
        )  # fmt: skip
        share = list(enumerate(self._files().values()))[shard::shards]
        jobs = [(path, [i]) for i, path in share if not path.exists()]
        if faults := make_shards(maker, jobs, self.workers, "converting people"):
            raise FolderError(listed(faults))

    @property
    def train(self) -> ShardedDataset:
        """The training people, by name."""
        return self._dataset("train")

    @property
    def held_out(self) -> ShardedDataset:
        """People that no model is trained on, by name."""
        return self._dataset("held_out")

    def _dataset(self, name: str) -> ShardedDataset:
        return ShardedDataset(self.folder / name, len(self.splits[name]), 1)


def _lamps(path: Path) -> int:
    """Lamps of each scene in a converted file."""
    with safe_open(path, "pt") as file:
        return file.get_slice("directions").get_shape()[-2]


def _place(source: Path, target: Path, lamps: int) -> None:
    """Link a converted file, or write a copy with as many lamps as everybody's scenes must have to be stacked."""
    if _lamps(source) == lamps:
        link_or_copy(source, target)
    else:
        (padded,) = pad_lamps([load_file(source)], lamps)
        write_tensors(target, padded)


def _state(person: PersonFiles) -> list[Any]:
    """What changes when a person's files do: names, sizes and times of change."""
    states = ((file.name, file.stat()) for file in person.files)
    return [person.name, *([name, state.st_size, state.st_mtime_ns] for name, state in states)]
