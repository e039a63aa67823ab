"""Pieces of the trainer that have closed forms: averages, learning rates."""

import pytest
import torch
from torch import nn

from fitdiff.training.ema import Ema
from fitdiff.training.stage import count_steps, warmup_cosine


def test_ema_has_the_half_life_it_says():
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    ema = Ema(module, half_life=160, batch_size=16)
    nn.init.ones_(module.weight)
    for _ in range(10):  # 160 images, far beyond the warm-up
        ema.update(module, step=10_000)
    assert ema.module.weight.item() == pytest.approx(0.5, abs=1e-6)


def test_buffers_are_those_of_the_module_without_a_copy():
    module = nn.Sequential(nn.BatchNorm1d(3))
    ema = Ema(module, half_life=160, batch_size=16)
    module.train()(torch.randn(8, 3))
    ema.update(module, step=0)
    assert not ema.module.training
    for name, buffer in module.named_buffers():
        assert buffer.data_ptr() == ema.module.get_buffer(name).data_ptr()
    module[0].running_mean = torch.ones(3)  # also one that is replaced
    assert torch.equal(ema.module[0].running_mean, torch.ones(3))


def test_learning_rate_warms_up_and_falls_to_zero():
    rates = [warmup_cosine(step, 100, 1.0, 10, "cosine") for step in range(101)]
    assert rates[0] == pytest.approx(0.1, rel=1e-2)
    assert rates[50] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0, abs=1e-12)
    assert warmup_cosine(99, 100, 2.0, 10, "constant") == 2.0
    with pytest.raises(ValueError, match="expected constant or cosine"):
        warmup_cosine(0, 1, 1.0, 1, "linear")


def test_steps_or_epochs():
    assert count_steps(None, 800.0, 1000, 16) == 50_000
    assert count_steps(7, None, 1000, 16) == 7
    with pytest.raises(ValueError, match="either steps or epochs"):
        count_steps(7, 1.0, 1000, 16)
