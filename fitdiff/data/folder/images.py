"""Map files as numbers: PNG of 8 or 16 bits a channel, TIFF, JPEG, OpenEXR. Nothing is resampled or converted here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SUFFIXES = (".png", ".exr", ".tif", ".tiff", ".jpg", ".jpeg")
PNG_DEPTH_AT = 24
"""Byte of a PNG file that holds the bits per channel (PNG 1.2, section 4.1.1)."""


@dataclass(frozen=True)
class MapFile:
    """One map as it is stored.

    Attributes:
        values: (C, H, W) float32, C = 1 or 3; integers are divided by the largest of their type, others kept.
        floating: the file holds floating-point numbers.
    """

    values: Tensor
    floating: bool


def probe(path: Path) -> tuple[int, int]:
    """(height, width) from the header alone.

    Raises:
        ValueError: not an image that `read_map` reads; the message says why.
    """
    try:
        if path.suffix.lower() == ".exr":
            low, high = _open_exr(path, header_only=True).header()["dataWindow"]
            return int(high[1] - low[1] + 1), int(high[0] - low[0] + 1)
        if path.suffix.lower() in (".tif", ".tiff"):
            import tifffile

            with tifffile.TiffFile(path) as file:
                return file.pages[0].imagelength, file.pages[0].imagewidth
        with Image.open(path) as file:
            return file.height, file.width
    except Exception as error:  # each library has exceptions of its own, all of which mean the same here
        raise ValueError(f"cannot be read ({_reason(error)}); save it again as PNG, TIFF or EXR") from error


def read_map(path: Path) -> MapFile:
    """Read a map; an alpha channel is dropped, grey stays one channel.

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
    floating = values.dtype.kind == "f"
    full = np.float32(1.0 if floating else np.iinfo(values.dtype).max)
    scaled = torch.from_numpy(values.astype(np.float32) / full).movedim(-1, 0).contiguous()
    if not scaled.isfinite().all():
        raise ValueError(f"{path}: holds numbers that are not finite; repair or leave out the map")
    return MapFile(scaled, floating)


def _read(path: Path) -> np.ndarray:
    """(H, W) or (H, W, C), of the file's own number type."""
    suffix = path.suffix.lower()
    if suffix == ".exr":
        return _read_exr(path)
    if suffix in (".tif", ".tiff"):
        import tifffile

        values = tifffile.imread(path, key=0)
        planar = values.ndim == 3 and values.shape[0] <= 4 < values.shape[2]
        return values.transpose(1, 2, 0) if planar else values
    if suffix == ".png" and path.read_bytes()[PNG_DEPTH_AT : PNG_DEPTH_AT + 1] == b"\x10":
        return _read_deep_png(path)
    with Image.open(path) as file:
        return np.array(file.convert("L" if file.mode in ("1", "L", "LA") else "RGB"))


def _read_deep_png(path: Path) -> np.ndarray:
    """16 bits a channel, which Pillow would cut to 8."""
    import cv2

    values = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise ValueError("damaged PNG")
    order = {2: ..., 3: np.s_[..., ::-1]}[values.ndim]
    return values[..., :3][order] if values.ndim == 3 else values


def _read_exr(path: Path) -> np.ndarray:
    channels = {name: channel.pixels for name, channel in _open_exr(path, separate_channels=True).channels().items()}
    names = "RGB" if {"R", "G", "B"} <= set(channels) else list(channels)[:1]
    return np.stack([channels[name] for name in names], -1).astype(np.float32)


def _open_exr(path: Path, **options: bool) -> object:
    import OpenEXR

    return OpenEXR.File(str(path), **options)


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
