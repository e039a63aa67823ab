"""Moving pictures: looping GIFs by Pillow, H.264 in MP4 by the optional package imageio-ffmpeg."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fitdiff.storage import write_atomically

PALETTE_FRAMES = 8
"""Frames, evenly spaced, from which the one palette of a GIF is made."""


class VideoError(ValueError):
    """The package that writes videos is missing; the message says how to get it."""


def save_gif(frames: Sequence[np.ndarray], path: str | os.PathLike[str], fps: float = 25) -> Path:
    """Write a GIF that loops forever.

    All frames share one palette, made from several of them: a palette a frame would flicker. Errors are diffused
    (Floyd and Steinberg 1976), or skin would show steps.

    Args:
        frames: uint8 (H, W, 3) sRGB, all of one size.
        fps: frames a second, at most 50; GIF counts in hundredths of a second.

    Returns:
        The path.
    """
    images = [Image.fromarray(frame) for frame in frames]
    chosen = frames[:: max(1, len(frames) // PALETTE_FRAMES)]
    palette = Image.fromarray(np.concatenate(list(chosen))).quantize(256, Image.Quantize.MEDIANCUT, kmeans=2)
    indexed = [image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for image in images]
    buffer = io.BytesIO()
    indexed[0].save(
        buffer, "GIF", save_all=True, append_images=indexed[1:], duration=1000 / fps, loop=0, optimize=False
    )
    return write_atomically(path, buffer.getvalue())


def check_mp4(width: int, height: int) -> None:
    """See whether `save_mp4` can write frames of this size, before they are made.

    Raises:
        VideoError: imageio-ffmpeg is not installed.
        ValueError: a side is odd, which 4:2:0 cannot store.
    """
    try:
        import imageio_ffmpeg  # noqa: F401
    except ImportError as error:
        raise VideoError("MP4 needs imageio-ffmpeg: pip install 'fitdiff[video]', or ask for format=gif") from error
    if height % 2 or width % 2:
        raise ValueError(f"got frames of {width} x {height} pixels; MP4 needs even sides")


def save_mp4(frames: Sequence[np.ndarray], path: str | os.PathLike[str], fps: float = 25, loops: int = 1) -> Path:
    """Write H.264 (4:2:0, BT.709) that browsers and slides play.

    Args:
        frames: uint8 (H, W, 3) sRGB, all of one size with even sides.
        fps: frames a second.
        loops: how often the frames are repeated.

    Returns:
        The path.

    Raises:
        ValueError: see `check_mp4`.
    """
    height, width = frames[0].shape[:2]
    check_mp4(width, height)
    import imageio_ffmpeg

    colours = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "iec61966-2-1"]
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / "film.mp4"
        writer = imageio_ffmpeg.write_frames(
            str(temporary), (width, height), fps=fps, codec="libx264", macro_block_size=2, quality=None,
            output_params=["-crf", "16", "-vf", "scale=out_color_matrix=bt709", *colours, "-movflags", "+faststart"],
            ffmpeg_log_level="error",
        )  # fmt: skip
        writer.send(None)
        for _ in range(loops):
            for frame in frames:
                writer.send(np.ascontiguousarray(frame))
        writer.close()
        return write_atomically(path, temporary.read_bytes())
