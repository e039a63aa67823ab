"""A training stage that takes microseconds a step and keeps the contract of real ones."""

import numpy as np
import torch
from torch import nn

from fitdiff.randomness import draw_normals


class ToyStage:
    """Learn y = 2x + noise; every second step, a second player learns the mean of y."""

    name, averaged, product, monitor = "toy", ("net",), (), ("error", "min")
    n_samples, layout, batch_size = 64, (1, None), 8

    def __init__(self, steps: int = 60, seed: int = 0) -> None:
        torch.manual_seed(0)
        self.steps, self.seed = steps, seed
        self.net, self.mean = nn.Linear(1, 1), nn.Linear(1, 1, bias=False)
        self.modules = {"net": self.net, "mean": self.mean}
        self.x = torch.linspace(-1, 1, 64)[:, None]

    def optimisers(self):
        return {name: torch.optim.Adam(module.parameters(), 0.1) for name, module in self.modules.items()}

    def learning_rate(self, step):
        return 0.1

    def batch(self, indices, rows, step):
        return {"x": self.x[indices]}

    def losses(self, batch, step):
        x = batch["x"]
        y = 2 * x + 0.01 * draw_normals(self.seed, step * self.batch_size + batch["row"], 0, (1,))
        loss = (self.modules["net"](x) - y).square().mean()
        yield "net", loss, {"loss": loss}
        if step % 2:
            other = (self.modules["mean"](torch.ones_like(y)) - y).square().mean()
            yield "mean", other, {"other": other}

    def evaluate(self, averages):
        return {"error": (averages["net"].weight - 2).abs().item()}

    def preview(self, averages):
        torch.randn(100)  # must not disturb training
        return {"dot": np.zeros((4, 4, 3), np.uint8)}
