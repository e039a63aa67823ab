"""Lens, sensor and JPEG against closed forms and Pillow; sheets of occluders against projection."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from fitdiff.data.people.augment import convolve, cosine_basis, gaussian_kernels, jpeg, photograph
from fitdiff.data.people.backgrounds import sample_backgrounds
from fitdiff.data.people.bust import outer_edge
from fitdiff.data.people.occluders import Sheet
from fitdiff.data.people.options import CLEAN, Augmentation, Portraits
from fitdiff.data.people.scenes import sample_cameras
from fitdiff.data.people.views import Views
from fitdiff.geometry import project, to_camera_space

ONLY = {"bust": 0.0, "hair_strands": 0.0, "glasses": 0.0, "hand": 0.0, "cover": 0.0, "blur": 0.0, "noise": 0.0,
        "jpeg": 0.0}  # fmt: skip


def test_the_cosine_basis_is_orthonormal():
    torch.testing.assert_close(cosine_basis() @ cosine_basis().T, torch.eye(8))


@pytest.mark.parametrize("quality", [30, 50, 75, 95])
def test_jpeg_is_pillows(quality):
    torch.manual_seed(0)
    image = sample_backgrounds(Views.of(3, [1], 1), 64)
    image = (torch.nn.functional.interpolate(image, 96) + 0.05 * torch.randn(1, 1, 96, 96)).clamp(0, 1)
    pixels = (image[0] * 255).round().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    theirs = np.asarray(Image.open(buffer)).astype(float)
    ours = jpeg(image, torch.tensor([float(quality)]))[0].permute(1, 2, 0).numpy() * 255
    lost = np.abs(theirs - pixels).mean()
    assert np.abs(ours - theirs).mean() < 0.15 * lost + 0.45  # libjpeg rounds colours and cosines to integers


def test_jpeg_takes_any_size_and_each_its_own_quality():
    image = torch.rand(2, 1, 50, 70).expand(-1, 3, -1, -1)  # grey: chroma is halved at any quality
    both = jpeg(image, torch.tensor([20.0, 90.0]))
    assert both.shape == image.shape
    torch.testing.assert_close(both[1:], jpeg(image[1:], torch.tensor([90.0])))
    worse, better = (both - image).abs().mean((1, 2, 3))
    assert worse > 2 * better


def test_blur_has_the_asked_covariance_and_keeps_light():
    angle = 0.6
    kernel = gaussian_kernels(torch.tensor([1.5]), torch.tensor([2.0]), torch.tensor([angle]), 12)
    dot = torch.zeros(1, 3, 41, 41)
    dot[..., 20, 20] = 1
    spread = convolve(dot, kernel)[0, 0]
    place = torch.arange(41.0) - 20
    x, y = spread.sum(0) @ place.square(), spread.sum(1) @ place.square()
    xy = (spread * place[:, None] * place).sum()
    expected = torch.tensor(
        [1.5**2 + 4 * math.cos(angle) ** 2, 1.5**2 + 4 * math.sin(angle) ** 2, 2 * math.sin(2 * angle)]
    )
    torch.testing.assert_close(torch.stack([x, y, xy]), expected, rtol=0.01, atol=0.01)
    flat = convolve(torch.full((2, 3, 9, 9), 0.3), kernel.expand(2, -1, -1))
    torch.testing.assert_close(flat, torch.full_like(flat, 0.3))


def test_a_clean_photograph_is_the_light_in_srgb():
    from fitdiff.colour import linear_to_srgb

    light = torch.rand(4, 3, 32, 32)
    assert torch.equal(photograph(light, Views.of(0, [0, 1], 2), CLEAN), (linear_to_srgb(light) * 255).round().byte())


def test_noise_grows_with_light_and_stays_below_its_strength():
    from fitdiff.colour import srgb_to_linear

    options = Augmentation(**(ONLY | {"noise": 1.0, "noise_strength": 0.02}))
    views = Views.of(0, range(40), 1)
    spread = {}
    for level in (0.05, 0.18, 0.5):
        taken = srgb_to_linear(photograph(torch.full((40, 3, 48, 48), level), views, options) / 255)
        spread[level] = taken.std((1, 2, 3))
        assert abs(taken.mean() - level) < 0.01
    assert (spread[0.05] < spread[0.5]).all()
    assert spread[0.18].max() < 0.021
    assert 0.009 < spread[0.18].mean() < 0.013  # uniform between a tenth of the strength and all of it


def test_shares_are_those_of_the_options():
    light = torch.full((400, 3, 32, 32), 0.2)
    views = Views.of(0, range(400), 1)
    noisy = photograph(light, views, Augmentation(**(ONLY | {"noise": 0.3}))).float().std((1, 2, 3)) > 0
    assert abs(noisy.float().mean() - 0.3) < 0.07


def test_sheets_are_inverse_projections():
    views = Views.of(1, range(6), 1)
    camera, _ = sample_cameras(views, Portraits())
    origin, up = torch.tensor([3.0, 20.0, 30.0]).expand(6, 3), torch.tensor([0.0, 0.8, 0.6]).expand(6, 3)
    sheet = Sheet.seen(camera, 16, origin, up)
    points = (
        origin[:, None, None] + sheet.x[..., None] * torch.tensor([1.0, 0, 0]) + sheet.y[..., None] * up[:, None, None]
    )
    seen = project(to_camera_space(points.flatten(1, 2), camera), camera).unflatten(1, (16, 16))
    place = (torch.arange(16) + 0.5) / 8 - 1
    expected = torch.stack([place.expand(16, 16), -place[:, None].expand(16, 16)], -1)
    torch.testing.assert_close(seen, expected.expand_as(seen), atol=1e-4, rtol=0)


def test_the_outer_edge_of_a_ring_is_its_longest():
    """A square annulus: four outer corners with midpoints, four inner corners."""
    outer, inner = [0, 1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11]
    faces = [[0, 1, 8], [1, 9, 8], [1, 2, 9], [2, 3, 9], [3, 10, 9], [3, 4, 10], [4, 5, 10], [5, 11, 10], [5, 6, 11],
             [6, 7, 11], [7, 8, 11], [7, 0, 8]]  # fmt: skip
    edge = outer_edge(torch.tensor(faces)).tolist()
    start = edge.index(0)
    assert edge[start:] + edge[:start] == outer
    assert not set(edge) & set(inner)
    with pytest.raises(ValueError, match=r"closed.*augmentation\.bust=0"):
        outer_edge(torch.tensor([[0, 1, 2], [0, 2, 1]]))
