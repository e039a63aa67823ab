"""Optimisers go on from a checkpoint as if nothing had happened, whatever the layout of the weights in memory."""

import copy

import pytest
import torch
from torch import nn

from fitdiff.training.optimiser_state import pack_optimisers, unpack_optimisers


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("fused", [False, True])
def test_a_restored_optimiser_steps_as_the_one_that_was_saved(layout, fused):
    torch.manual_seed(0)
    net = nn.Conv2d(3, 4, 3).to(memory_format=layout)
    optimiser = torch.optim.Adam(net.parameters(), 0.1, fused=fused)

    def step(net, optimiser):
        net(torch.linspace(-1, 1, 150).view(2, 3, 5, 5)).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()

    step(net, optimiser)
    tensors, values = pack_optimisers({"adam": optimiser})
    other = copy.deepcopy(net)
    restored = torch.optim.Adam(other.parameters(), 0.1, fused=fused)
    # A file keeps numbers, not strides.
    stored = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    unpack_optimisers(stored, values, {"adam": restored})
    for mine, theirs in ((net, optimiser), (other, restored)):
        step(mine, theirs)
    assert torch.equal(net.weight, other.weight)
    assert torch.equal(net.bias, other.bias)
