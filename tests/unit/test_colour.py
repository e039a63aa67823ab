"""sRGB transfer function against IEC 61966-2-1 written out, and its gradients."""

import numpy as np
import pytest
import torch

from fitdiff.colour import LUMINANCE, linear_to_srgb, srgb_to_linear


def reference_encode(linear):
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


def test_encoding_follows_the_standard():
    linear = torch.linspace(0, 1, 4001, dtype=torch.float64)
    assert np.allclose(linear_to_srgb(linear), reference_encode(linear.numpy()), atol=1e-12)


def test_known_values():
    # 50% reflectance grey is code value 188 of 255, middle grey (18%) is 118.
    assert torch.round(linear_to_srgb(torch.tensor([0.0, 0.18, 0.5, 1.0])) * 255).tolist() == [0, 118, 188, 255]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip(dtype):
    values = torch.linspace(0, 1, 2001, dtype=dtype)
    # The standard's own constants leave a step of 2e-7 where the two pieces meet.
    assert torch.allclose(srgb_to_linear(linear_to_srgb(values)), values, atol=1e-6)
    assert torch.allclose(linear_to_srgb(srgb_to_linear(values)), values, atol=1e-6)
    assert linear_to_srgb(values).dtype == dtype


def test_values_outside_are_clamped_without_gradient():
    for function in (linear_to_srgb, srgb_to_linear):
        values = torch.tensor([-0.5, 1.5], requires_grad=True)
        encoded = function(values)
        assert encoded.tolist() == pytest.approx([0.0, 1.0])
        (gradient,) = torch.autograd.grad(encoded.sum(), values)
        assert gradient.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("function", [linear_to_srgb, srgb_to_linear])
def test_gradients(function):
    values = torch.tensor([1e-4, 2e-3, 0.02, 0.035, 0.05, 0.3, 0.99], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, values)


def test_gradient_is_finite_at_and_near_black():
    # The slope of the power piece is infinite at zero and must not leak through `where` as 0 * inf.
    dark = torch.tensor([0.0, 1e-30, 1e-8], requires_grad=True)
    (gradient,) = torch.autograd.grad(linear_to_srgb(dark).sum(), dark)
    assert gradient.isfinite().all()
    assert gradient[1:].tolist() == pytest.approx([12.92, 12.92])


def test_luminance_weights_sum_to_one():
    assert sum(LUMINANCE) == pytest.approx(1)
