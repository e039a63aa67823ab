"""Photos beside their fits, each fit laid into its whole photo: a frame a photo, and a film of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fitdiff.alignment.crop import cut_square
from fitdiff.avatar.moving import save_gif, save_mp4
from fitdiff.avatar.pictures import BACKGROUND, to_uint8
from fitdiff.photo_fit import PhotoFit
from fitdiff.types import composite

FRAME = "frame.jpg"
SIDE = 480
"""Largest side of a photo in a frame, in pixels."""

SLOW = 1.0
"""Frames a second where the photos are no video."""


def save_frame(fit: PhotoFit, folder: Path) -> Path:
    """Write frame.jpg: the photo, and beside it the photo with the fit in its place."""
    photo = Image.fromarray(fit.photo.image)
    scale = min(1.0, SIDE / max(photo.size))
    photo = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BOX)
    left, top, side = (fit.crop.square[0].cpu() * scale).tolist()
    size = max(8, round(side))
    behind = torch.from_numpy(cut_square(np.asarray(photo), left, top, side, size).copy()).movedim(-1, 0) / 255
    model, scene, z = fit.model, fit.result.scene, fit.result.z
    with torch.no_grad():
        vertices = model.vertices(z, scene.expression)
        rendering = model.renderer(vertices, model.maps(z), scene.camera, scene.lighting, size)
        face = to_uint8(composite(rendering, behind[None].to(z))[0])
    fitted = photo.copy()
    fitted.paste(Image.fromarray(face), (round(left), round(top)))
    frame = np.concatenate([np.asarray(photo), np.asarray(fitted)], 1)
    Image.fromarray(frame).save(folder / FRAME, quality=92, subsampling=0)
    return folder / FRAME


def save_film(folders: Sequence[Path], out: Path, frames_per_second: float | None) -> Path | None:
    """Write film.mp4, or film.gif where imageio-ffmpeg is missing, from the frames in folders; None for less than 2."""
    if len(folders) < 2:
        return None
    frames = Frames([folder / FRAME for folder in folders])
    if importlib.util.find_spec("imageio_ffmpeg"):
        return save_mp4(frames, out / "film.mp4", frames_per_second or SLOW)
    return save_gif(list(frames), out / "film.gif", min(50.0, frames_per_second or SLOW))


class Frames(Sequence[np.ndarray]):
    """Pictures that are read when they are needed, on one canvas with even sides: a film may be longer than memory."""

    def __init__(self, paths: Sequence[Path]) -> None:
        sizes = []
        for path in paths:
            with Image.open(path) as file:
                sizes.append(file.size)
        self.paths = paths
        self.size = tuple((max(lengths) + 1) // 2 * 2 for lengths in zip(*sizes, strict=True))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        """uint8 (H, W, 3), centred on white."""
        canvas = Image.new("RGB", self.size, BACKGROUND)
        with Image.open(self.paths[index]) as file:
            canvas.paste(file, ((canvas.width - file.width) // 2, (canvas.height - file.height) // 2))
        return np.asarray(canvas)
