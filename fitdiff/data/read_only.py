"""A finished data set, read where it lies (`data=shards`): behind a URL, with a cache of bounded size."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fitdiff.data.mirror import Mirror, Remote
from fitdiff.data.shard_file import DataError
from fitdiff.data.shards import MANIFEST, SPLITS, ShardedDataset
from fitdiff.registry import MISSING, register
from fitdiff.storage import cache_folder

GIGABYTE = 1e9


@register("data", "shards")
class Shards:
    """Read-only set that `prepare.py` made, anywhere, with `data=people` or `data=folder`.

    Run-time objects: as for `data=people`. Only `resolution` and `fingerprint` are used: they must be those that the
    set was made with, since its portraits, embeddings and codes mean nothing to other networks and face models.

    Attributes:
        train, held_out: `ShardedDataset`s.

    Raises:
        DataError: the set is not there, was made with something else, holds fewer samples, or does not fit the cache.
    """

    def __init__(
        self,
        shape_model: Any,
        identity: Any,
        renderer: Any,
        resolution: int,
        fingerprint: str,
        *,
        url: str = MISSING,
        n: int | None = None,
        held_out: int | None = None,
        window: int | None = None,
        cache_gb: float = 100.0,
        cache: str | None = None,
    ) -> None:
        """`url`: of the set's folder, the one that holds manifest.json: https://, s3://, gs://, ... or file:///path.
        `n`, `held_out`: people to use of each split; null is all. `window`: files in use at once, see
        `order.global_batch`; null, which mixes all people, needs a cache that holds the whole set. `cache_gb`,
        `cache`: room for downloaded files in 1e9 bytes, and their folder; null is the user cache."""
        remote = Remote(url)
        self.manifest = _read_manifest(remote)
        # Another set under the same URL has another folder: its files are never mixed with these.
        place = Path(cache or cache_folder()) / f"mirror-{_hash(url)}" / _hash(json.dumps(self.manifest))
        self.mirror = Mirror(remote, place, cache_gb * GIGABYTE)
        if window is not None and window < 1:
            raise DataError(f"data.window is {window}; give 1 file or more, or null for all")
        self.window = window
        self._check_origin(resolution, fingerprint)
        self.n = {"train": self._count("train", "n", n), "held_out": self._count("held_out", "held_out", held_out)}
        self._check_room(cache_gb)

    @property
    def content(self) -> str:
        """Name of the set and how much of it is used; enters the hash of a training."""
        return f"{self.manifest['name']} {self.n['train']} {self.n['held_out']}"

    def prepare(self, shard: int = 0, shards: int = 1) -> None:
        """Nothing is to be made."""

    def missing(self) -> list[Path]:
        """Nothing is to be made."""
        return []

    @property
    def train(self) -> ShardedDataset:
        """The training people."""
        return self._dataset("train")

    @property
    def held_out(self) -> ShardedDataset:
        """People that no model is trained on."""
        return self._dataset("held_out")

    def _dataset(self, split: str) -> ShardedDataset:
        # Few open files: one that is open keeps its room on the disk after it was deleted.
        return ShardedDataset(
            self.mirror.folder / split, self.n[split], self.manifest["shard_size"], 16, self.mirror, self.window
        )

    def _check_origin(self, resolution: int, fingerprint: str) -> None:
        for key, wanted in (("resolution", resolution), ("fingerprint", fingerprint)):
            if self.manifest[key] != wanted:
                what = "shape_model, identity or renderer differ" if key == "fingerprint" else "scale differs"
                made = f"{self.mirror.remote.url} was made with {key} {self.manifest[key]}"
                raise DataError(f"{made}, this run has {wanted}: its {what}")

    def _count(self, split: str, option: str, wanted: int | None) -> int:
        there = self.manifest[split]["shards"] * self.manifest["shard_size"]
        if wanted is not None and not 0 < wanted <= there:
            raise DataError(f"data.{option} is {wanted}; {self.mirror.remote.url} holds {there} people of that split")
        return wanted or there

    def _check_room(self, cache_gb: float) -> None:
        """Refuse to download the same file again and again."""
        split = self.manifest["train"]
        size, used = split["bytes"] / max(1, split["shards"]), -(-self.n["train"] // self.manifest["shard_size"])
        needed = size * min(used, self.window or used) / GIGABYTE
        if needed > cache_gb:
            fitting = int(cache_gb * GIGABYTE / size)
            smaller = f"data.window={fitting} (files in use at once), or " if fitting else ""
            raise DataError(
                f"training uses {needed:.3g} GB of {self.mirror.remote.url} at once, data.cache_gb is {cache_gb:g}: "
                f"give {smaller}data.cache_gb={needed * 1.1:.3g}"
            )


def _read_manifest(remote: Remote) -> dict[str, Any]:
    """The manifest at a URL.

    Raises:
        DataError: there is none, or what is there is not what `write_manifest` writes.
    """
    manifest = remote.read_json(MANIFEST)
    try:
        texts = [manifest[key] for key in ("name", "fingerprint")]
        positive = [manifest[key] for key in ("resolution", "shard_size")]
        positive += [manifest["train"][key] for key in ("shards", "bytes")]
        counts = [manifest[split][key] for split in SPLITS for key in ("shards", "bytes")]
    except (KeyError, TypeError, IndexError) as error:
        raise DataError(f"{remote.url}/{MANIFEST} is no manifest of a data set: it lacks {error}") from error
    good = all(isinstance(text, str) for text in texts) and all(type(count) is int for count in positive + counts)
    if not good or min(positive) < 1 or min(counts) < 0:
        raise DataError(f"{remote.url}/{MANIFEST} is no manifest of a data set: expected whole, positive counts")
    return manifest


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
