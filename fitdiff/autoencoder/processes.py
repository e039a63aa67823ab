"""What the autoencoder's training shares among processes: sums and rows. With one process these do nothing."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def n_processes() -> int:
    """How many processes train together; 1 outside of a distributed run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(x: Tensor) -> Tensor:
    """Sum of every process's `x`, the same everywhere. Differentiable: each `x` gets the gradients of all sums."""
    return x if n_processes() == 1 else _Sum.apply(x)


def mean_over_processes(x: Tensor) -> Tensor:
    """Mean of every process's `x`, the same everywhere. Differentiable."""
    return sum_over_processes(x) / n_processes()


def rows_of_all_processes(x_ND: Tensor) -> Tensor:
    """(N, D) rows of each process -> (processes * N, D) in the order of the processes. Every N must be equal."""
    if n_processes() == 1:
        return x_ND
    parts = [torch.empty_like(x_ND) for _ in range(n_processes())]
    dist.all_gather(parts, x_ND.contiguous())
    return torch.cat(parts)


class _Sum(torch.autograd.Function):
    """All-reduce, which is its own derivative's adjoint (torch's own differentiable one is being retired)."""

    @staticmethod
    def forward(ctx, x):
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient):
        return _Sum.apply(gradient)
