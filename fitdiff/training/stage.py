"""What a training stage is to the trainer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

Losses = Iterator[tuple[str, Tensor, dict[str, Tensor]]]
"""(optimiser's name, loss to descend, values to log), one item for each optimiser that steps this time."""


class Stage(Protocol):
    """One network to train: the trainer owns the loop, the stage owns the mathematics.

    A global batch is split among processes, and each process's share among micro-batches, in contiguous chunks. The
    contract that makes the split invisible: the mean over processes and micro-batches of what `losses` yields is the
    loss of the global batch, and all random numbers of a sample are a pure function of (seed, sample number), where the
    sample number is step * batch_size + row. So any number of processes trains the same weights, up to rounding.

    Attributes:
        name: also the folder's.
        n_samples: size of the training set. batch_size: global, over all processes. steps: to run.
        layout: samples a file, and files that may be in use at once, None for all: the order heeds it.
        modules: what is trained, by name. The trainer replaces the entries by their distributed wrappers.
        averaged: names of the modules that get an EMA. product: attributes of the model that the stage makes.
        monitor: the held-out metric of `evaluate` that picks the best checkpoint, and whether "min" or "max" is best.
    """

    name: str
    n_samples: int
    layout: tuple[int, int | None]
    batch_size: int
    steps: int
    modules: dict[str, nn.Module]
    averaged: tuple[str, ...]
    product: tuple[str, ...]
    monitor: tuple[str, str]

    def optimisers(self) -> dict[str, Optimizer]:
        """New optimisers by name."""

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step, of every optimiser."""

    def batch(self, indices: Sequence[int], rows: Tensor, step: int) -> dict[str, Tensor]:
        """The training samples of one micro-batch of this process, on the CPU.

        Args:
            indices: of the samples in the training set. rows: (B,) int64, their positions in the global batch; the
                trainer adds them to what is returned as `row`.
        """

    def losses(self, batch: dict[str, Tensor], step: int) -> Losses:
        """Yield the losses one after another; each is back-propagated before the next is computed."""

    def preview(self, averages: dict[str, nn.Module]) -> dict[str, np.ndarray]:
        """Pictures (H, W, 3) uint8 of fixed held-out subjects; like `evaluate`, in the main process alone."""

    def evaluate(self, averages: dict[str, nn.Module]) -> dict[str, float]:
        """Held-out metrics. Called in the main process alone, so it must not wait for others."""

    def finish(self, averages: dict[str, nn.Module]) -> None:
        """Put the averaged weights into the model."""


def warmup_cosine(step: int, steps: int, peak: float, warmup: int, decay: str) -> float:
    """Learning rate after linear warm-up: constant, or a cosine to zero at `steps`.

    Raises:
        ValueError: `decay` is neither `constant` nor `cosine`.
    """
    if decay not in ("constant", "cosine"):
        raise ValueError(f"decay is {decay!r}; expected constant or cosine")
    ramp = min(1.0, (step + 1) / max(1, warmup))
    return peak * ramp * (0.5 * (1 + math.cos(math.pi * step / steps)) if decay == "cosine" else 1.0)


def count_steps(steps: int | None, epochs: float | None, n_samples: int, batch_size: int) -> int:
    """Steps of a run that is given either in steps or in epochs.

    Raises:
        ValueError: both or neither are given.
    """
    if (steps is None) == (epochs is None):
        raise ValueError(f"give either steps or epochs, got steps={steps} and epochs={epochs}")
    return steps if steps is not None else math.ceil(epochs * n_samples / batch_size)  # type: ignore[operator]


def describe(values: dict[str, Any]) -> str:
    """`a 0.12 · b 3.4` for the progress line."""
    return " · ".join(f"{key.rpartition('/')[2].removeprefix('loss_')} {value:.3g}" for key, value in values.items())
