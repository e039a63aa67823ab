"""The held-out people of a checkpoint's own data set in new portraits, made once and cached."""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from fitdiff.config import config_hash
from fitdiff.data.people import HELD_OUT_OFFSET, VERSION
from fitdiff.data.people.maker import PeopleMaker
from fitdiff.data.people.options import CLEAN, STANDARD_AUGMENTATION, STANDARD_PORTRAITS, Augmentation, Portraits
from fitdiff.data.shard_file import DataError
from fitdiff.evaluation.people import KEYS, NOVEL, PHOTO
from fitdiff.storage import cache_folder, read_tensors, write_tensors

HARD = Portraits(
    yaw=60.0, pitch=10.0, roll=8.0, wide=1.0, widest=60.0, expressive=0.8,
    lamps=0.35, near_lamps=0.3, surroundings=0.35, tint=35.0, exposure=0.3,
)  # fmt: skip
"""Yaw uniform up to 60 degrees, every kind of light, coloured and of any strength."""

OCCLUDED = Augmentation(hair_strands=0.2, glasses=0.25, hand=0.12, cover=0.08)
"""Things before the face in about half of the portraits; blur, noise and JPEG as usual."""

USUAL = Portraits(wide=0.0)
KINDS = {"hard": (HARD, OCCLUDED), "usual": (STANDARD_PORTRAITS, STANDARD_AUGMENTATION)}
"""How view `PHOTO` is taken, and what happens to it; `usual` is as the training set's are by default."""

PORTRAIT_SIZE = 224
BLOCK = 16
"""People a file: what is made at once, and found again."""


class HeldOutPeople:
    """Samples of people that no model was trained on, in `FITDIFF_CACHE` by blocks.

    Tensors are those of `PeopleMaker.make`, and `occluded` (n,). View `PHOTO` is of the given kind; view `NOVEL`, which
    no method sees, is a usual one of a clean face.

    Raises:
        DataError: the model was not trained on synthetic people. ValueError: there is no such kind of portraits.
    """

    def __init__(self, model: Any, kind: str = "hard") -> None:
        data = model.config.get("data", {})
        if not str(data.get("_target_", "")).endswith("people.People"):
            raise DataError(
                f"the checkpoint was trained on {data.get('_target_', 'unknown data')}; new portraits of its held-out "
                "people need a checkpoint of data=people"
            )
        if kind not in KINDS:
            raise ValueError(f"got portraits={kind!r}; give one of {', '.join(KINDS)}")
        self.model, self.data, self.kind = model, data, kind
        parts = {key: model.config[key] for key in ("shape_model", "identity", "renderer", "resolution")}
        options = [asdict(x) for x in (*KINDS[kind], USUAL)]
        digits = config_hash(VERSION, parts, model.versions, data["seed"], PORTRAIT_SIZE, options)
        self.folder = cache_folder() / f"fitting-{digits}"

    def missing(self, n: int) -> list[int]:
        """Numbers of the blocks of the first n people that are still to be made."""
        return [number for number in range(-(-n // BLOCK)) if not self._path(number).exists()]

    def make(self, number: int) -> None:
        """Make a block."""
        first = HELD_OUT_OFFSET + number * BLOCK
        photo, novel = (maker.make(range(first, first + BLOCK)) for maker in self._makers)
        write_tensors(self._path(number), join_views(photo, novel))

    def gather(self, rows: range) -> dict[str, Tensor]:
        """Tensors of consecutive people, a row each; their blocks are made if they are not there."""
        numbers = range(rows.start // BLOCK, -(-rows.stop // BLOCK))
        for number in numbers:
            if not self._path(number).exists():
                self.make(number)
        blocks = [read_tensors(self._path(number)) for number in numbers]
        start = rows.start - numbers.start * BLOCK
        return {key: torch.cat([block[key] for block in blocks])[start : start + len(rows)] for key in blocks[0]}

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:02d}.safetensors"

    @cached_property
    def _makers(self) -> tuple[PeopleMaker, PeopleMaker]:
        """Of the portraits of this kind, and of usual ones of clean faces."""
        model = self.model
        parts = (model.shape_model, model.identity, model.renderer, int(model.config["resolution"]))
        rest = (PORTRAIT_SIZE, 2, self.data["seed"])
        return (
            PeopleMaker(*parts, *rest, *KINDS[self.kind], model.device),
            PeopleMaker(*parts, *rest, USUAL, CLEAN, model.device),
        )


def hard_people(model: Any, n: int) -> dict[str, Tensor]:
    """The first n people in hard portraits; see `HeldOutPeople`."""
    people = HeldOutPeople(model, "hard")
    for number in track(missing := people.missing(n), "hard portraits", disable=not missing):
        people.make(number)
    return people.gather(range(n))


def join_views(photo: dict[str, Tensor], novel: dict[str, Tensor]) -> dict[str, Tensor]:
    """The first view of the one, the second of the other; all else is the same person's."""
    views = {key: torch.stack([photo[key][:, PHOTO], novel[key][:, NOVEL]], 1) for key in KEYS[2:]}
    return {"identity": photo["identity"], "maps": photo["maps"], "occluded": photo["occluded"][:, PHOTO], **views}
