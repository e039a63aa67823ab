"""Skin noise and spots against closed forms, and against themselves at other sizes."""

import math

import pytest
import torch
import torch.nn.functional as nnf

from fitdiff.data.atlas import UvAtlas
from fitdiff.data.skin_marks import MarkPainter, Marks
from fitdiff.data.skin_noise import FIELDS, Mottle, PatchNoise, SplineNoise, mirror
from fitdiff.randomness import draw_normals
from fitdiff.types import Topology

WIDTH, HEIGHT = 160.0, 120.0


def plane_atlas(size: int) -> UvAtlas:
    """A flat rectangle of WIDTH x HEIGHT mm that fills the square."""
    uv = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    mean = torch.cat([(uv - 0.5) * torch.tensor([WIDTH, -HEIGHT]), torch.zeros(4, 1)], 1)
    landmarks = torch.tensor([0, 1, 2]).expand(68, 3), torch.tensor([0.0, 0.5, 0.5]).expand(68, 3)
    return UvAtlas.build(mean, Topology(torch.tensor([[0, 2, 1], [1, 2, 3]]), uv, *landmarks), size)


def test_spline_noise_has_unit_variance_and_is_the_average_of_itself_at_a_finer_size():
    noises = [SplineNoise(plane_atlas(size), (6.0, 9.0)) for size in (64, 256)]
    assert noises[0].lattice_shape == noises[1].lattice_shape
    lattice = draw_normals(0, torch.arange(20), 0, noises[0].lattice_shape)
    coarse, fine = (noise(lattice).unflatten(-1, (size, size)) for noise, size in zip(noises, (64, 256), strict=True))
    assert abs(fine.std() - 1) < 0.05
    torch.testing.assert_close(nnf.avg_pool2d(fine, 4), coarse, atol=1e-4, rtol=0)
    assert abs(noises[1].contrast(64) - coarse.std() / fine.std()) < 0.03


def test_noise_finer_than_a_texel_fades():
    noise = SplineNoise(plane_atlas(32), (0.5, 0.5))
    assert noise.contrast(32) < 0.25
    assert noise(draw_normals(0, torch.arange(3), 0, noise.lattice_shape)).std() < 0.25


@pytest.mark.parametrize("symmetry", [0.0, 0.5, 1.0])
def test_mirroring_sets_the_correlation_of_the_sides_and_keeps_the_variance(symmetry):
    lattice = mirror(draw_normals(0, torch.arange(400), 0, (9, 10)), symmetry)
    assert abs(lattice.std() - 1) < 0.03
    assert abs((lattice * lattice.flip(-1)).mean() - symmetry) < 0.03


def test_mottle_fields_have_unit_variance_and_leave_out_what_is_faint():
    mottle = Mottle(plane_atlas(128), 32, stream=0)
    assert len(mottle.shown) < len(Mottle(plane_atlas(128), 128, stream=0).shown)
    fields = mottle(0, torch.arange(60))
    assert tuple(fields) == FIELDS
    for name, field in fields.items():
        assert 0.8 < field.std() < 1.1, name


def test_patch_noise_interpolates_the_same_lattice_at_any_places():
    torch.manual_seed(0)
    place = torch.rand(500, 2) * 10
    noise = PatchNoise(place, ((0, 10), (0, 10)), (1.0, 2.0), torch.zeros(500))
    lattice = draw_normals(0, torch.arange(30), 0, noise.lattice_shape)
    assert abs(noise(lattice).std() - 1) < 0.05
    some = PatchNoise(place[100:200], ((0, 10), (0, 10)), (1.0, 2.0), torch.zeros(100))
    torch.testing.assert_close(some(lattice), noise(lattice)[:, 100:200])


def test_spots_are_averaged_exactly_over_texels():
    """One spot of 0.7 mm, far below the texel of 5 mm: its integral must survive, whatever texel edge it lies on."""
    marks = Marks(
        torch.tensor([[[3.0, -11.0], [5.0, 20.0]]]),
        torch.tensor([[0.7, 8.0]]),
        torch.tensor([[2.0, 0]]),
        torch.tensor([[[1.0, 0]]]),
    )
    for size in (32, 128):
        spots = MarkPainter(plane_atlas(size))(marks)[0]
        area = WIDTH * HEIGHT / size**2
        expected = torch.tensor([2 * 0.7**2, 8.0**2]) * 2 * math.pi
        torch.testing.assert_close(spots[:2].sum(1) * area, expected, rtol=0.01, atol=0.01)
        assert not spots[2].any()
    peak = spots[1].argmax()
    centre = torch.tensor(
        [(peak % 128 + 0.5) / 128 * WIDTH - WIDTH / 2, HEIGHT / 2 - (peak // 128 + 0.5) / 128 * HEIGHT]
    )
    torch.testing.assert_close(centre, torch.tensor([5.0, 20.0]), atol=1.3, rtol=0)
