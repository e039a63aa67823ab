"""Synthetic people (`data=people`): generated once in parallel, cached on disk, extended when more are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from fitdiff.data.people.options import STANDARD_AUGMENTATION, STANDARD_PORTRAITS, Augmentation, Portraits
from fitdiff.data.shard_file import DataError
from fitdiff.data.shards import MANIFEST, SPLITS, ShardedDataset, missing_shards, shard_path, write_manifest
from fitdiff.data.workers import Job, cores, make_shards
from fitdiff.registry import register
from fitdiff.storage import cache_folder

VERSION = 3
"""Raise when the same parameters make other people: the cache is keyed by it."""

HELD_OUT_OFFSET = 1_000_000_000
"""Index of the first held-out person: far from any training set, whatever its size."""


@register("data", "people")
class People:
    """People with portraits, from the embedded face model and procedural skin.

    Run-time objects: `shape_model` (an `AnnyFace`: phenotypes are its own), `identity`, `renderer`, `resolution`
    (side R of the maps) and `fingerprint`, which must change when any of those does (it keys the cache).

    Attributes:
        train, held_out: `ShardedDataset`s with the tensors of `PeopleMaker.make`; available after `prepare()`.
    """

    def __init__(
        self,
        shape_model: Any,
        identity: Any,
        renderer: Any,
        resolution: int,
        fingerprint: str,
        *,
        n: int = 100_000,
        held_out: int = 1_000,
        views: int = 2,
        portrait_size: int = 224,
        seed: int = 0,
        start: int = 0,
        portraits: Portraits = STANDARD_PORTRAITS,
        augmentation: Augmentation = STANDARD_AUGMENTATION,
        shard_size: int = 50,
        device: str = "cpu",
        workers: int | None = None,
        cache: str | None = None,
    ) -> None:
        """What is made, and where.

        Args:
            n, held_out: people to train on, and others. views: portraits a person. portrait_size: side in pixels, even.
            seed: of the population. start: index of the first training person.
            portraits, augmentation: see `options`; a mapping of their fields will do.
            shard_size: people a file, made as one batch.
            device: "cpu", or "cuda" for one process with the whole batch on the GPU. The people are the same up to
                rounding, so this is not part of the cache's key.
            workers: processes on the CPU; null, or 0, is one a core. cache: folder; null is the user cache.

        Raises:
            DataError: an option is out of range, or the shape model has no phenotypes.
        """
        from fitdiff.config import config_hash
        from fitdiff.data.people.maker import PeopleMaker

        if not hasattr(shape_model, "identity_of"):
            raise DataError(
                f"data=people makes people of shape_model=anny_face, whose phenotypes it draws; got "
                f"{type(shape_model).__name__}. Choose shape_model=anny_face, or data=folder for your own people"
            )
        _check_counts(n, held_out, start, shard_size, workers)
        self.n, self.n_held_out, self.start, self.shard_size = n, held_out, start, shard_size
        self.fingerprint = fingerprint
        self.workers = (workers or cores()) if device == "cpu" else 1
        try:
            chosen = _options(Portraits, portraits), _options(Augmentation, augmentation)
            parts = (shape_model, identity, renderer)
            self.maker = PeopleMaker(*parts, resolution, portrait_size, views, seed, *chosen, device)
        except ValueError as error:
            raise DataError(f"data=people: {error}") from error
        content = (resolution, views, portrait_size, seed, start, shard_size, *map(asdict, chosen))
        folder = f"people-{resolution}px-{config_hash(VERSION, fingerprint, *content)}"
        self.folder = Path(cache or cache_folder()) / folder

    @property
    def content(self) -> int:
        """What the parameters do not say of who people are."""
        return VERSION

    def prepare(self, shard: int = 0, shards: int = 1) -> None:
        """Generate what is missing of a share: job `shard` of `shards`, which may run at once on many machines.

        Resumable at any moment: each file is written atomically, and those that are there are not made again. Whoever
        finishes last writes the manifest, with which the folder can be read from anywhere by `data=shards`.
        """
        absent = set(self._absent())
        jobs = [job for job in self._jobs()[shard::shards] if job[0] in absent]
        faults = make_shards(self.maker, jobs, self.workers, "making people") if jobs else []
        if faults:
            raise DataError(faults[0])
        if not self._absent():
            write_manifest(self.folder, self.shard_size, self.maker.resolution, self.fingerprint)

    def missing(self) -> list[Path]:
        """Files that are still to be made, by any job: shards, then the manifest."""
        manifest = self.folder / MANIFEST
        return self._absent() or ([] if manifest.exists() else [manifest])

    def _absent(self) -> list[Path]:
        return [path for split in SPLITS for path in missing_shards(self.folder / split, self._numbers(split))]

    @property
    def train(self) -> ShardedDataset:
        """The training people."""
        return ShardedDataset(self.folder / "train", self.n, self.shard_size)

    @property
    def held_out(self) -> ShardedDataset:
        """People that no model is trained on."""
        return ShardedDataset(self.folder / "held_out", self.n_held_out, self.shard_size)

    def _jobs(self) -> list[Job]:
        """(file, indices) of every shard. Shards are always whole."""
        first, size = {"train": self.start, "held_out": HELD_OUT_OFFSET}, self.shard_size
        return [
            (shard_path(self.folder / split, i), range(first[split] + i * size, first[split] + (i + 1) * size))
            for split in SPLITS
            for i in self._numbers(split)
        ]

    def _numbers(self, split: str) -> range:
        """Numbers of a split's shards."""
        return range(-(-{"train": self.n, "held_out": self.n_held_out}[split] // self.shard_size))


def _check_counts(n: int, held_out: int, start: int, shard_size: int, workers: int | None) -> None:
    given = {"n": n, "held_out": held_out, "start": start, "shard_size": shard_size, "workers": workers or 1}
    for name, value in given.items():
        least = int(name not in ("held_out", "start"))
        if value < least:
            raise DataError(f"data.{name} is {value}; give {least} or more")
    end = start + -(-n // shard_size) * shard_size
    if end > HELD_OUT_OFFSET:
        raise DataError(
            f"data.start={start} n={n}: whole shards end before person {end}, but those from {HELD_OUT_OFFSET} on are "
            "held out; give a smaller start"
        )


def _options(kind: type, given: Any) -> Any:
    """Options as their dataclass; configs bring them as mappings."""
    if isinstance(given, Mapping):
        given = kind(**given)
    if not (is_dataclass(given) and isinstance(given, kind)):
        raise ValueError(f"got {type(given).__name__} for {kind.__name__}; give one, or a mapping of its fields")
    return given
