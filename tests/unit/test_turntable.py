"""Turntables from exported files alone: they loop, show the whole face, and are files that players read."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fitdiff.avatar import Avatar, save_glb
from fitdiff.avatar.moving import VideoError, save_gif, save_mp4
from fitdiff.geometry import project, to_camera_space
from fitdiff.renderer import turntable as module
from fitdiff.renderer.turntable import exposed, main, turning_cameras, turntable
from fitdiff.types import FaceMaps, Topology
from tests.conftest import write_exr


def dome(n: int = 16) -> Avatar:
    """A bulging square with one red half."""
    t = torch.linspace(-1, 1, n)
    y, x = torch.meshgrid(-t, t, indexing="ij")
    vertices = torch.stack([70 * x, 100 * y, 50 * (2 - x**2 - y**2)], -1).reshape(-1, 3)
    ids = torch.arange(n * n).reshape(n, n)
    a, b, c, d = (corner.flatten() for corner in (ids[:-1, :-1], ids[1:, :-1], ids[1:, 1:], ids[:-1, 1:]))
    faces = torch.cat([torch.stack([a, b, c], 1), torch.stack([a, c, d], 1)])
    uv = torch.stack([x, -y], -1).reshape(-1, 2) / 2 + 0.5
    weights = torch.tensor([1.0, 0.0, 0.0]).repeat(68, 1)
    diffuse = torch.full((1, 3, 8, 8), 0.3)
    diffuse[:, 0, :, :4] = 0.7
    flat = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    maps = FaceMaps(diffuse, torch.full((1, 3, 8, 8), 0.35), flat)
    return Avatar(vertices, Topology(faces, uv, torch.zeros(68, 3).long(), weights), maps)


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return list(turntable(dome(), 24, 64))


def test_the_last_frame_leads_into_the_first(frames):
    steps = [np.abs(a.astype(int) - b).mean() for a, b in zip(frames, frames[1:] + frames[:1], strict=True)]
    assert min(steps) > 0  # it moves
    assert steps[-1] < 1.5 * np.median(steps)
    assert max(steps) < 2.5 * np.median(steps)  # smoothly


def test_light_and_head_take_both_sides(frames):
    """At the quarters the head turns right and left; when it is frontal, the lamp is left, half a loop later right."""
    left, right = (frame[:, :32].astype(float).mean() - frame[:, 32:].mean() for frame in (frames[0], frames[12]))
    assert left > 0 > right


def test_no_frame_cuts_the_head_and_all_are_seen_from_one_place():
    vertices = dome().vertices[None]
    cameras = turning_cameras(vertices, torch.linspace(-40, 40, 9), fill=0.9)
    points = to_camera_space(vertices.expand(9, -1, -1), cameras)
    extent = project(points, cameras).abs().amax((1, 2))
    assert extent.max().item() == pytest.approx(0.9, abs=1e-4)
    pivot = torch.tensor([0.0, 0.0, 0.0])  # the middle of the back of the dome
    fixed = to_camera_space(pivot.expand(9, 1, 3), cameras)
    torch.testing.assert_close(fixed, fixed[:1].expand(9, 1, 3), atol=1e-3, rtol=0)


def test_surroundings_go_round_the_head(tmp_path):
    """A bright half of the world is ahead first and behind after half a loop, where no lamp helps."""
    world = np.full((16, 32, 3), 0.1, np.float32)
    world[:, 8:24] = 4.0
    write_exr(tmp_path / "world.exr", {"RGB": world})
    radiance = exposed(str(tmp_path / "world.exr"), None)
    assert radiance.mean(1).max() / radiance.mean(1).min() == pytest.approx(40)
    lit = [frame[28:36, 28:36].mean() for frame in turntable(dome(), 4, 64, surroundings=radiance)]
    assert lit[0] > lit[1] > lit[2]
    assert lit[3] > lit[2]
    torch.testing.assert_close(exposed(str(tmp_path / "world.exr"), 2.0).max(), torch.tensor(8.0))


def test_gif_loops_with_faithful_colours(frames, tmp_path):
    path = save_gif(frames, tmp_path / "a b.gif", fps=20)
    with Image.open(path) as film:
        assert (film.n_frames, film.info["loop"], film.info["duration"]) == (24, 0, 50)
        film.seek(7)
        shown = np.array(film.convert("RGB")).astype(float)
    assert np.abs(shown - frames[7]).mean() < 3
    np.testing.assert_allclose(shown.mean((0, 1)), frames[7].mean((0, 1)), atol=1.5)  # dithering keeps the mean
    assert path.read_bytes() == save_gif(frames, tmp_path / "again.gif", fps=20).read_bytes()


def test_mp4_has_the_frames(frames, tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="MP4 needs the extra `video`").get_ffmpeg_exe()
    path = save_mp4(frames, tmp_path / "film.mp4", fps=25, loops=2)
    raw = subprocess.run([ffmpeg, "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True).stdout
    shown = np.frombuffer(raw, np.uint8).reshape(-1, 64, 64, 3)
    assert len(shown) == 48
    np.testing.assert_allclose(shown[5].mean((0, 1)), frames[5].mean((0, 1)), atol=3)


def test_mp4_says_what_is_missing(frames, tmp_path, monkeypatch):
    pytest.importorskip("imageio_ffmpeg", reason="MP4 needs the extra `video`")
    with pytest.raises(ValueError, match="even sides"):
        save_mp4([frame[:, :63] for frame in frames], tmp_path / "film.mp4")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(VideoError, match=r"fitdiff\[video\]"):
        save_mp4(frames, tmp_path / "film.mp4")


@pytest.mark.parametrize(
    ("words", "missing", "message"),
    [
        (["format=mp4"], True, "fitdiff[video]"),
        (["out=film.mp4", "size=33"], False, "33 x 33 pixels; MP4 needs even sides"),
        (["device=cuda:99"], False, "got device=cuda:99, which does not work here"),
    ],
)
def test_faults_are_found_before_rendering(words, missing, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None if missing else object())
    monkeypatch.setattr(module, "turntable", lambda *_, **__: pytest.fail("it renders"))
    save_glb(dome(), tmp_path / "avatar.glb")
    monkeypatch.setattr(sys, "argv", ["turntable", f"avatar={tmp_path}", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_command_line(tmp_path, monkeypatch):
    folder = tmp_path / "me and my (cat), é=1"
    save_glb(dome(), folder / "avatar.glb")
    monkeypatch.setattr(sys, "argv", ["turntable", f"avatar={folder}", "frames=8", "size=32", "sheet=true"])
    main()
    with Image.open(folder / "turntable.gif") as film:
        assert film.n_frames == 8
    assert (folder / "turntable.png").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["avatar=nowhere"], "no such avatar"),
        ([], "no avatar given"),
        (["avatar=x", "format=webm"], "expected gif or mp4"),
        (["avatar=x", "frames=1"], "at least 2"),
        (["avatar=x", "sise=3"], "sise"),
        (["sheet"], "key=value"),
    ],
)
def test_command_line_errors_are_one_line(words, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["turntable", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_a_device_is_used_where_there_is_one():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    on_gpu, on_cpu = next(module.turntable(dome(), 4, 64, device="cuda")), next(module.turntable(dome(), 4, 64))
    assert np.abs(on_gpu.astype(int) - on_cpu).mean() < 1
