"""Pieces of the trainer that have closed forms: averages, learning rates, checkpoints."""

import json

import pytest
import torch
from torch import nn

from fitdiff.storage import pack_modules, unpack_modules
from fitdiff.training.checkpoint import load_checkpoint, save_checkpoint
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


def _trained(seed: int):
    torch.manual_seed(seed)
    module = nn.Linear(3, 2)
    adam = torch.optim.Adam(module.parameters(), lr=0.1)
    for _ in range(3):
        module(torch.randn(4, 3)).square().sum().backward()
        adam.step()
        adam.zero_grad()
    return module, adam


def test_checkpoint_restores_weights_and_optimiser_bitwise(tmp_path):
    module, adam = _trained(0)
    save_checkpoint(tmp_path, 3, {"net": module}, {"adam": adam}, "abc", keep=2)
    other, other_adam = _trained(1)
    assert load_checkpoint(tmp_path, {"net": other}, {"adam": other_adam}, "abc") == 3
    for x in (torch.ones(1, 3), torch.zeros(1, 3)):
        for m, a in ((module, adam), (other, other_adam)):
            m(x).square().sum().backward()
            a.step()
            a.zero_grad()
    assert torch.equal(module.weight, other.weight)
    assert torch.equal(module.bias, other.bias)


def test_checkpoint_keeps_the_newest_and_refuses_another_config(tmp_path):
    module, adam = _trained(0)
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"net": module}, {"adam": adam}, "abc", keep=2)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["step-00000002", "step-00000003"]
    with pytest.raises(ValueError, match="written under config abc, this run has xyz"):
        load_checkpoint(tmp_path, {"net": module}, {"adam": adam}, "xyz")


def test_a_half_written_checkpoint_is_not_seen(tmp_path):
    module, adam = _trained(0)
    save_checkpoint(tmp_path, 1, {"net": module}, {"adam": adam}, "abc", keep=2)
    half = tmp_path / ".tmp-step-00000002-1"
    half.mkdir()
    (half / "state.json").write_text(json.dumps({"step": 2}))
    assert load_checkpoint(tmp_path, {"net": module}, {"adam": adam}, "abc") == 1


def test_unpacking_refuses_missing_and_misshapen_weights():
    packed = pack_modules({"net": nn.Linear(3, 2)})
    with pytest.raises(RuntimeError, match="size mismatch"):
        unpack_modules(packed, {"net": nn.Linear(4, 2)})
    del packed["net/bias"]
    with pytest.raises(RuntimeError, match="Missing key"):
        unpack_modules(packed, {"net": nn.Linear(3, 2)})
