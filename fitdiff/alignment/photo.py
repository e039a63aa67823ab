"""Read any photo that people bring as 8-bit sRGB, upright, on white where it is transparent."""

from __future__ import annotations

import errno
import functools
import io
import logging
import math
import stat
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "DIB", "PPM", "JPEG2000", "AVIF", "TGA", "ICO")
"""What is read, told by content. Pillow would read more, and start Ghostscript for an EPS that is called me.jpg."""

SMALLEST_SIDE = 32
LARGEST_SIDE = 4096
"""Pixels; the crop that is fitted has a tenth of that."""
MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)
"""As Pillow refuses them, before anything is decoded."""
TIFF_NOTE = "a TIFF with more than 8 bits: read as sRGB, without its colour profile and orientation"
MOST_TIFF_BYTES = 6 * MOST_PIXELS
"""Decoded: that many pixels of 16-bit RGB."""
STRIP_BYTES = 1 << 26
PHOTOMETRIC, PLANAR_CONFIGURATION, BITS_PER_SAMPLE = 262, 284, 258
FULL_FRAME_DIAGONAL = math.hypot(36.0, 24.0)


class PhotoError(ValueError):
    """A photo that cannot be used; the message is one line for the person who gave it."""


@dataclass(frozen=True)
class Photo:
    """A photo as every detector and network here expects it.

    Attributes:
        image: (H, W, 3) uint8 sRGB, upright.
        focal_pixels: focal length in pixels from the 35 mm equivalent in the EXIF data, or None. Meaningless if the
            picture was cropped after it was taken.
        path: where it came from.
        notes: what the reader had to decide, in plain words.
    """

    image: NDArray[np.uint8]
    focal_pixels: float | None = None
    path: Path | None = None
    notes: tuple[str, ...] = ()


def load_photo(path: str | Path) -> Photo:
    """Read grey, palette, transparent, CMYK, 16-bit, floating-point, rotated or colour-managed images alike.

    Transparency is composited on white, an embedded ICC profile is converted to sRGB, the EXIF orientation is applied.
    Integers are scaled by the range of their type, floating-point values are taken as sRGB in [0, 1]; of an animation
    or a burst the first frame is read. Photos of more than 4096 pixels a side are reduced to that.

    Raises:
        PhotoError: no such file, not a readable image, more than 179 megapixels (a TIFF of 16 bits: 1.1 GB), or less
            than 32 pixels a side.
    """
    path = Path(path)
    _refuse_what_is_no_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged metadata and large sizes; what matters is decided below
        try:
            with Image.open(path, formats=_formats()) as file:
                _refuse_misread_tiff(file)
                file.draft(None, (LARGEST_SIDE, LARGEST_SIDE))  # JPEGs are decoded at no more than is needed
                file.load()
                focal, upright = _focal_pixels(file), ImageOps.exif_transpose(file)
                image, notes = _to_srgb(upright)
        except Exception as error:  # damaged files raise whatever the decoder stumbles over
            image, focal, notes = _read_tiff(path, error), None, (TIFF_NOTE,)
    if min(image.shape[:2]) < SMALLEST_SIDE:
        size = f"{image.shape[1]} x {image.shape[0]}"
        raise PhotoError(f"{path}: {size} pixels is too small, at least {SMALLEST_SIDE} a side are needed")
    return _reduced(Photo(image, focal, path, notes))


def _refuse_what_is_no_file(path: Path) -> None:
    """Raise unless the path leads to an ordinary file: opening a pipe would wait forever."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        absent = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
        leads_nowhere = "a link that leads nowhere" if absent and path.is_symlink() else "no such file"
        raise PhotoError(f"{path}: {leads_nowhere if absent else error.strerror}") from error
    except ValueError as error:  # a null character
        raise PhotoError(f"{path}: no such file") from error
    if not stat.S_ISREG(mode):
        raise PhotoError(
            f"{path}: {'a folder, not a photo' if stat.S_ISDIR(mode) else 'a pipe or a device, not a photo'}"
        )


@functools.cache
def _formats() -> list[str]:
    """Those of `FORMATS` that this Pillow has."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _reduced(photo: Photo) -> Photo:
    """The photo with at most `LARGEST_SIDE` pixels a side."""
    height, width = photo.image.shape[:2]
    scale = LARGEST_SIDE / max(height, width)
    if scale >= 1:
        return photo
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = np.asarray(Image.fromarray(photo.image).resize(size, Image.Resampling.BOX))
    return replace(photo, image=image, focal_pixels=photo.focal_pixels and photo.focal_pixels * scale)


