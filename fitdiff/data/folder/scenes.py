"""A photo's scene as JSON: the keys of `Scene.to_tensors`, each optional in part."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fitdiff.types import LAMPS_AND_HARMONICS, Camera

CAMERA = tuple(f.name for f in fields(Camera))
SHAPES = {
    "rotation": (3,), "translation": (3,), "focal": (), "principal_point": (2,),
    "ambient": (3,), "directions": (-1, 3), "colours": (-1, 3), "proximity": (-1,), "harmonics": (8, 3),
    "landmarks": (68, 2),
}  # fmt: skip
"""Shape of each key; -1 is the number of lamps."""
REQUIRED = {"camera": CAMERA, "light": ("ambient", "directions", "colours")}


def read_scene(path: Path, expression_names: Sequence[str]) -> dict[str, Tensor]:
    """Read what a scene file holds.

    Args:
        path: JSON object with any of: the whole camera; the light (`proximity`, `harmonics` may be missing);
            `expression`, a list of weights or a table name -> weight; `landmarks`, 68 NDC points. The scene of a
            `fit.json`, under its key "scene", is one, too. Unknown keys are ignored.

    Returns:
        Float32 tensors without a batch dimension. Light is complete if there is any.

    Raises:
        ValueError: a part is incomplete or has another shape; the message does not name the file.
    """
    values = json.loads(path.read_text())
    if not isinstance(values, dict):
        raise ValueError("expected a JSON object, as in docs/data.md")
    scene = {key: _tensor(key, values[key], shape) for key, shape in SHAPES.items() if values.get(key) is not None}
    for part, keys in REQUIRED.items():
        present = [key for key in (*keys, *(LAMPS_AND_HARMONICS if part == "light" else ())) if key in scene]
        if present and (missing := [key for key in keys if key not in scene]):
            raise ValueError(f"has {present[0]!r} but not {missing}; give the whole {part}, or nothing of it")
    if values.get("expression") is not None:
        scene["expression"] = _expression(values["expression"], expression_names)
    if "ambient" in scene:
        _complete_light(scene)
    return scene


def pad_lamps(scenes: Sequence[dict[str, Tensor]], lamps: int = 0) -> list[dict[str, Tensor]]:
    """Add dark lamps straight ahead until all have the most that any has, and at least `lamps`.

    Args:
        scenes: with `directions` and `colours` (..., L, 3) and `proximity` (..., L); other keys are kept.
    """
    lamps = max(lamps, *(scene["directions"].shape[-2] for scene in scenes))
    return [{**scene, **_padded(scene, lamps - scene["directions"].shape[-2])} for scene in scenes]


def _padded(scene: dict[str, Tensor], extra: int) -> dict[str, Tensor]:
    dark = torch.zeros(*scene["directions"].shape[:-2], extra, 3)
    added = {"directions": dark + torch.tensor([0.0, 0.0, 1.0]), "colours": dark}
    padded = {key: torch.cat([scene[key], value], -2) for key, value in added.items()}
    return {**padded, "proximity": torch.cat([scene["proximity"], dark[..., 0]], -1)}


def _complete_light(scene: dict[str, Tensor]) -> None:
    lamps = len(scene["directions"])
    scene.setdefault("proximity", torch.zeros(lamps))
    scene.setdefault("harmonics", torch.zeros(8, 3))
    if {len(scene["colours"]), len(scene["proximity"])} != {lamps}:
        raise ValueError("'directions', 'colours' and 'proximity' must be of as many lamps each")


def _tensor(key: str, value: Any, shape: tuple[int, ...]) -> Tensor:
    try:
        tensor = torch.tensor(value, dtype=torch.float32)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{key!r} is not an array of numbers") from error
    tensor = tensor.reshape(0, *shape[1:]) if shape[:1] == (-1,) and tensor.numel() == 0 else tensor
    fits = tensor.ndim == len(shape) and all(want in (-1, got) for want, got in zip(shape, tensor.shape, strict=False))
    if not fits or not tensor.isfinite().all():
        wanted = tuple("lamps" if want == -1 else want for want in shape)
        raise ValueError(f"{key!r} has shape {tuple(tensor.shape)}, expected {wanted} finite numbers")
    return tensor


def _expression(value: Any, names: Sequence[str]) -> Tensor:
    if isinstance(value, dict):
        if unknown := sorted(set(value) - set(names)):
            raise ValueError(f"'expression' names {unknown[:3]}, which the shape model does not have")
        value = [value.get(name, 0.0) for name in names]
    return _tensor("expression", value, (len(names),))
