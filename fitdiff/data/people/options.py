"""What of the portraits can be chosen: fields of the config under `data.portraits` and `data.augmentation`.

They are not frozen, since OmegaConf makes configs of frozen classes read-only; treat them as if they were.
"""

from __future__ import annotations

from dataclasses import dataclass

SHARES = ("bust", "hair_strands", "glasses", "hand", "cover", "blur", "noise", "jpeg")
"""Fields of `Augmentation` that are shares of portraits."""


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
        """Raises ValueError for a share that is none, or light of no kind."""
        _check_shares("portraits", self, ("wide", "expressive"))
        odds = (self.lamps, self.near_lamps, self.surroundings)
        if min(odds) < 0 or not any(odds):
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
        """Raises ValueError for a share or quality out of range."""
        _check_shares("augmentation", self, SHARES)
        if not 1 <= self.jpeg_quality <= 95:
            raise ValueError(f"augmentation.jpeg_quality is {self.jpeg_quality}; give 1 to 95")


def _check_shares(group: str, options: Portraits | Augmentation, names: tuple[str, ...]) -> None:
    for name in names:
        if not 0 <= getattr(options, name) <= 1:
            raise ValueError(f"{group}.{name} is {getattr(options, name)}; give a share in [0, 1]")


STANDARD_PORTRAITS, STANDARD_AUGMENTATION = Portraits(), Augmentation()

CLEAN = Augmentation(**dict.fromkeys(SHARES, 0.0))
"""No augmentation at all: faces over a background, as the renderer gives them."""