def _refuse_misread_tiff(file: Image.Image) -> None:
    """Pillow 13 misreads 16-bit colour planes, 16-bit greys where 0 is white, and 32-bit greys, without an error."""
    tags = getattr(file, "tag_v2", {})
    bits = max(tags.get(BITS_PER_SAMPLE, (8,)))
    if bits > 16 or (bits > 8 and (tags.get(PLANAR_CONFIGURATION) == 2 or tags.get(PHOTOMETRIC) == 0)):
        raise ValueError(f"a TIFF of {bits} bits")


def _to_srgb(file: Image.Image) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    if file.mode.startswith(("I", "F")):
        values = np.asarray(file)
        return _to_8_bit(values, 65535 if values.dtype.kind in "ui" else 1), ()  # greys of 16 bits, in mode I too
    transparent = file.has_transparency_data
    alpha = file.convert("RGBA").getchannel("A") if transparent else None
    if file.mode in ("1", "P", "PA", "LA", "La", "RGBA", "RGBa", "RGBX"):
        file = file.convert("RGBA").convert("RGB")
    colour, notes = _apply_profile(file)
    if alpha is not None:
        colour = Image.composite(colour, Image.new("RGB", colour.size, "white"), alpha)
    return np.asarray(colour), notes


def _apply_profile(file: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """To RGB, through the embedded profile if there is one that fits the image's mode."""
    embedded = file.info.get("icc_profile")
    if not embedded:
        return file.convert("RGB"), ()
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(embedded))
        # A grey profile says nothing of the RGB that a palette or an alpha channel was expanded to.
        if profile.profile.xcolor_space.strip() == {"L": "GRAY"}.get(file.mode, file.mode):
            return ImageCms.profileToProfile(file, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"), ()
    except (ImageCms.PyCMSError, OSError):
        pass
    return file.convert("RGB"), ("the embedded colour profile does not fit the image: taken as sRGB",)


def _to_8_bit(values: NDArray, full: float) -> NDArray[np.uint8]:
    """(H, W) or (H, W, 1 to 4) of any number type, 0 to `full` -> (H, W, 3) uint8 on white; strip by strip."""
    strips = np.array_split(values, min(len(values), 1 + values.nbytes // STRIP_BYTES))
    return np.concatenate([_strip_to_8_bit(strip, full) for strip in strips])


def _strip_to_8_bit(values: NDArray, full: float) -> NDArray[np.uint8]:
    unit = np.nan_to_num(np.clip(values / full, 0, 1))
    unit = unit[..., None] if unit.ndim == 2 else unit
    if unit.shape[-1] in (2, 4):
        unit, alpha = unit[..., :-1], unit[..., -1:]
        unit = unit * alpha + 1 - alpha
    return np.broadcast_to((unit * 255).round().astype(np.uint8), (*unit.shape[:2], 3)).copy()


def _read_tiff(path: Path, error: Exception) -> NDArray[np.uint8]:
    """The TIFFs of 16 bits, 32 bits and floating-point numbers that Pillow does not read; of grey or RGB alone."""
    import tifffile

    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    refused = PhotoError(f"{path}: not an image that can be read ({reason}); save it as JPEG or PNG")
    if isinstance(error, Image.DecompressionBombError):
        raise refused from error
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it tells every tag that is wrong
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            meaning, itemsize = page.photometric.name, page.dtype.itemsize
            readable = meaning in ("RGB", "MINISBLACK") or (meaning == "MINISWHITE" and page.dtype.kind in "bu")
            whole = page.bitspersample == 8 * itemsize or page.dtype.kind == "b"
            if page.nbytes > MOST_TIFF_BYTES or page.ndim > 3 or not (readable and whole):
                raise refused from error
            values = page.asarray()
    except PhotoError:
        raise
    except Exception:  # as above
        raise refused from error
    values = ~values if meaning == "MINISWHITE" else values
    if page.axes.startswith("S"):  # colour planes
        values = values.transpose(1, 2, 0)
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[-1] > 4) or values.dtype.kind not in "buif":
        raise refused from error
    return _to_8_bit(values, np.iinfo(values.dtype).max if values.dtype.kind in "ui" else 1)


def _focal_pixels(file: Image.Image) -> float | None:
    """f = f35 * diagonal / 43.27 mm: the 35 mm equivalent is defined by the diagonal (CIPA DCG-001)."""
    equivalent = file.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.FocalLengthIn35mmFilm)
    if not isinstance(equivalent, int) or equivalent <= 0:
        return None
    return equivalent * math.hypot(*file.size) / FULL_FRAME_DIAGONAL
