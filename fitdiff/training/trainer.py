"""The training loop, and nothing but the loop (Accelerate runs it on any number of processes and devices)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fitdiff.avatar.pictures import save_png
from fitdiff.registry import register
from fitdiff.tracker import Tracker
from fitdiff.training.checkpoint import Checkpoints
from fitdiff.training.ema import Ema
from fitdiff.training.order import global_batch, step_seed
from fitdiff.training.provenance import provenance
from fitdiff.training.stage import Stage, describe


class _Batches(Dataset[list[dict[str, Tensor]]]):
    """Item `step` is this process's micro-batches of the step: contiguous chunks of the global batch's rows."""

    def __init__(self, stage: Stage, seed: int, rank: int, world: int, parts: int) -> None:
        self.stage, self.seed = stage, seed
        self.rows = torch.arange(stage.batch_size).view(world, parts, -1)[rank]

    def __getitem__(self, step: int) -> list[dict[str, Tensor]]:
        indices = global_batch(self.stage.n_samples, self.stage.batch_size, self.seed, step)
        return [
            {**self.stage.batch([indices[row] for row in rows.tolist()], rows, step), "row": rows} for rows in self.rows
        ]


@register("trainer", "accelerate")
class Trainer:
    """Runs a stage to its end, from wherever its newest checkpoint is.

    Precision is `no`, `bf16` or `fp16`. `ema_half_life` is counted in images. `keep` checkpoints stay on disk.
    """

    def __init__(
        self,
        *,
        mixed_precision: str = "no",
        gradient_accumulation: int = 1,
        max_grad_norm: float = 1.0,
        ema_half_life: float = 20_000.0,
        log_every: int = 50,
        preview_every: int = 5_000,
        checkpoint_every: int = 5_000,
        keep: int = 2,
        loader_workers: int = 0,
        cpu: bool = False,
    ) -> None:
        self.accelerator = Accelerator(mixed_precision=mixed_precision, cpu=cpu)
        self.gradient_accumulation, self.max_grad_norm, self.ema_half_life = (
            gradient_accumulation,
            max_grad_norm,
            ema_half_life,
        )
        self.log_every, self.preview_every, self.checkpoint_every = log_every, preview_every, checkpoint_every
        self.keep, self.loader_workers = keep, loader_workers

    @property
    def is_main(self) -> bool:
        """True in the one process that writes and prints."""
        return self.accelerator.is_main_process

    def run(self, stage: Stage, folder: Path, config_hash: str, seed: int, tracker: Tracker) -> dict[str, Any]:
        """Train to the stage's last step and return its averaged modules.

        Raises:
            ValueError: the global batch does not divide among processes and accumulation steps, or the folder's
                checkpoint belongs to another config.
        """
        accelerator = self.accelerator
        world = accelerator.num_processes
        if stage.batch_size % (world * self.gradient_accumulation):
            raise ValueError(
                f"stage.{stage.name}.batch_size={stage.batch_size} must be a multiple of {world} processes x "
                f"trainer.gradient_accumulation={self.gradient_accumulation}"
            )
        for module in stage.modules.values():
            module.to(accelerator.device)
        optimisers = stage.optimisers()
        raw = dict(stage.modules)
        averages = {name: Ema(raw[name], self.ema_half_life, stage.batch_size) for name in stage.averaged}
        saved = {**raw, **{f"ema-{name}": ema.module for name, ema in averages.items()}}
        origin = provenance("", {}, world)
        checkpoints = Checkpoints(folder, {"hash": config_hash}, origin, self.keep, monitor=stage.monitor)
        start = checkpoints.resume(saved, optimisers)
        for name, module in raw.items():
            stage.modules[name] = accelerator.prepare_model(module.train())
        optimisers = {name: accelerator.prepare_optimizer(o) for name, o in optimisers.items()}
        loader: DataLoader[Any] = DataLoader(
            _Batches(stage, seed, accelerator.process_index, world, self.gradient_accumulation),
            sampler=range(start, stage.steps),
            batch_size=None,
            num_workers=self.loader_workers,
        )
        shown = {name: ema.module for name, ema in averages.items()}
        with self._progress() as progress:
            task = progress.add_task(stage.name, total=stage.steps, completed=start, losses="")
            for step, batches in enumerate(loader, start):
                torch.manual_seed(step_seed(seed, step, accelerator.process_index))
                logs = self._step(stage, batches, step, optimisers)
                for name, ema in averages.items():
                    ema.update(raw[name], step)
                done = step + 1
                if done % self.log_every == 0 or done == stage.steps:
                    values = self._mean_over_processes(logs)
                    progress.update(task, completed=done, losses=describe(values))
                    if self.is_main:
                        tracker.log({f"{stage.name}/{key}": value for key, value in values.items()}, done)
                if self.is_main and (done % self.preview_every == 0 or done == stage.steps):
                    self._preview(stage, shown, folder, done, tracker)
                if done % self.checkpoint_every == 0 or done == stage.steps:
                    checkpoints.save(done, saved, self._unwrapped(optimisers))
        stage.modules.update(raw)
        return shown

    def _step(self, stage: Stage, batches: list[dict[str, Tensor]], step: int, optimisers: Any) -> dict[str, Tensor]:
        """One optimisation step: all micro-batches, then every optimiser that got a loss."""
        device = self.accelerator.device
        rate, stepped, logs = stage.learning_rate(step), set(), {}
        for batch in batches:
            on_device = {key: value.to(device, non_blocking=True) for key, value in batch.items()}
            for name, loss, values in stage.losses(on_device, step):
                self.accelerator.backward(loss / len(batches))
                stepped.add(name)
                logs |= {key: value.detach() for key, value in values.items()}
        for name in sorted(stepped):
            optimiser = optimisers[name]
            parameters = [p for group in optimiser.param_groups for p in group["params"]]
            logs[f"grad_norm_{name}"] = self.accelerator.clip_grad_norm_(parameters, self.max_grad_norm)
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
            optimiser.zero_grad()
        return logs

    def _mean_over_processes(self, logs: dict[str, Tensor]) -> dict[str, float]:
        keys = sorted(logs)
        stacked = torch.stack([torch.as_tensor(logs[key], device=self.accelerator.device).float() for key in keys])
        mean = self.accelerator.reduce(stacked, "mean").tolist()
        ordered = dict(zip(keys, mean, strict=True))
        return {key: ordered[key] for key in logs}

    def _preview(self, stage: Stage, averages: Any, folder: Path, step: int, tracker: Tracker) -> None:
        # A preview must not change training: random numbers drawn inside it are put back.
        with torch.random.fork_rng(), torch.no_grad():
            pictures = stage.preview(averages)
        for name, picture in pictures.items():
            save_png(picture, folder / "previews" / f"{name}-{step:08d}.png")
        tracker.log_images({f"{stage.name}/{name}": picture for name, picture in pictures.items()}, step)

    def _progress(self) -> Progress:
        columns = (
            TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("ETA"), TimeRemainingColumn(), TextColumn("{task.fields[losses]}"),
        )  # fmt: skip
        return Progress(*columns, console=Console(stderr=True), disable=not self.is_main)

    @staticmethod
    def _unwrapped(optimisers: Any) -> dict[str, torch.optim.Optimizer]:
        return {name: getattr(o, "optimizer", o) for name, o in optimisers.items()}
