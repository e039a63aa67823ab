"""The training loop, and nothing but the loop (Accelerate runs it on any number of processes and devices).

A step's batch and random numbers are functions of (seed, step), so a run continues exactly after any stop. Signals end
it after a step (`interruption`), and numbers that are not finite before they are saved (`health`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from fitdiff.avatar.pictures import save_png
from fitdiff.registry import register
from fitdiff.tracker import Tracker
from fitdiff.training.batches import Batches, load
from fitdiff.training.checkpoint import Checkpoints
from fitdiff.training.descent import GradientScale, graphs_kept, update
from fitdiff.training.ema import Ema
from fitdiff.training.health import TrainingError, Watch
from fitdiff.training.interruption import InterruptedRun, Interruption
from fitdiff.training.log import Log
from fitdiff.training.order import step_seed
from fitdiff.training.processes import on_all, on_main
from fitdiff.training.stage import Stage, describe

OVERFLOWS = 20
"""Steps in a row that fp16's gradient scaler may skip. It halves its scale at each, so a sound run needs fewer."""

T = TypeVar("T")


@dataclass(frozen=True)
class Trained:
    """What a stage's run gives, in every process: averaged modules by name, and their held-out metrics."""

    averages: dict[str, nn.Module]
    metrics: dict[str, float]


