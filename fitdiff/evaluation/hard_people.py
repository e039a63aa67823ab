"""The held-out people of a checkpoint's own data set in portraits that are hard, made once and cached."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from fitdiff.config import config_hash
from fitdiff.data.people import HELD_OUT_OFFSET, VERSION
from fitdiff.data.people.maker import PeopleMaker
from fitdiff.data.people.options import CLEAN, Augmentation, Portraits
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
PORTRAIT_SIZE = 224
BLOCK = 16
"""People a file: what is made at once, and found again."""


def hard_people(model: Any, n: int) -> dict[str, Tensor]:
    """Tensors of `PeopleMaker.make` of the first n held-out people, and `occluded` (n,).

    View `PHOTO` is hard; view `NOVEL`, which no method sees, is a usual one of a clean face.

    Raises:
        DataError: the model was not trained on synthetic people.
    """
    data = model.config.get("data", {})
    if not str(data.get("_target_", "")).endswith("people.People"):
        raise DataError(
            f"the checkpoint was trained on {data.get('_target_', 'unknown data')}; the bench makes new portraits of "
            "held-out people, so it needs a checkpoint of data=people"
        )
    folder, makers = _folder(model, data), None
    blocks = []
    for number in track(range(-(-n // BLOCK)), "hard portraits", disable=_all_there(folder, n)):
        path = folder / f"{number:02d}.safetensors"
        if not path.exists():
            makers = makers or _makers(model, data)
            first = HELD_OUT_OFFSET + number * BLOCK
            hard, usual = (maker.make(range(first, first + BLOCK)) for maker in makers)
            write_tensors(path, join_views(hard, usual))
        blocks.append(read_tensors(path))
    return {key: torch.cat([block[key] for block in blocks])[:n] for key in blocks[0]}


def _all_there(folder: Path, n: int) -> bool:
    return all((folder / f"{number:02d}.safetensors").exists() for number in range(-(-n // BLOCK)))


def _folder(model: Any, data: dict[str, Any]) -> Path:
    parts = {key: model.config[key] for key in ("shape_model", "identity", "renderer", "resolution")}
    options = [asdict(x) for x in (HARD, OCCLUDED, USUAL)]
    return (
        cache_folder() / f"fitting-{config_hash(VERSION, parts, model.versions, data['seed'], PORTRAIT_SIZE, options)}"
    )


def _makers(model: Any, data: dict[str, Any]) -> tuple[PeopleMaker, PeopleMaker]:
    """Of hard portraits, and of usual ones of clean faces."""
    parts = (model.shape_model, model.identity, model.renderer, int(model.config["resolution"]))
    rest = (PORTRAIT_SIZE, 2, data["seed"])
    return (
        PeopleMaker(*parts, *rest, HARD, OCCLUDED, model.device),
        PeopleMaker(*parts, *rest, USUAL, CLEAN, model.device),
    )


def join_views(hard: dict[str, Tensor], usual: dict[str, Tensor]) -> dict[str, Tensor]:
    """The first view of the one, the second of the other; all else is the same person's."""
    views = {key: torch.stack([hard[key][:, PHOTO], usual[key][:, NOVEL]], 1) for key in KEYS[2:]}
    return {"identity": hard["identity"], "maps": hard["maps"], "occluded": hard["occluded"][:, PHOTO], **views}
