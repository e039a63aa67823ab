"""The update, with and without fp16's gradient scaler."""

import copy

import pytest
import torch
from torch import nn

from fitdiff.training.descent import GradientScale, update


def players():
    torch.manual_seed(0)
    nets = {name: nn.Linear(3, 1) for name in ("first", "second")}
    return nets, {name: torch.optim.SGD(net.parameters(), 0.0) for name, net in nets.items()}


def backward(nets, scaler=None):
    x = torch.arange(6.0).view(2, 3)
    for net in nets.values():
        loss = net(x).square().mean()
        (loss if scaler is None else scaler.scale(loss)).backward()


def test_the_rate_and_the_clipped_norm_give_the_length_of_the_step():
    nets, optimisers = players()
    before = copy.deepcopy(nets)
    backward(nets)
    norms = update(optimisers, rate=0.5, max_norm=1.0)
    for name, net in nets.items():
        assert norms[f"grad_norm_{name}"] > 1
        moved = sum((p - q).square().sum() for p, q in zip(net.parameters(), before[name].parameters(), strict=True))
        assert moved.sqrt().item() == pytest.approx(0.5, rel=1e-5)
        assert all(p.grad is None for p in net.parameters())


def test_two_players_share_one_scale():
    plain, plain_optimisers = players()
    scaled, scaled_optimisers = players()
    # Grows at every step: unscaling the second player by the scale of the next step would halve its gradients.
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=1)
    for _ in range(3):
        backward(plain)
        norms = update(plain_optimisers, 0.01, 1.0)
        backward(scaled, scaler)
        same = update(scaled_optimisers, 0.01, 1.0, scaler)
        assert all(same[name] == pytest.approx(norm.item(), rel=1e-6) for name, norm in norms.items())
    for name, net in plain.items():
        assert torch.allclose(net.weight, scaled[name].weight, rtol=1e-6)
    assert scaler.get_scale() == 2.0**11


def test_an_overflow_skips_the_player_whose_it_is():
    nets, optimisers = players()
    before = copy.deepcopy(nets)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    backward(nets, scaler)
    nets["second"].weight.grad[0, 0] = torch.inf
    norms = update(optimisers, 0.01, 1.0, scaler)
    assert not norms["grad_norm_second"].isfinite()
    assert torch.equal(nets["second"].weight, before["second"].weight)
    assert not torch.equal(nets["first"].weight, before["first"].weight)
    assert scaler.get_scale() == 2.0**7


def test_the_scale_is_restored():
    scaler, other = (torch.amp.GradScaler("cpu", init_scale=2.0**n, growth_interval=5) for n in (8, 3))
    nets, optimisers = players()
    backward(nets, scaler)
    update(optimisers, 0.01, 1.0, scaler)
    other.scale(torch.ones(1))  # a scaler has no state before its first use
    GradientScale(other).load_state_dict(GradientScale(scaler).state_dict())
    assert other.state_dict() == scaler.state_dict()
