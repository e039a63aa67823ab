"""`train.py`: build the components, run the stages that are missing, write one model folder."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from torch import nn

from fitdiff.config import config_hash, plain, select
from fitdiff.data.shards import ShardedDataset
from fitdiff.data.sources import build_data
from fitdiff.model import COMPONENTS, DEFAULTS, FitDiff
from fitdiff.registry import build
from fitdiff.storage import pack_modules, unpack_modules, write_json, write_tensors
from fitdiff.tracker import TrackedRun, build_trackers
from fitdiff.tracker.runs import data_artifact, describe_run, show_stage
from fitdiff.training.health import TrainingError, is_out_of_memory, memory_advice
from fitdiff.training.latents import VERSION as LATENTS_VERSION
from fitdiff.training.latents import open_latents, write_latents
from fitdiff.training.log import training_seconds
from fitdiff.training.processes import on_all, on_main
from fitdiff.training.provenance import provenance
from fitdiff.training.tracking import show_curves, show_model, tracked
from fitdiff.training.trainer import Trainer

STAGES = ("autoencoder", "latents", "diffusion")
TRAINING_KEYS = ("mixed_precision", "max_grad_norm", "ema_half_life")
"""Trainer settings that change the result. The others do not enter a stage's hash: logging and checkpoints, and
gradient accumulation, compilation and the number of processes, which change no more than the rounding; but see
`_has_adversary`. Neither do skipped steps, which mend a run that must go on."""

MEMORY_KEYS = ("checkpoint_activations",)
"""Settings of networks that trade time for memory and change nothing else."""

PATIENCE = 30.0
"""Seconds in which the loaders of a run that was killed, or a network's file system, let go of a folder."""


