"""Alignment and resampling against independent implementations and closed forms."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.transform import SimilarityTransform

from fitdiff.alignment.crop import crop, crop_transform, cut_square, plan_crop
from fitdiff.geometry import ndc_to_pixels, pixels_to_ndc


@pytest.fixture
def network():
    torch.manual_seed(0)
    return SimpleNamespace(template=torch.rand(5, 2).double() * 2 - 1, template_weights=torch.eye(68).double()[30:35])


def similarity(scale, degrees, x, y):
    angle = math.radians(degrees)
    a, b = scale * math.cos(angle), scale * math.sin(angle)
    return torch.tensor([[[a, -b, x], [b, a, y]]], dtype=torch.float64)


def test_transform_recovers_a_similarity_exactly(network):
    truth = similarity(0.6, 25, 0.1, -0.2)
    landmarks = torch.zeros(1, 68, 2, dtype=torch.float64)
    landmarks[:, 30:35] = network.template @ truth[0, :, :2].T + truth[0, :, 2]
    assert torch.allclose(crop_transform(network, landmarks), truth)


def test_transform_equals_umeyama_on_noisy_points(network):
    torch.manual_seed(1)
    landmarks = torch.randn(3, 68, 2).double()
    ours = crop_transform(network, landmarks)
    for matrix, points in zip(ours, landmarks, strict=True):
        reference = SimilarityTransform.from_estimate(network.template.numpy(), points[30:35].numpy())
        assert np.allclose(matrix.numpy(), reference.params[:2])


def test_transform_is_differentiable(network):
    torch.manual_seed(2)
    landmarks = torch.randn(1, 68, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: crop_transform(network, x), landmarks)


def test_crop_samples_where_the_transform_points():
    # On an image that holds its own NDC, bilinear sampling is exact.
    size = 64
    centres = pixels_to_ndc(
        torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="xy"), -1) + 0.5, size
    )
    image = centres.permute(2, 0, 1)[None].double()
    transform = similarity(0.5, 30, 0.1, -0.15)
    out = crop(image, transform, 40)
    pixel = torch.tensor([7.5, 31.5])
    expected = transform[0, :, :2] @ pixels_to_ndc(pixel, 40).double() + transform[0, :, 2]
    assert torch.allclose(out[0, :, 31, 7], expected, atol=1e-6)


def test_identity_crop_is_the_image_and_outside_is_zero():
    torch.manual_seed(3)
    image = torch.rand(1, 3, 32, 32)
    whole = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])
    assert torch.allclose(crop(image, whole, 32), image, atol=1e-6)
    assert crop(image, whole + torch.tensor([0.0, 0, 3]), 32).abs().max() == 0


def test_crop_gradient_flows_to_the_image():
    torch.manual_seed(4)
    image = torch.rand(1, 2, 7, 7).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: crop(x, similarity(0.8, 10, 0, 0), 5), image)


def test_a_batch_of_different_scales_equals_its_items():
    torch.manual_seed(5)
    images = torch.rand(3, 3, 96, 96)
    transforms = torch.cat([similarity(s, 5, 0, 0) for s in (0.2, 0.5, 1.0)]).float()
    together = crop(images, transforms, 24)
    alone = [crop(images[i, None], transforms[i, None], 24) for i in range(3)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-6)


def test_reduced_crops_do_not_alias():
    # One-pixel stripes are grey when seen from far; point sampling would give black or white bands.
    stripes = (torch.arange(256) % 2).float().expand(1, 1, 256, 256)
    out = crop(stripes, torch.tensor([[[0.9, 0, 0], [0, 0.9, 0]]]), 32)
    assert (out - 0.5).abs().max() < 0.15


def test_cut_square_is_the_image_where_nothing_is_resampled():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    np.testing.assert_array_equal(cut_square(image, 8, 5, 20, 20), image[5:25, 8:28])


def test_cut_square_repeats_the_edge_outside_of_the_image():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    padded = np.pad(image, ((10, 10), (10, 10), (0, 0)), mode="edge")
    np.testing.assert_array_equal(cut_square(image, -10, -10, 30, 30), padded[:30, :30])
    np.testing.assert_array_equal(cut_square(image, 90, 90, 8, 8), np.broadcast_to(image[-1, -1], (8, 8, 3)))


def test_cut_square_honours_fractions_and_antialiases():
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (200, 200, 3))
    cut = cut_square(np.ascontiguousarray(ramp), 40.5, 30.25, 64, 16)
    # The centre of column c is at 40.5 + 4 (c + 0.5) pixels; a ramp's mean there is that less half a pixel.
    expected = 40.5 + 4 * (np.arange(16) + 0.5) - 0.5
    np.testing.assert_allclose(cut[8, 2:-2, 0], expected[2:-2], atol=0.5)


def test_ndc_and_pil_agree_on_the_crop():
    image = np.asarray(Image.effect_mandelbrot((128, 128), (-2, -1.5, 1, 1.5), 60).convert("RGB"))
    tensor = torch.tensor(image).permute(2, 0, 1)[None].double() / 255
    corners = pixels_to_ndc(torch.tensor([[32.0, 16.0], [96.0, 80.0]]).double(), 128)
    centre, half = corners.mean(0), (corners[1, 0] - corners[0, 0]) / 2
    ours = crop(tensor, torch.cat([torch.eye(2) * half, centre[:, None]], 1)[None], 64) * 255
    np.testing.assert_allclose(ours[0].permute(1, 2, 0).numpy(), cut_square(image, 32, 16, 64, 64), atol=0.6)
    assert torch.allclose(ndc_to_pixels(corners, 128), torch.tensor([[32.0, 16.0], [96.0, 80.0]]).double())


def test_a_plan_serves_every_image_of_its_transform():
    torch.manual_seed(5)
    transforms = torch.cat([similarity(scale, 20, 0.05, 0) for scale in (0.3, 0.9, 0.35, 0.9)]).float()
    images = torch.rand(3, 4, 3, 96, 96).requires_grad_()
    plan = plan_crop(transforms, 96, 24)
    assert len(plan.groups) > 1
    for batch in images:
        one_by_one = torch.cat([crop(batch[i, None], transforms[i, None], 24) for i in range(4)])
        torch.testing.assert_close(plan(batch), one_by_one)
        weights = torch.rand(4, 3, 24, 24)
        gradients = [torch.autograd.grad((out * weights).sum(), images)[0] for out in (plan(batch), one_by_one)]
        torch.testing.assert_close(*gradients)
