"""Batches of a stage, read ahead by worker processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fitdiff.training.interruption import leave_signals_to_parent
from fitdiff.training.order import global_batch
from fitdiff.training.stage import Stage


class Batches(Dataset[list[dict[str, Tensor]]]):
    """Item `step` is one process's micro-batches of the step: contiguous chunks of the global batch's rows.

    Args:
        rank, world: the process, and how many share the global batch. parts: micro-batches of each.
    """

    def __init__(self, stage: Stage, seed: int, rank: int = 0, world: int = 1, parts: int = 1) -> None:
        self.stage, self.seed = stage, seed
        self.rows = torch.arange(stage.batch_size).view(world, parts, -1)[rank]

    def keys(self, step: int) -> list[int]:
        """Which training samples the global batch of a step has, row by row."""
        stage = self.stage
        return global_batch(stage.n_samples, stage.batch_size, self.seed, step, *stage.layout)

    def __getitem__(self, step: int) -> list[dict[str, Tensor]]:
        indices = self.keys(step)
        return [
            {**self.stage.batch([indices[row] for row in rows.tolist()], rows, step), "row": rows} for rows in self.rows
        ]


def load(batches: Batches, start: int, workers: int, pin_memory: bool) -> DataLoader[list[dict[str, Tensor]]]:
    """The batches of all steps from `start` on, in order, whatever the number of workers; 0 reads in this process."""
    return DataLoader(
        batches,
        sampler=range(start, batches.stage.steps),
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=leave_signals_to_parent,
        prefetch_factor=4 if workers else None,
    )
