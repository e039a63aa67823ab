"""Seamless joining: what is known stays, an offset vanishes, the membrane is harmonic."""

import math

import pytest
import torch

from fitdiff.uses.blending import blend, seam_ratio

R = 24
LEFT = torch.zeros(R, R, dtype=torch.bool)
LEFT[:, : R // 2] = True


def noise(seed=0, channels=3):
    return torch.rand(channels, R, R, generator=torch.Generator().manual_seed(seed))


def test_known_texels_stay_bit_for_bit_and_an_offset_vanishes():
    texture = noise()
    blended = blend(torch.where(LEFT, texture, 9.0), texture + 0.3, LEFT)
    assert torch.equal(blended[:, LEFT], texture[:, LEFT])
    torch.testing.assert_close(blended, texture, atol=1e-5, rtol=0)


def test_nothing_or_everything_known():
    a, b = noise(1), noise(2)
    assert torch.equal(blend(a, b, torch.zeros_like(LEFT)), b)
    assert torch.equal(blend(a, b, torch.ones_like(LEFT)), a)


def test_what_is_added_is_harmonic_and_free_at_the_border():
    generator = torch.Generator().manual_seed(3)
    mask = torch.rand(R, R, generator=generator) < 0.1
    known, generated = noise(4), noise(5)
    membrane = (blend(known, generated, mask) - generated).double()
    padded = torch.nn.functional.pad(membrane[None], (1, 1, 1, 1), mode="replicate")[0]
    neighbours = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
    assert (neighbours / 4 - membrane)[:, ~mask].abs().max() < 1e-5
    assert membrane[:, ~mask].max() <= membrane[:, mask].max() + 1e-6  # the maximum principle
    assert (neighbours / 4 - membrane)[:, mask].abs().max() > 0.01


def test_a_plain_paste_has_a_seam_and_a_blend_has_none():
    ramp = torch.linspace(0, 1, R).expand(3, R, R)
    other = ramp + 0.2
    pasted = torch.where(LEFT, ramp, other)
    step = 1 / (R - 1)
    assert seam_ratio(pasted, LEFT) == pytest.approx((step + 0.2) / step, rel=1e-4)
    assert seam_ratio(blend(ramp, other, LEFT), LEFT) == pytest.approx(1, rel=1e-3)
    noisy = torch.cat([ramp[:, : R // 2], noise()[:, R // 2 :]], 1)  # rows below are left out
    upper = (torch.arange(R) < R // 2)[:, None].expand(R, R)
    assert seam_ratio(noisy, LEFT, upper) == pytest.approx(1, rel=1e-4)
    assert math.isnan(seam_ratio(ramp, torch.ones_like(LEFT)))
