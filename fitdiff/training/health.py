"""Is training still sound? Numbers that are not finite, and memory that does not suffice: found, and explained.

To look at a number on a GPU, the host must wait for it. So a step's numbers are looked at one step late: they travel to
the host while the next step is queued. Weights in memory may therefore take one update too many, but none on disk: a
checkpoint waits for the verdict on every step in it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

SHOWN = 64
"""Samples that a message names."""


class TrainingError(RuntimeError):
    """Training cannot start or go on; the message says why, what is safe, and what to do."""


class Watch:
    """Learns from every process whether its numbers are finite and whether it was asked to stop.

    All processes learn the same at the same step, so that they end together.

    Args:
        keys: samples of a step's global batch. newest: the newest checkpoint, for the message.
        patience: steps in a row in which gradients may overflow: 0, or more where a gradient scaler skips such steps.
        skipped: steps that the run leaves out already, counted from 1, for the message.

    Attributes:
        stop: whether a process was asked to stop, as far as steps are judged.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        keys: Callable[[int], Sequence[int]],
        newest: Callable[[], Path | None],
        patience: int = 0,
        skipped: Sequence[int] = (),
    ) -> None:
        self.accelerator, self.keys, self.newest, self.patience = accelerator, keys, newest, patience
        self.skipped = skipped
        self.stop = False
        self._late = int(accelerator.device.type == "cuda")
        self._pending: deque[tuple[int, list[str], Callable[[], Tensor]]] = deque()
        self._in_a_row: Counter[str] = Counter()

    def submit(self, step: int, losses: Mapping[str, Tensor], norms: Mapping[str, Tensor], stop: bool) -> None:
        """Send off a step's numbers: scalars, named alike on every process. Norms are those of gradients."""
        device, numbers = self.accelerator.device, {**losses, **norms}
        stacked = torch.stack([number.to(device).float() for number in numbers.values()])
        flags = torch.cat([~stacked.isfinite(), torch.full((1,), stop, device=device)])
        everywhere = self.accelerator.gather(flags[None].int())
        self._pending.append((step, list(numbers), _fetch(everywhere)))

    def judge(self, wait: bool) -> None:
        """Judge the steps whose numbers have had time to arrive; with `wait`, or to stop, all of them.

        Raises:
            TrainingError: numbers of a step are not finite.
        """
        while len(self._pending) > (0 if wait or self.stop else self._late):
            step, names, fetch = self._pending.popleft()
            *flags, stops = fetch().T.tolist()
            self.stop |= any(stops)
            self._judge_numbers(step, dict(zip(names, flags, strict=True)))

    def _judge_numbers(self, step: int, flags: dict[str, list[int]]) -> None:
        """`flags`: for each name whether it is not finite, process by process."""
        faults = {}
        for name, flag in flags.items():
            self._in_a_row[name] = self._in_a_row[name] + 1 if any(flag) else 0
            if self._in_a_row[name] > (self.patience if name.startswith("grad_norm") else 0):
                faults[name] = flag
        if faults:
            raise TrainingError(self._explain(step, faults))

    def _explain(self, step: int, faults: dict[str, list[int]]) -> str:
        # Norms of gradients are the same in every process: losses tell where it began.
        losses = [flag for name, flag in faults.items() if not name.startswith("grad_norm")] or list(faults.values())
        guilty = [any(process) for process in zip(*losses, strict=True)]
        keys = self.keys(step)
        share = len(keys) // len(guilty)
        samples = [key for row, key in enumerate(keys) if guilty[row // share]]
        more = f" and {len(samples) - SHOWN} more" if len(samples) > SHOWN else ""
        newest = self.newest()
        left = f"the newest checkpoint, {newest}, is good" if newest else "there is no checkpoint yet"
        return (
            f"step {step + 1}: {', '.join(faults)} not finite, with training samples {samples[:SHOWN]}{more}. Nothing "
            f"of it is saved; {left}. The same command meets the same numbers; with trainer.skip_steps="
            f"{str([*self.skipped, step + 1]).replace(' ', '')} it continues, and leaves that step out. If others "
            "follow, train anew, with a lower learning_rate, a longer warm-up, or trainer.mixed_precision=no (it is "
            f"{self.accelerator.mixed_precision}): these begin another folder"
        )


def _fetch(tensor: Tensor) -> Callable[[], Tensor]:
    """Start a copy to the host; the result waits for that copy alone, not for what is queued after it."""
    if tensor.device.type != "cuda":
        return lambda: tensor
    copy, arrived = tensor.to("cpu", non_blocking=True), torch.cuda.Event()
    arrived.record()

    def wait() -> Tensor:
        arrived.synchronize()
        return copy

    return wait


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device's or the host's memory did not suffice."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def memory_advice(config: Mapping[str, Any], stage: str, processes: int) -> str:
    """The settings that decide how much memory a stage takes, with their values, and what to change first.

    Args:
        config: of the run, plain. stage: of a training stage, or the latents. processes: that share the global batch.
    """
    if stage not in config["stage"]:
        return "Nothing of it trains: its memory depends on resolution alone"
    own, trainer, first = config["stage"][stage], config["trainer"], config["stage"].get("autoencoder", {})
    batch, parts = own["batch_size"], trainer["gradient_accumulation"]
    share = batch // processes
    finer = next((n for n in range(parts + 1, share + 1) if share % n == 0), None)
    parted = [f"trainer.gradient_accumulation={finer} ({share // finer} at once)"] if finer else []
    adversary = first.get("adversarial_weight", 0) > 0
    same = [] if adversary else parted
    if config["autoencoder"].get("checkpoint_activations") is False:
        same.append("autoencoder.checkpoint_activations=true")
    render = [f"stage.{stage}.render_samples={own['render_samples']}"] if "render_samples" in own else []
    other = [f"stage.{stage}.batch_size={batch}", *render, f"trainer.mixed_precision={trainer['mixed_precision']}"]
    if adversary and parted:
        other.append(f"{parted[0]}, which trains the autoencoder anew: its adversary sees one micro-batch at a time")
    return (
        f"A batch of {batch} over {processes} process(es) x trainer.gradient_accumulation={parts} is {share // parts} "
        f"sample(s) at once. The same training in less memory: {', '.join([*same, 'more processes'])}. "
        f"Another training: change {', '.join(other)}"
    )
