"""Fast layers of the autoencoder against their definitions."""

import pytest
import torch
import torch.nn.functional as nnf

from fitdiff.autoencoder.layers import ResidualBlock, Upsample


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


def kept(block, x):
    """Numbers that the backward pass of a frozen block keeps."""
    sizes = {}

    def pack(tensor):
        sizes[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = block(x)
    (gradient,) = torch.autograd.grad(output.square().sum(), x)
    return sum(sizes.values()), output, gradient


def test_a_frozen_block_recomputes_its_activations_too():
    torch.manual_seed(0)
    block = ResidualBlock(4, 4).eval().requires_grad_(False)
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    most, *plain = kept(block, x)
    block.checkpoint_activations = True
    least, *checkpointed = kept(block, x)
    assert least < most / 2
    torch.testing.assert_close(checkpointed, plain)
    with torch.no_grad():
        assert block(x).grad_fn is None
