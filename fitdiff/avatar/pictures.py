"""Pictures for people: contact sheets, comparisons, PNG files. Images in are tensors, sheets out are uint8 arrays."""

from __future__ import annotations

import io
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fitdiff.storage import write_atomically
from fitdiff.types import FaceMaps, Rendering, composite

BACKGROUND = (255, 255, 255)
INK = (30, 30, 30)
BACKDROP = 0.5
"""sRGB grey behind an avatar without a photo: the outline of dark and of bright skin both show."""
GAP = 4
"""Pixels between cells."""


def to_uint8(image: Tensor) -> np.ndarray:
    """(..., C, H, W) float in [0, 1], values as displayed (sRGB) -> (..., H, W, C) uint8; NaN becomes black."""
    levels = (image.detach().nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)
    return levels.movedim(-3, -1).cpu().numpy()


def encode_png(image_HWC: np.ndarray) -> bytes:
    """uint8 (H, W, 3) or (H, W) -> the bytes of a PNG file. Lossless and deterministic."""
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "PNG", optimize=False, compress_level=6)
    return buffer.getvalue()


def save_png(image: np.ndarray | Tensor, path: str | os.PathLike[str]) -> Path:
    """Write one image, uint8 (H, W, 3) or a float tensor (3, H, W) in [0, 1]; atomic."""
    return write_atomically(path, encode_png(to_uint8(image) if isinstance(image, Tensor) else image))


def comparison(
    photo_B3SS: Tensor,
    fit: Rendering,
    relit_left: Rendering,
    frontal: Rendering,
    maps: FaceMaps,
    names: Sequence[str] = (),
    cell: int = 256,
) -> np.ndarray:
    """The picture of a fit, one row per photo: photo, fit over photo, relit, frontal neutral, and the three maps.

    Args:
        photo_B3SS: (B, 3, S, S) sRGB in [0, 1].
        fit: the avatar in the photo's scene, at the photo's size.
        relit_left: the same view lit from the left (`relight.light_from`).
        frontal: neutral expression, frontal camera (`relight.frontal_camera`).
        maps: (B, ...) reflectance.
        names: one caption per row.
        cell: side of a cell in pixels.

    Returns:
        uint8 (H, W, 3).
    """
    columns = {
        "photo": photo_B3SS,
        "fit": composite(fit, photo_B3SS),
        "lit from the left": composite(relit_left, BACKDROP),
        "frontal, neutral": composite(frontal, BACKDROP),
        "diffuse albedo": maps.to_images()["diffuse"],
        "specular albedo": maps.to_images()["specular"],
        "normals": maps.to_images()["normals"],
    }
    return contact_sheet(list(zip(*columns.values(), strict=True)), columns=list(columns), rows=names, cell=cell)


def grid(images_N3SS: Tensor, columns: int, cell: int = 256) -> np.ndarray:
    """A batch as a sheet of the given width: uint8 (H, W, 3)."""
    return contact_sheet([images_N3SS[i : i + columns] for i in range(0, len(images_N3SS), columns)], cell=cell)


def contact_sheet(
    images: Sequence[Sequence[Tensor | np.ndarray] | Tensor],
    *,
    columns: Sequence[str] = (),
    rows: Sequence[str] = (),
    cell: int = 256,
) -> np.ndarray:
    """Lay images out in rows, with a caption over each column and beside each row.

    Args:
        images: rows of images: float tensors (3, H, W) in [0, 1] as displayed, or uint8 arrays (H, W, 3). Each is
            fitted into its cell with its aspect kept; rows may have different lengths.
        columns: captions over the columns, none if empty. The built-in font is plain ASCII: accents are dropped,
            other characters become question marks.
        rows: captions left of the rows, none if empty.
        cell: side of a cell in pixels.

    Returns:
        uint8 (H, W, 3).

    Raises:
        ValueError: there is no image, or the number of captions differs from that of the rows or columns.
    """
    n_columns = max((len(row) for row in images), default=0)
    if n_columns == 0:
        raise ValueError("contact_sheet: got no image, expected at least one")
    _check_captions("columns", columns, n_columns)
    _check_captions("rows", rows, len(images))
    columns, rows = [_ascii(name) for name in columns], [_ascii(name) for name in rows]
    font = ImageFont.load_default(max(12, cell // 14))
    margin = round(max((font.getlength(name) for name in rows), default=0)) + (2 * GAP if rows else 0)
    header = (2 * round(font.size) if columns else 0) + GAP
    step = cell + GAP
    sheet = Image.new("RGB", (margin + n_columns * step + GAP, header + len(images) * step), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for j, name in enumerate(columns):
        draw.text((margin + GAP + j * step + cell / 2, header / 2), name, INK, _fitting(font, name, cell), anchor="mm")
    for i, name in enumerate(rows):
        draw.text((margin - GAP, header + i * step + cell / 2), name, INK, font, anchor="rm")
    for i, row in enumerate(images):
        for j, image in enumerate(row):
            tile = _tile(image, cell)
            offset = ((cell - tile.width) // 2, (cell - tile.height) // 2)
            sheet.paste(tile, (margin + GAP + j * step + offset[0], header + i * step + offset[1]))
    return np.asarray(sheet)


def _check_captions(kind: str, captions: Sequence[str], expected: int) -> None:
    if captions and len(captions) != expected:
        raise ValueError(f"contact_sheet: got {len(captions)} captions for {expected} {kind}")


def _ascii(text: str) -> str:
    letters = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(letters).encode("ascii", "replace").decode()


def _fitting(font: ImageFont.FreeTypeFont, text: str, width: int) -> ImageFont.FreeTypeFont:
    """The font, made smaller if the text would be wider than `width`."""
    length = font.getlength(text)
    return font if length <= width else font.font_variant(size=font.size * width / length)


def _tile(image: Tensor | np.ndarray, cell: int) -> Image.Image:
    tile = Image.fromarray(to_uint8(image) if isinstance(image, Tensor) else image).convert("RGB")
    scale = cell / max(tile.size)
    size = (max(1, round(tile.width * scale)), max(1, round(tile.height * scale)))
    return tile if tile.size == size else tile.resize(size, Image.Resampling.LANCZOS)
