"""Fast layers of the autoencoder against their definitions."""

import pytest
import torch
import torch.nn.functional as nnf

from fitdiff.autoencoder.layers import Upsample


@pytest.mark.parametrize("copies", [1, 3])
def test_upsampling_convolves_the_doubled_map(copies):
    torch.manual_seed(0)
    layer = Upsample(4, copies).double().to(memory_format=torch.channels_last)
    x = torch.randn(2, 4, 5, 7, dtype=torch.float64, requires_grad=True)
    doubled = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = nnf.conv2d(doubled, layer.convolve.weight, layer.convolve.bias, padding=1)
    torch.testing.assert_close(layer(x), expected)
    leaves, seen = (x, *layer.parameters()), torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, leaves, seen)
    for mine, theirs in zip(torch.autograd.grad(layer(x), leaves, seen), wanted, strict=True):
        torch.testing.assert_close(mine, theirs)
