"""How the numbers in people's map files are meant: `rules.json` of a folder, or the config."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fitdiff.types import SPECULAR_SCALE

FILE = "rules.json"
CHOICES = {
    "colour_space": ("auto", "srgb", "linear"),
    "specular_space": ("linear", "srgb"),
    "normal_space": ("tangent", "object"),
    "normal_y": ("up", "down"),
    "align": ("similarity", "rigid", "none"),
}


@dataclass(frozen=True)
class Rules:
    """What `fitdiff.types` fixes for us, and others do differently. The defaults are what our exports write.

    Attributes:
        colour_space: of diffuse maps. `auto`: floating-point files are linear, all others sRGB.
        specular_space: of specular maps.
        specular_f0: reflectance at normal incidence of a stored value of 1: 0.08 is ours and Disney's, 1 where maps
            hold F0 itself, 0.04 where they scale glTF's dielectric.
        normal_space: `tangent`, or `object`: axes of the mesh that lies beside the map, of head space otherwise.
        normal_y: `up` where green grows towards the top of the picture (OpenGL, glTF), `down` for DirectX.
        align: how a mesh is laid over the mean face: by rotation, translation and scale; without scale (mm); or not.
    """

    colour_space: str = "auto"
    specular_space: str = "linear"
    specular_f0: float = SPECULAR_SCALE
    normal_space: str = "tangent"
    normal_y: str = "up"
    align: str = "similarity"

    def __post_init__(self) -> None:
        for key, choices in CHOICES.items():
            if getattr(self, key) not in choices:
                raise ValueError(f"{key} is {getattr(self, key)!r}; expected {' or '.join(choices)}")
        if not isinstance(self.specular_f0, (int, float)) or not 0 < self.specular_f0 <= 1:
            raise ValueError(f"specular_f0 is {self.specular_f0!r}; expected a reflectance in (0, 1]")

    @classmethod
    def load(cls, root: Path, **overrides: Any) -> Rules:
        """The rules of a folder; overrides that are not None win over its file, the file over the defaults.

        Raises:
            ValueError: unknown keys or values; the message names the file.
        """
        path = root / FILE
        try:
            stored = json.loads(path.read_text()) if path.is_file() else {}
            if unknown := set(stored) - {f.name for f in fields(cls)}:
                raise ValueError(f"unknown {sorted(unknown)}; known are {[f.name for f in fields(cls)]}")
            return cls(**{**stored, **{key: value for key, value in overrides.items() if value is not None}})
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}" if path.is_file() else str(error)) from error
