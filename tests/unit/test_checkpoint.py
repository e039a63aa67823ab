"""Checkpoints: whole or not at all, never silently another's, and the newest good one is always found."""

import torch
from torch import nn

from fitdiff.training.checkpoint import Checkpoints


def trained(seed: int):
    torch.manual_seed(seed)
    module = nn.Linear(3, 2)
    adam = torch.optim.Adam(module.parameters(), lr=0.1)
    for _ in range(3):
        module(torch.randn(4, 3)).square().sum().backward()
        adam.step()
        adam.zero_grad()
    return module, adam


def test_weights_and_optimiser_come_back_bitwise(tmp_path):
    module, adam = trained(0)
    Checkpoints(tmp_path, {}, {}).save(3, {"net": module}, {"adam": adam})
    other, other_adam = trained(1)
    assert Checkpoints(tmp_path, {}, {}).resume({"net": other}, {"adam": other_adam}) == 3
    for x in (torch.ones(1, 3), torch.zeros(1, 3)):
        for m, a in ((module, adam), (other, other_adam)):
            m(x).square().sum().backward()
            a.step()
            a.zero_grad()
    assert torch.equal(module.weight, other.weight)
    assert torch.equal(module.bias, other.bias)
