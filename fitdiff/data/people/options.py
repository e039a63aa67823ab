"""What of the portraits can be chosen: fields of the config under `data.portraits` and `data.augmentation`.

They are not frozen, since OmegaConf makes configs of frozen classes read-only; treat them as if they were.
"""

from __future__ import annotations

from dataclasses import dataclass

SHARES = ("bust", "hair_strands", "glasses", "hand", "cover", "blur", "noise", "jpeg")
"""Fields of `Augmentation` that are shares of portraits."""

PORTRAIT_RANGES = {
    "yaw": (0, 90), "pitch": (0, 90), "roll": (0, 90), "widest": (0, 90),
    "narrowest_lens": (1, 90), "widest_lens": (1, 90),  # from wider ones than 90 degrees the camera is in the face
    "lamps": (0, 1e6), "near_lamps": (0, 1e6), "surroundings": (0, 1e6),
    "tint": (0, 100), "exposure": (0, 2),
}  # fmt: skip
AUGMENTATION_RANGES = {"blur_strength": (0, 20), "noise_strength": (0, 2), "jpeg_quality": (1, 95)}
"""Least and largest value of the fields that are no shares."""


@dataclass(unsafe_hash=True)
class Portraits:
    """How people are photographed; this is part of the truth that a portrait is stored with.

    Attributes:
        yaw, pitch, roll: standard deviations in degrees.
        wide: share of portraits whose yaw is uniform up to +-`widest` degrees instead.
        narrowest_lens, widest_lens: field of view in degrees; the logarithm of the focal length is uniform between.
        expressive: share of portraits that are not neutral.
        lamps, near_lamps, surroundings: odds of the kinds of light: distant lamps, lamps within arm's reach, or light
            from all round (spherical harmonics) with at most one lamp.
        tint: standard deviation of the light's colour in mired from what the camera takes for white; 0 is grey light.
        exposure: standard deviation of the logarithm of all light together; its median is 1.2.
    """

    yaw: float = 15.0
    pitch: float = 8.0
    roll: float = 5.0
    wide: float = 0.1
    widest: float = 60.0
    narrowest_lens: float = 16.0
    widest_lens: float = 45.0
    expressive: float = 0.67
    lamps: float = 0.4
    near_lamps: float = 0.2
    surroundings: float = 0.4
    tint: float = 25.0
    exposure: float = 0.2

    def __post_init__(self) -> None:
        """Raises ValueError for what is out of range, lenses in the wrong order, or light of no kind."""
        _check_ranges("portraits", self, dict.fromkeys(("wide", "expressive"), (0, 1)) | PORTRAIT_RANGES)
        if self.narrowest_lens > self.widest_lens:
            lenses = f"narrowest_lens is {self.narrowest_lens}, widest_lens {self.widest_lens}"
            raise ValueError(f"portraits.{lenses}; give the smaller field of view to the narrowest")
        odds = (self.lamps, self.near_lamps, self.surroundings)
        if not any(odds):
            raise ValueError(f"portraits: lamps, near_lamps, surroundings are {odds}; give odds, not all 0")


@dataclass(unsafe_hash=True)
class Augmentation:
    """What lies between a face and its picture. Shares of portraits in [0, 1]; 0 everywhere is the clean face.

    Attributes:
        bust: hair, neck and shoulders round the face. hair_strands: over the forehead, of those with hair.
        glasses, hand, cover: things before the face; the cover is a mask or scarf over mouth and chin.
        blur: out of focus or shaken. blur_strength: largest standard deviation in pixels of a 224-pixel portrait.
        noise: of the sensor. noise_strength: largest standard deviation of linear light at middle grey.
        jpeg: compressed. jpeg_quality: lowest quality; the highest is 95.
    """

    bust: float = 0.85
    hair_strands: float = 0.15
    glasses: float = 0.12
    hand: float = 0.03
    cover: float = 0.03
    blur: float = 0.4
    blur_strength: float = 1.2
    noise: float = 0.6
    noise_strength: float = 0.03
    jpeg: float = 0.6
    jpeg_quality: float = 40.0

    def __post_init__(self) -> None:
        """Raises ValueError for what is out of range."""
        _check_ranges("augmentation", self, dict.fromkeys(SHARES, (0, 1)) | AUGMENTATION_RANGES)


def _check_ranges(group: str, options: Portraits | Augmentation, ranges: dict[str, tuple[float, float]]) -> None:
    for name, (low, high) in ranges.items():
        if not low <= getattr(options, name) <= high:  # nan is in no range
            wanted = "a share in [0, 1]" if (low, high) == (0, 1) else f"{low:g} to {high:g}"
            raise ValueError(f"{group}.{name} is {getattr(options, name)}; give {wanted}")


STANDARD_PORTRAITS, STANDARD_AUGMENTATION = Portraits(), Augmentation()

CLEAN = Augmentation(**dict.fromkeys(SHARES, 0.0))
"""No augmentation at all: faces over a background, as the renderer gives them."""
