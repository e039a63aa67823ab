"""`python -m fitdiff.renderer.turntable avatar=DIR`: an exported avatar turns under a moving light, as GIF or MP4."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as nnf
from rich.console import Console
from rich.progress import track
from torch import Tensor

from fitdiff.avatar import Avatar, load_avatar
from fitdiff.avatar.moving import check_mp4, save_gif, save_mp4
from fitdiff.avatar.pictures import BACKDROP, contact_sheet, save_png, to_uint8
from fitdiff.avatar.relight import PORTRAIT_FOCAL, light_from
from fitdiff.colour import linear_to_srgb, srgb_to_linear
from fitdiff.command import run_command, usable_device
from fitdiff.geometry import rotation_matrix
from fitdiff.renderer.environment import environment_lighting, load_environment, project_on_harmonics, shrink
from fitdiff.renderer.torch_renderer import TorchRenderer
from fitdiff.types import Camera, Lighting, composite

SWING, LIGHT_SWING = 38.0, 70.0
"""Degrees: how far the head turns to each side, and how far the lamp travels."""
SUPERSAMPLING = 2
SURROUNDINGS_ROWS, MEAN_RADIANCE = 64, 0.7
SHEET_FRAMES = 8


@dataclass
class Options:
    """What the command line sets."""

    avatar: str = ""  # folder that fit.py wrote, or a .glb of ours
    out: str | None = None  # file to write; null: turntable.gif (or .mp4) beside the avatar
    format: str | None = None  # gif or mp4; null: as `out` ends, else gif
    frames: int = 60
    size: int = 384  # side in pixels
    fps: float = 25.0
    environment: str | None = None  # longitude-latitude picture whose light goes round the head instead of a lamp
    exposure: float | None = None  # factor on that picture's radiance; null: a mean of 0.7 over all directions
    sheet: bool = False  # also write a PNG with 8 of the frames
    device: str = "cpu"


def main() -> None:
    """Render and write what the command line asks for."""
    run_command(write, Options, __doc__)


def write(options: Options, console: Console) -> None:
    """Render what the options ask for and write it.

    Raises:
        ValueError: an option is out of range, or the avatar is not ours (`AvatarError`).
        FileNotFoundError: there is no avatar.
        VideoError: MP4 is asked for without the package that writes it; like the others, found before rendering.
    """
    if not options.avatar:
        raise ValueError("no avatar given: python -m fitdiff.renderer.turntable avatar=outputs/fits/me")
    source = Path(options.avatar)
    kind = options.format or (Path(options.out).suffix[1:].lower() if options.out else "gif")
    if kind not in ("gif", "mp4"):
        raise ValueError(f"format is {kind!r}; expected gif or mp4")
    if options.frames < 2 or options.size < 32 or not 1 <= options.fps <= 50:
        raise ValueError(
            f"got frames={options.frames} size={options.size} fps={options.fps:g}; expected at least 2, 32, and 1 to 50"
        )
    if kind == "mp4":
        check_mp4(options.size, options.size)
    device = usable_device(options.device)
    out = Path(options.out) if options.out else (source if source.is_dir() else source.parent) / f"turntable.{kind}"
    avatar = load_avatar(source)
    surroundings = exposed(options.environment, options.exposure) if options.environment else None
    frames = list(
        track(
            turntable(avatar, options.frames, options.size, surroundings=surroundings, device=device),
            "rendering", total=options.frames, console=console,
        )
    )  # fmt: skip
    if options.sheet:
        chosen = [frames[i * len(frames) // SHEET_FRAMES] for i in range(SHEET_FRAMES)]
        save_png(contact_sheet([chosen[:4], chosen[4:]], cell=options.size), out.with_suffix(".png"))
    path = save_gif(frames, out, options.fps) if kind == "gif" else save_mp4(frames, out, options.fps, loops=2)
    console.print(f"results: {path}")


@torch.no_grad()
def turntable(
    avatar: Avatar,
    n_frames: int,
    size: int,
    *,
    surroundings: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[np.ndarray]:
    """Render one loop: the head turns from side to side while a lamp goes round it on an ellipse, a quarter ahead.

    The last frame leads into the first. Pixels are averaged in linear light, the silhouette over a grey backdrop too.

    Args:
        surroundings: (1, 3, H, 2H) linear radiance that goes round the head once, instead of the lamp.

    Yields:
        `n_frames` times uint8 (size, size, 3) sRGB.
    """
    renderer = TorchRenderer(avatar.topology, shininess=avatar.shininess).to(device)
    vertices, maps = avatar.vertices[None].to(device), avatar.maps.to(device)
    phases = 2 * math.pi * torch.arange(n_frames, dtype=torch.float64) / n_frames
    cameras = turning_cameras(vertices, SWING * phases.sin())
    for i, phase in enumerate(phases.tolist()):
        light = lamp_at(phase) if surroundings is None else surroundings_at(phase, surroundings, avatar.shininess)
        rendering = renderer(vertices, maps, cameras[i : i + 1], light.to(device), size * SUPERSAMPLING)
        linear = srgb_to_linear(composite(rendering, BACKDROP))
        yield to_uint8(linear_to_srgb(nnf.avg_pool2d(linear, SUPERSAMPLING)))[0]


def lamp_at(phase: float) -> Lighting:
    """A white lamp on its ellipse, and a little ambient light. `phase` in radians; 0 is on the left of the image."""
    azimuth, elevation = -LIGHT_SWING * math.cos(phase), 25 + 10 * math.sin(phase)
    return light_from(azimuth, elevation, intensity=1.0, ambient=0.18)


def surroundings_at(phase: float, radiance_13HW: Tensor, shininess: float) -> Lighting:
    """The light of surroundings that are turned about the vertical by `phase` radians."""
    return environment_lighting(radiance_13HW, shininess=shininess, rotation_B3=torch.tensor([[0.0, phase, 0.0]]))


def exposed(path: str, exposure: float | None) -> Tensor:
    """Read surroundings: (1, 3, H, 2H) linear radiance with at most 64 rows, times `exposure` (see `Options`)."""
    radiance = shrink(load_environment(path), SURROUNDINGS_ROWS)
    if exposure is None:
        mean, _ = project_on_harmonics(radiance, torch.eye(3)[None])
        exposure = MEAN_RADIANCE / max(mean.mean().item(), 1e-6)
    return radiance * exposure


def turning_cameras(vertices_1V3: Tensor, yaws_N: Tensor, fill: float = 0.92) -> Camera:
    """Cameras that see a head turn about a vertical axis at the back of its mesh, all from one place.

    That place is the nearest from which no frame cuts a vertex off (compare `avatar.relight.frontal_camera`).

    Args:
        vertices_1V3: (1, V, 3) mm, head space. yaws_N: (N,) degrees, positive turns the face to the image's right.
        fill: share of the image that the face spans at most.

    Returns:
        Camera of batch N.
    """
    low, high = vertices_1V3[0].amin(0), vertices_1V3[0].amax(0)
    pivot = torch.stack([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    rotation = torch.zeros(len(yaws_N), 3, device=vertices_1V3.device)
    rotation[:, 1] = torch.deg2rad(yaws_N).to(rotation)
    turned = (vertices_1V3 - pivot) @ rotation_matrix(rotation).transpose(1, 2)
    x, y, z = turned.unbind(-1)
    distance = (z + PORTRAIT_FOCAL / fill * torch.maximum(x.abs(), y.abs())).max()
    eye = distance * torch.tensor([0.0, 0.0, -1.0], device=rotation.device)
    translation = eye - (rotation_matrix(rotation) @ pivot)
    focal = rotation.new_full((len(rotation),), PORTRAIT_FOCAL)
    return Camera(rotation, translation, focal, rotation.new_zeros(len(rotation), 2))


if __name__ == "__main__":
    main()
