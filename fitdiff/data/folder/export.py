"""Write people in the layout of `data=folder`, exactly as they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fitdiff.avatar.export import MAP_NAMES
from fitdiff.avatar.pictures import save_png
from fitdiff.storage import write_json
from fitdiff.types import SCENE_KEYS

KEYS = ("identity", "maps", "image", "landmarks", "embedding", *SCENE_KEYS)
"""What `write_person` needs of a data set."""


def write_person(folder: Path, sample: Mapping[str, Tensor]) -> Path:
    """Write diffuse.png, specular.png, normals.png, shape.json, and viewN.png with viewN.json for each portrait.

    Args:
        folder: made if missing.
        sample: one person of a data set, without a batch dimension: `KEYS` of `ShardedDataset.gather`.

    Returns:
        The folder.
    """
    for name, picture in zip(MAP_NAMES, sample["maps"].split(3), strict=True):
        save_png(picture.movedim(0, -1).numpy(), folder / f"{name}.png")
    write_json(folder / "shape.json", {"identity": sample["identity"].tolist()})
    for view, image in enumerate(sample["image"]):
        save_png(image.movedim(0, -1).numpy(), folder / f"view{view}.png")
        scene = {key: sample[key][view].tolist() for key in ("landmarks", *SCENE_KEYS)}
        write_json(folder / f"view{view}.json", scene)
    return folder
