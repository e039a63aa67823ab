"""Image files as numbers: PNG of 8 or 16 bits, TIFF, JPEG, OpenEXR, Radiance; nothing is resampled or converted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SUFFIXES = (".png", ".exr", ".tif", ".tiff", ".jpg", ".jpeg")
"""Of maps. Environments may be `.hdr`, too."""
FORMATS = ("PNG", "JPEG")
"""What Pillow may decode here; a phone's pair of JPEGs (MPO) counts as one. By itself Pillow goes by a file's content,
and has PostScript drawn by another program."""
PNG_DEPTH_AT = 24
"""Byte of a PNG file that holds the bits per channel (PNG 1.2, section 4.1.1)."""


@dataclass(frozen=True)
class StoredImage:
    """One image as it is stored.

    Attributes:
        values: (C, H, W) float32, C = 1 or 3; integers are divided by the largest of their type, others kept; 0 is
            dark, also in files that store it the other way round.
        floating: the file holds floating-point numbers.
    """

    values: Tensor
    floating: bool


def probe(path: Path) -> tuple[int, int]:
    """(height, width) from the header alone.

    Raises:
        ValueError: not an image that `read_image` reads; the message says why.
    """
    try:
        if path.suffix.lower() == ".exr":
            low, high = _open_exr(path, header_only=True).header()["dataWindow"]
            return int(high[1] - low[1] + 1), int(high[0] - low[0] + 1)
        if path.suffix.lower() in (".tif", ".tiff"):
            import tifffile

            with tifffile.TiffFile(path) as file:
                return file.pages[0].imagelength, file.pages[0].imagewidth
        with Image.open(path, formats=FORMATS) as file:
            return file.height, file.width
    except Exception as error:  # each library has exceptions of its own, all of which mean the same here
        raise ValueError(f"cannot be read ({_reason(error)}); save it again as PNG, TIFF or EXR") from error


def read_image(path: Path) -> StoredImage:
    """Read an image; an alpha channel is dropped, grey stays one channel.

    Raises:
        ValueError: not a readable image of 1 to 4 channels, or not finite; the message names the file.
    """
    try:
        values = _read(path)
    except Exception as error:  # as in `probe`
        raise ValueError(f"{path}: cannot be read ({_reason(error)}); save it again as PNG, TIFF or EXR") from error
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[2] > 4:
        raise ValueError(f"{path}: has shape {values.shape}, expected one picture of 1 to 4 channels")
    values = values[..., : 3 if values.shape[2] > 2 else 1]
    if values.dtype.kind not in "buif":
        raise ValueError(f"{path}: holds {values.dtype}, expected integers or floating-point numbers")
    floating = values.dtype.kind == "f"
    full = np.float32(np.iinfo(values.dtype).max if values.dtype.kind in "ui" else 1)
    scaled = torch.from_numpy(values.astype(np.float32) / full).movedim(-1, 0).contiguous()
    if not scaled.isfinite().all():
        raise ValueError(f"{path}: holds numbers that are not finite; repair or leave out the map")
    return StoredImage(scaled, floating)


def _read(path: Path) -> np.ndarray:
    """(H, W) or (H, W, C), of the file's own number type."""
    suffix = path.suffix.lower()
    if suffix == ".exr":
        return _read_exr(path)
    if suffix == ".hdr":
        return _decode(path)
    if suffix in (".tif", ".tiff"):
        return _read_tiff(path)
    if suffix == ".png" and path.read_bytes()[PNG_DEPTH_AT : PNG_DEPTH_AT + 1] == b"\x10":
        return _decode(path)  # Pillow would cut it to 8 bits
    with Image.open(path, formats=FORMATS) as file:
        return np.array(file.convert("L" if file.mode in ("1", "L", "LA") else "RGB"))


def _decode(path: Path) -> np.ndarray:
    """By OpenCV: 16 bits a channel, Radiance's floating point."""
    import cv2

    values = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise ValueError(f"damaged {path.suffix[1:]} file")
    return values[..., 2::-1] if values.ndim == 3 else values


def _read_tiff(path: Path) -> np.ndarray:
    """The first page, if its numbers are light: a palette's indices, inks or other colour spaces would be misread."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        values, meaning, bits = page.asarray(), page.photometric.name, page.bitspersample
    inverted = meaning == "MINISWHITE" and values.dtype.kind in "bu"
    if not inverted and meaning not in ("MINISBLACK", "RGB"):
        raise ValueError(f"{values.dtype} of kind {meaning}, expected grey or RGB")
    if bits != 8 * values.dtype.itemsize and values.dtype != bool:
        raise ValueError(f"{bits} bits a channel, expected 1, 8, 16 or 32")
    planar = values.ndim == 3 and values.shape[0] <= 4 < values.shape[2]
    values = values.transpose(1, 2, 0) if planar else values
    return ~values if inverted else values


def _read_exr(path: Path) -> np.ndarray:
    """Colours, or else luminance, or else the only channel there is."""
    channels = {name: channel.pixels for name, channel in _open_exr(path, separate_channels=True).channels().items()}
    names = next((names for names in ("RGB", "Y") if set(names) <= set(channels)), sorted(channels))
    # RY and BY would be the colours of a luminance Y.
    if (len(names) > 1 and names != "RGB") or (names == "Y" and {"RY", "BY"} & set(channels)):
        raise ValueError(f"holds the channels {', '.join(sorted(channels))}, expected R, G and B, or Y, or only one")
    return np.stack([channels[name] for name in names], -1).astype(np.float32)


def _open_exr(path: Path, **options: bool) -> object:
    import OpenEXR

    return OpenEXR.File(str(path), **options)


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
