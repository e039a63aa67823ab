"""The loop on a toy stage: it learns, continues bitwise after a crash, and two optimisers take turns."""

import numpy as np
import pytest
import torch
from torch import nn

from fitdiff.tracker import NoTracker
from fitdiff.training.health import TrainingError
from fitdiff.training.trainer import Trainer


class CrashError(Exception):
    pass


class ToyStage:
    """Learn y = 2x + noise; a second player learns the mean of y."""

    name, averaged, product, monitor = "toy", ("net",), (), ("error", "min")
    n_samples, batch_size, steps = 64, 8, 60

    def __init__(self, crash_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.net, self.mean = nn.Linear(1, 1), nn.Linear(1, 1, bias=False)
        self.modules = {"net": self.net, "mean": self.mean}
        self.x = torch.linspace(-1, 1, 64)[:, None]
        self.crash_at, self.previews = crash_at, 0

    def optimisers(self):
        return {name: torch.optim.Adam(module.parameters(), 0.1) for name, module in self.modules.items()}

    def learning_rate(self, step):
        return 0.1

    def batch(self, indices, rows, step):
        return {"x": self.x[indices]}

    def losses(self, batch, step):
        if step == self.crash_at:
            raise CrashError
        y = 2 * batch["x"] + 0.01 * torch.randn_like(batch["x"])
        loss = (self.modules["net"](batch["x"]) - y).square().mean()
        yield "net", loss, {"loss": loss}
        if step % 2:
            other = (self.modules["mean"](torch.ones(1)) - y.mean()).square().mean()
            yield "mean", other, {"other": other}

    def evaluate(self, averages):
        return {"error": (averages["net"].weight - 2).abs().item()}

    def preview(self, averages):
        self.previews += 1
        torch.randn(100)  # must not disturb training
        return {"dot": np.zeros((4, 4, 3), np.uint8)}


def train(folder, stage, **options):
    trainer = Trainer(cpu=True, log_every=10, ema_half_life=80, **options)
    return trainer.run(stage, folder, {}, {}, 0, NoTracker()).averages


def test_it_learns_and_averages(tmp_path):
    stage = ToyStage()
    averages = train(tmp_path, stage, preview_every=1000, checkpoint_every=1000)
    assert stage.net.weight.item() == pytest.approx(2, abs=0.1)
    assert averages["net"].weight.item() == pytest.approx(2, abs=0.3)
    assert averages["net"].weight.item() != stage.net.weight.item()
    assert (tmp_path / "previews" / "dot-00000060.png").exists()


def test_a_crash_costs_nothing_but_the_steps_since_the_checkpoint(tmp_path):
    whole = ToyStage()
    train(tmp_path / "whole", whole, preview_every=1000, checkpoint_every=20)
    with pytest.raises(CrashError):
        train(tmp_path / "crashed", ToyStage(crash_at=33), preview_every=7, checkpoint_every=20)
    resumed = ToyStage()
    # Other preview and checkpoint intervals must not change a bit of the result.
    averages = train(tmp_path / "crashed", resumed, preview_every=3, checkpoint_every=9)
    for key, value in whole.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[key])
    assert torch.equal(whole.mean.weight, resumed.mean.weight)
    assert averages["net"].weight.isfinite().all()


def test_accumulation_gives_the_same_weights(tmp_path):
    class Noiseless(ToyStage):
        def losses(self, batch, step):
            loss = (self.modules["net"](batch["x"]) - 2 * batch["x"]).square().mean()
            yield "net", loss, {"loss": loss}

    plain, accumulated = Noiseless(), Noiseless()
    train(tmp_path / "a", plain)
    train(tmp_path / "b", accumulated, gradient_accumulation=4)
    assert torch.allclose(plain.net.weight, accumulated.net.weight, atol=1e-5)


def test_an_indivisible_batch_is_refused(tmp_path):
    with pytest.raises(TrainingError, match=r"stage.toy.batch_size=8 must be a multiple of 1 processes x .*=3"):
        train(tmp_path, ToyStage(), gradient_accumulation=3)