@register("trainer", "accelerate")
class Trainer:
    """Runs a stage to its end, from wherever its newest checkpoint is.

    Args:
        mixed_precision: no, bf16, or fp16 (on a GPU).
        gradient_accumulation: micro-batches of a step in each process: more take less memory for the same weights. An
            adversary is the exception: it and its weight see the statistics of one micro-batch of all processes.
        max_grad_norm: each optimiser's gradients are scaled down to this norm.
        ema_half_life: in images.
        compile: let torch.compile build the trained networks; on a CPU it needs a C++ compiler.
        log_every, preview_every, evaluate_every, checkpoint_every: in steps; the last step has all four.
        keep_last, keep_best: checkpoints that stay: the newest, and the best by the held-out metric of the stage.
        skip_steps: steps, counted from 1, whose batch is left out and changes no weight, in every stage: the way past
            one whose numbers are not finite. The message names it.
        loader_workers: processes that read batches ahead of each training process; 0 reads in the loop.
        patience: seconds that processes wait for the main one while it makes people, evaluates and draws previews.
        cpu: use no GPU.
    """

    def __init__(
        self,
        *,
        mixed_precision: str = "no",
        gradient_accumulation: int = 1,
        max_grad_norm: float = 1.0,
        ema_half_life: float = 20_000.0,
        compile: bool = False,
        log_every: int = 50,
        preview_every: int = 5_000,
        evaluate_every: int = 5_000,
        checkpoint_every: int = 5_000,
        keep_last: int = 2,
        keep_best: int = 1,
        skip_steps: tuple[int, ...] = (),
        loader_workers: int = 0,
        patience: float = 7200.0,
        cpu: bool = False,
    ) -> None:
        waiting = InitProcessGroupKwargs(timeout=timedelta(seconds=patience))
        lean = DistributedDataParallelKwargs(gradient_as_bucket_view=True)  # saves a copy of all gradients
        try:
            self.accelerator = Accelerator(mixed_precision=mixed_precision, cpu=cpu, kwargs_handlers=[waiting, lean])
        except ValueError as error:
            raise TrainingError(f"trainer.mixed_precision={mixed_precision}: {error}") from error
        if self.accelerator.distributed_type.value in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
            raise TrainingError(
                f"the launcher asks for {self.accelerator.distributed_type.value}, which shards weights: give "
                "launch/ddp.yaml. The largest network here takes 4 GB with gradients, optimiser and average"
            )
        if mixed_precision == "fp16" and self.accelerator.scaler is None:  # Accelerate would train at full precision
            raise TrainingError("trainer.mixed_precision=fp16 needs a GPU: give no, or bf16")
        self.gradient_accumulation, self.max_grad_norm = gradient_accumulation, max_grad_norm
        self.ema_half_life, self.compile, self.loader_workers = ema_half_life, compile, loader_workers
        self.every = {
            "log": log_every, "preview": preview_every, "evaluate": evaluate_every, "checkpoint": checkpoint_every,
        }  # fmt: skip
        self.keep = {"keep_last": keep_last, "keep_best": keep_best}
        self.skip_steps = list(skip_steps)
        self.interruption = Interruption()
        self.console = Console(stderr=True, highlight=False)

    @property
    def is_main(self) -> bool:
        """True in the one process that writes and prints."""
        return self.accelerator.is_main_process

    def run(
        self,
        stage: Stage,
        folder: Path,
        config: Mapping[str, Any],
        provenance: Mapping[str, Any],
        seed: int,
        tracker: Tracker,
    ) -> Trained:
        """Train to the stage's last step. Every process calls it.

        Args:
            folder: gets the checkpoints, `log.jsonl` and previews. config, provenance: see `Checkpoints`.

        Raises:
            TrainingError: the global batch does not divide among processes and micro-batches, or a number is not
                finite; the newest checkpoint is good.
            CheckpointError: see `Checkpoints`.
            InterruptedRun: a signal asked to stop; the steps done are saved.
        """
        batches = self._share(stage, seed)
        raw = {name: module.to(self.accelerator.device).train() for name, module in stage.modules.items()}
        optimisers = stage.optimisers()
        emas = {name: Ema(raw[name], self.ema_half_life, stage.batch_size) for name in stage.averaged}
        averages = {name: ema.module for name, ema in emas.items()}
        saved: dict[str, Any] = {**raw, **{f"ema-{name}": module for name, module in averages.items()}}
        scaler = self.accelerator.scaler
        if scaler is not None:
            saved["gradient-scale"] = GradientScale(scaler)
        checkpoints = Checkpoints(folder, config, provenance, **self.keep, monitor=stage.monitor)
        start = checkpoints.resume(saved, optimisers)
        log = on_all(lambda: Log(folder / "log.jsonl", start, stage.name, tracker) if self.is_main else None)
        patience = 0 if scaler is None else OVERFLOWS
        watch = Watch(self.accelerator, batches.keys, checkpoints.newest, patience, self.skip_steps)
        loader = load(batches, start, self.loader_workers, pin_memory=self.accelerator.device.type == "cuda")
        metrics = None
        with self._wrapped(stage), self._progress(stage, start) as show, self.interruption.deferred():
            for step, micro_batches in enumerate(loader, start):
                torch.manual_seed(step_seed(seed, step, self.accelerator.process_index))
                rate, skipped = stage.learning_rate(step), step + 1 in self.skip_steps
                if skipped:
                    losses, norms = {"skipped": torch.ones(())}, {}
                else:
                    losses, stepped = self._descend(stage, micro_batches, step)
                    norms = update({name: optimisers[name] for name in stepped}, rate, self.max_grad_norm, scaler)
                    for name, ema in emas.items():
                        ema.update(raw[name], step)
                watch.submit(step, losses, norms, stop=self.interruption.requested is not None)

                done = step + 1
                due = {event for event, every in self.every.items() if done % every == 0 or done == stage.steps}
                due |= {"log"} if skipped else set()
                watch.judge(wait=bool(due))
                if "log" in due:
                    values = self._mean_over_processes({**losses, **norms})
                    show(done, values)
                    if log:
                        speed = stage.batch_size * log.steps_per_second(done)
                        log.write({**values, "learning_rate": rate, "samples_per_second": speed}, done)
                if "preview" in due:
                    self._preview(stage, averages, folder, done, tracker)
                metrics = self._evaluate(stage, averages, log, done) if "evaluate" in due else None
                if due & {"evaluate", "checkpoint"} or watch.stop:
                    checkpoints.save(done, saved, optimisers, metrics)
                if watch.stop:
                    raise InterruptedRun(f"stopped after step {done} of {stage.steps} of {stage.name}, which is saved")
        # None also after a stop between the last checkpoint and the end of its stage.
        metrics = metrics or self._evaluate(stage, averages, log, stage.steps)
        if metrics is None:
            raise InterruptedRun(f"stopped at the evaluation of {stage.name}, all of whose steps are saved")
        return Trained(averages, metrics)

    def _descend(
        self, stage: Stage, batches: list[dict[str, Tensor]], step: int
    ) -> tuple[dict[str, Tensor], list[str]]:
        """Gradients of all micro-batches: means of what is logged, and the optimisers that got a loss."""
        logs: dict[str, Tensor] = {}
        for part, batch in enumerate(batches, 1):
            moved = {key: value.to(self.accelerator.device, non_blocking=True) for key, value in batch.items()}
            stepped = []
            with ExitStack() as stack:
                if part < len(batches):  # processes add up their gradients once a step, with the last micro-batch
                    for module in stage.modules.values():
                        stack.enter_context(self.accelerator.no_sync(module))
                for name, loss, values in stage.losses(moved, step):
                    self.accelerator.backward(loss / len(batches))
                    stepped.append(name)
                    for key, value in {f"total_{name}": loss, **values}.items():
                        logs[key] = logs.get(key, 0.0) + torch.as_tensor(value).detach() / len(batches)
        return logs, stepped

    def _mean_over_processes(self, logs: Mapping[str, Tensor]) -> dict[str, float]:
        stacked = torch.stack([value.to(self.accelerator.device).float() for value in logs.values()])
        return dict(zip(logs, self.accelerator.reduce(stacked, "mean").tolist(), strict=True))

    # --- looking at it: in the main process, without gradients; a signal ends it ---------------------------------

    def _evaluate(
        self, stage: Stage, averages: dict[str, nn.Module], log: Log | None, step: int
    ) -> dict[str, float] | None:
        metrics = on_main(lambda: self._unless_stopped(lambda: stage.evaluate(averages)))
        if metrics and log:
            log.write({f"held_out/{key}": value for key, value in metrics.items()}, step)
        return metrics

    def _preview(self, stage: Stage, averages: dict[str, nn.Module], folder: Path, step: int, tracker: Tracker) -> None:
        def draw() -> None:
            pictures: dict[str, np.ndarray] = stage.preview(averages)
            for name, picture in pictures.items():
                save_png(picture, folder / "previews" / f"{name}-{step:08d}.png")
            tracker.log_images({f"{stage.name}/{name}": picture for name, picture in pictures.items()}, step)

        on_main(lambda: self._unless_stopped(draw))

    def _unless_stopped(self, work: Callable[[], T]) -> T | None:
        try:
            with self.interruption.deferred(False), torch.no_grad():
                return work()
        except InterruptedRun:
            return None  # it is still requested: the loop stops after its next step

    # --- setting up ----------------------------------------------------------------------------------------------

    def _share(self, stage: Stage, seed: int) -> Batches:
        """This process's micro-batches."""
        processes, parts = self.accelerator.num_processes, self.gradient_accumulation
        if stage.batch_size % (processes * parts):
            raise TrainingError(
                f"stage.{stage.name}.batch_size={stage.batch_size} must be a multiple of {processes} processes x "
                f"trainer.gradient_accumulation={parts}"
            )
        return Batches(stage, seed, self.accelerator.process_index, processes, parts)

    @contextmanager
    def _wrapped(self, stage: Stage) -> Iterator[None]:
        """The stage's modules made distributed, of mixed precision and compiled as asked; plain again afterwards."""
        raw = dict(stage.modules)
        try:
            for name, module in raw.items():
                if self.compile:
                    module.compile()  # in place: names of weights and all other methods stay as they are
                stage.modules[name] = self.accelerator.prepare_model(module)
            with graphs_kept():
                yield
        finally:
            for module in stage.modules.values():
                self.accelerator.unwrap_model(module, keep_fp32_wrapper=False)
            stage.modules.update(raw)
            self.accelerator.free_memory()

    @contextmanager
    def _progress(self, stage: Stage, start: int) -> Iterator[Callable[[int, dict[str, float]], None]]:
        if self.is_main and start:
            self.console.print(f"[bold]{stage.name}[/] continues after step {start} of {stage.steps}")
        columns = (
            TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("ETA"), TimeRemainingColumn(), TextColumn("{task.fields[losses]}"),
        )  # fmt: skip
        with Progress(*columns, console=self.console, disable=not self.is_main) as progress:
            task = progress.add_task(stage.name, total=stage.steps, completed=start, losses="")
            yield lambda done, values: progress.update(task, completed=done, losses=describe(values))