class Pipeline:
    """One run of `train.py`.

    A stage's folder is `<outputs>/stages/<stage>-<hash>`, where the hash covers everything that determines its result,
    the stages before it included. So runs share what they have in common (ablations of the diffusion stage train the
    autoencoder once), the same command continues, and a changed config never meets old weights.
    """

    def __init__(self, config: DictConfig) -> None:
        stages = list(config.model.stages)
        if not stages or stages != list(STAGES[: len(stages)]):
            raise TrainingError(
                f"model.stages is {stages}; expected {list(STAGES)} or its beginning: a stage needs those before it, "
                "and what is done already is skipped"
            )
        if config.trainer.mixed_precision == "fp16" and _has_adversary(config):
            raise TrainingError(
                "trainer.mixed_precision=fp16: the gradients that weigh the adversary vanish in it, for they are taken "
                "without its scale: give bf16, no, or stage.autoencoder.adversarial_weight=0"
            )
        self.config = config
        self.tracker = build_trackers(config.tracker)  # first: what is wrong with it costs nothing yet
        self.run_dir = Path(config.outputs) / config.name
        self.console = Console(stderr=True)
        torch.manual_seed(self._seed("autoencoder"))
        self.trainer: Trainer = build(config.trainer, "trainer")
        self.model = self._build_model()
        model = self.model.to(self.trainer.accelerator.device)
        made_with = (model.shape_model, model.identity, model.renderer, model.versions)
        self.data, self.data_hash = build_data(config, *made_with)

    def _build_model(self) -> FitDiff:
        """Networks initialised by the seeds of their stages: by the same seeds, the same weights."""
        nodes = select(self.config, "resolution", "prediction", *COMPONENTS, *DEFAULTS, "data")
        nodes["separate"] = self.config.model.separate
        model = FitDiff(nodes)
        if self._seed("diffusion") == self._seed("autoencoder"):
            return model
        torch.manual_seed(self._seed("diffusion"))
        return FitDiff(nodes, **{name: getattr(model, name) for name in COMPONENTS if name != "denoiser"})

    def run(self) -> Path:
        """Run what is missing; returns the run's folder.

        Raises:
            TrainingError, CheckpointError: training cannot start or go on; the newest checkpoint is good.
            InterruptedRun: a signal asked to stop; the same command continues.
        """
        with self.trainer.interruption:
            return self._run(list(self.config.model.stages))

    def _run(self, stages: list[str]) -> Path:
        self._describe(stages)
        self._tell_of_waiting()
        if self.trainer.is_main:
            write_json(self.run_dir / "stages.json", self._stage_folders(stages))
        metrics: dict[str, Any] = {}
        with tracked(self.tracker, self._tracked_run(stages)) if self.trainer.is_main else nullcontext():
            on_main(self.data.prepare)
            for stage in stages:
                with self._lack_of_memory_explained(stage):
                    metrics[stage] = getattr(self, f"_{stage}")()
                if self.trainer.is_main:
                    write_json(self.run_dir / "metrics.json", metrics)
                    self._show(stage)
            if self.trainer.is_main and "diffusion" in stages:
                self.model.save(self.run_dir / "model")
                show_model(self.tracker, self.model, self.run_dir, self._folder("diffusion"))
        self._report(metrics)
        return self.run_dir

    # --- stages ------------------------------------------------------------------------------------------------

    def _autoencoder(self) -> dict[str, Any]:
        folder = self._folder("autoencoder")
        if not (folder / "result.json").exists():
            perceptual = build(self.config.perceptual, "perceptual").to(self.model.device)
            stage = self._build_stage("autoencoder", autoencoder=self.model.autoencoder, perceptual=perceptual)
            return self._train(stage, folder)
        unpack_modules(load_file(folder / "weights.safetensors"), {"autoencoder": self.model.autoencoder})
        return self._done("autoencoder", folder)

    def _latents(self) -> dict[str, Any]:
        folder = self._folder("latents")
        if (folder / "result.json").exists():
            return self._done("latents", folder)
        start = time.perf_counter()
        accelerator = self.trainer.accelerator
        for split, data in self._splits().items():
            share = accelerator.process_index, accelerator.num_processes
            on_all(partial(write_latents, self.model, data, folder / split, *share))
        shape = [len(self.data.train), *self.model.latent.latent_shape]
        on_main(lambda: self._finish_stage(folder, {"shape": shape}, time.perf_counter() - start))
        return json.loads((folder / "result.json").read_text())

    def _diffusion(self) -> dict[str, Any]:
        folder = self._folder("diffusion")
        modules: dict[str, nn.Module] = {"denoiser": self.model.denoiser, "latent": self.model.latent}
        if (folder / "result.json").exists():
            unpack_modules(load_file(folder / "weights.safetensors"), modules)
            return self._done("diffusion", folder)
        folder_of, memory = self._folder("latents"), self.config.latents_gb * 1e9
        latents = {split: open_latents(data, folder_of / split, memory) for split, data in self._splits().items()}
        stage = self._build_stage("diffusion", model=self.model, latents=latents)
        self.model.to(self.model.device)
        return self._train(stage, folder)

    def _build_stage(self, name: str, **runtime: Any) -> Any:
        return build(self.config.stage[name], "stage", seed=self._seed(name), **self._splits(), **runtime)

    def _train(self, stage: Any, folder: Path) -> dict[str, Any]:
        processes = self.trainer.accelerator.num_processes
        origin = provenance(self.data_hash, self.model.versions, processes)
        with _alone_in(folder):
            trained = self.trainer.run(
                stage, folder, self._decides(stage.name), origin, self._seed(stage.name), self.tracker
            )
            stage.finish(trained.averages)

            def finish() -> None:
                product = {key: getattr(self.model, key) for key in stage.product}
                write_tensors(folder / "weights.safetensors", pack_modules(product))
                seconds = training_seconds(folder / "log.jsonl", stage.batch_size)
                self._finish_stage(folder, trained.metrics | {"steps": stage.steps}, seconds)

            on_main(finish)
        return json.loads((folder / "result.json").read_text())

    @contextmanager
    def _lack_of_memory_explained(self, stage: str) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            advice = memory_advice(plain(self.config), stage, self.trainer.accelerator.num_processes)
            raise TrainingError(f"stage {stage} ran out of memory ({reason}). {advice}") from error

    # --- bookkeeping ---------------------------------------------------------------------------------------------

    def _splits(self) -> dict[str, ShardedDataset]:
        return {"train": self.data.train, "held_out": self.data.held_out}

    def _seed(self, stage: str) -> int:
        own = self.config.autoencoder_seed
        return self.config.seed if stage == "diffusion" or own is None else own

    def _decides(self, stage: str) -> dict[str, Any]:
        """All settings that determine a stage's result, and so those of the stages before it."""
        config, trainer, autoencoder = self.config, plain(self.config.trainer), plain(self.config.autoencoder)
        decides: dict[str, Any] = {
            "seed": self._seed("autoencoder"),
            "trainer": {key: trainer[key] for key in TRAINING_KEYS},
            "autoencoder": {key: value for key, value in autoencoder.items() if key not in MEMORY_KEYS},
            "perceptual": plain(config.perceptual),
            "stage": {"autoencoder": plain(config.stage["autoencoder"])},
        }
        if trainer["gradient_accumulation"] != 1 and _has_adversary(config):
            decides["trainer"]["gradient_accumulation"] = trainer["gradient_accumulation"]
        if stage == "latents":
            decides["files"] = LATENTS_VERSION
        if stage == "diffusion":
            decides |= select(config, "denoiser", "schedule", "prediction") | {"separate": config.model.separate}
            decides["stage"]["diffusion"] = plain(config.stage["diffusion"])
            if self._seed("diffusion") != self._seed("autoencoder"):
                decides["diffusion_seed"] = self._seed("diffusion")
        return decides

    def _hash(self, stage: str) -> str:
        return config_hash(stage, self.data_hash, self._decides(stage))

    def _folder(self, stage: str) -> Path:
        return Path(self.config.outputs) / "stages" / f"{stage}-{self._hash(stage)}"

    def _stage_folders(self, stages: list[str]) -> dict[str, str]:
        """Where each stage is, seen from the run's folder, so that both may be moved."""
        return {stage: Path(os.path.relpath(self._folder(stage), self.run_dir)).as_posix() for stage in stages}

    def _tracked_run(self, stages: list[str]) -> TrackedRun:
        return describe_run(
            self.run_dir,
            self.config.name,
            plain(self.config),
            outputs=Path(self.config.outputs),
            origin=provenance(self.data_hash, self.model.versions, self.trainer.accelerator.num_processes),
            decided_by=self._folder(stages[-1]).name,
        )

    def _show(self, stage: str) -> None:
        """A stage that is done, with what it is made from: the data, and the stage before it."""
        data = data_artifact(self.data_hash, plain(self.config.data))
        before = next((self._folder(name) for name in reversed(STAGES[: STAGES.index(stage)])), None)
        show_stage(self.tracker, self._folder(stage), self.config.name, [data], before)

    def _finish_stage(self, folder: Path, metrics: dict[str, Any], seconds: float) -> None:
        write_json(folder / "config.json", plain(self.config))
        write_json(folder / "result.json", metrics | {"seconds": round(seconds, 1)})

    def _done(self, stage: str, folder: Path) -> dict[str, Any]:
        if self.trainer.is_main:
            self.console.print(f"[green]{stage}[/] is done ({folder}): skipped")
            show_curves(self.tracker, folder, stage, self.config.name)
        return json.loads((folder / "result.json").read_text())

    def _describe(self, stages: list[str]) -> None:
        if not self.trainer.is_main:
            return
        model = self.model
        counts = {
            name: sum(p.numel() for p in getattr(model, name).parameters()) for name in ("autoencoder", "denoiser")
        }
        self.console.print(
            f"[bold]{self.config.name}[/]: {' → '.join(stages)} · maps {model.config['resolution']}² · "
            f"z {model.latent.length} ({model.latent.n_identity} shape, "
            f"{model.latent.used - model.latent.n_identity} maps)"
            f" · autoencoder {counts['autoencoder'] / 1e6:.2f} M · denoiser {counts['denoiser'] / 1e6:.2f} M parameters"
            f" · {self.trainer.accelerator.num_processes} × {self.trainer.accelerator.device.type}"
        )

    def _tell_of_waiting(self) -> None:
        processes = self.trainer.accelerator.num_processes
        missing = len(self.data.missing()) if self.trainer.is_main and processes > 1 else 0
        if missing:
            self.console.print(
                f"the main process makes {missing} files of people; the others wait for trainer.patience="
                f"{self.config.trainer.patience:g} seconds, and then end the run. Where that is too short, make them "
                "beforehand: prepare.py (docs/data.md)",
                soft_wrap=True,
            )

    def _report(self, metrics: dict[str, Any]) -> None:
        if not self.trainer.is_main:
            return
        table = Table("stage", "metric", "value")
        for stage, values in metrics.items():
            for key, value in values.items():
                table.add_row(stage, key, f"{value:.4g}" if isinstance(value, float) else str(value))
        self.console.print(table)
        self.console.print(
            f"results: [bold]{self.run_dir}[/] (metrics.json, model/); stages: {Path(self.config.outputs) / 'stages'}"
        )


def _has_adversary(config: DictConfig) -> bool:
    """Whether the autoencoder's training depends on micro-batches: see `autoencoder_stage`."""
    return config.stage.autoencoder.get("adversarial_weight", 0) > 0


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """No other run trains in the folder: they would cut each other's log and delete each other's checkpoints.

    Raises:
        TrainingError: one does.
    """
    lock = FileLock(folder / ".lock", timeout=PATIENCE)

    def acquire() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise TrainingError(
                f"another run is training {folder}: wait for its end, and this command takes its result"
            ) from error

    on_main(acquire)
    try:
        yield
    finally:
        lock.release()
