"""`train.py`: build the components, run the stages that are missing, write one model folder."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor, nn

from fitdiff.config import config_hash, plain, select
from fitdiff.data.shards import ShardedDataset, dequantise
from fitdiff.model import COMPONENTS, DEFAULTS, FitDiff
from fitdiff.registry import build
from fitdiff.storage import pack_modules, unpack_modules, write_json, write_tensors
from fitdiff.training.trainer import Trainer

STAGES = ("autoencoder", "latents", "diffusion")
TRAINING_KEYS = ("mixed_precision", "gradient_accumulation", "max_grad_norm", "ema_half_life")
"""Trainer settings that change the result; the others (logging, checkpoints) do not enter a stage's hash."""


class Pipeline:
    """One run of `train.py`.

    A stage's folder is `<outputs>/stages/<stage>-<hash>`, where the hash covers everything that determines its result,
    the stages before it included. So runs share what they have in common (ablations of the diffusion stage train the
    autoencoder once), the same command continues, and a changed config never meets old weights.
    """

    def __init__(self, config: DictConfig) -> None:
        unknown = [stage for stage in config.model.stages if stage not in STAGES]
        if unknown:
            raise ValueError(f"model.stages has {unknown}; expected a selection of {list(STAGES)}")
        self.config = config
        self.run_dir = Path(config.outputs) / config.name
        self.console = Console(stderr=True)
        torch.manual_seed(config.seed)
        self.trainer: Trainer = build(config.trainer, "trainer")
        nodes = select(config, *COMPONENTS, *DEFAULTS, "data")
        self.model = FitDiff({**select(config, "resolution", "prediction"), **nodes, "separate": config.model.separate})
        parts = (config[key] for key in ("shape_model", "identity", "renderer"))
        fingerprint = config_hash(*parts, self.model.versions)
        self.model.to(self.trainer.accelerator.device)
        self.data = build(
            config.data,
            "data",
            shape_model=self.model.shape_model,
            identity=self.model.identity,
            renderer=self.model.renderer,
            resolution=config.resolution,
            fingerprint=fingerprint,
        )
        where = ("workers", "device", "cache", "path")  # of the data, not what they are
        settings = {k: v for k, v in plain(config.data).items() if k not in where}
        content = getattr(self.data, "content", None)  # what the settings do not say: files, or the version of the code
        self.data_hash = config_hash(fingerprint, settings, content)

    def run(self) -> Path:
        """Run what is missing; returns the run's folder."""
        stages = [stage for stage in STAGES if stage in self.config.model.stages]
        self._describe(stages)
        if self.trainer.is_main:
            self.data.prepare()
        self.trainer.accelerator.wait_for_everyone()
        tracker = build(self.config.tracker, "tracker")
        if self.trainer.is_main:
            tracker.start(self.run_dir, self.config.name, plain(self.config))
        metrics: dict[str, Any] = {}
        try:
            for stage in stages:
                metrics[stage] = getattr(self, f"_{stage}")(tracker)
                if self.trainer.is_main:
                    write_json(self.run_dir / "metrics.json", metrics)
        finally:
            if self.trainer.is_main:
                tracker.finish()
        if self.trainer.is_main and "diffusion" in stages:
            self.model.save(self.run_dir / "model")
        self._report(metrics)
        return self.run_dir

    # --- stages ------------------------------------------------------------------------------------------------

    def _autoencoder(self, tracker: Any) -> dict[str, Any]:
        folder = self._folder("autoencoder")
        if not (folder / "result.json").exists():
            perceptual = build(self.config.perceptual, "perceptual").to(self.model.device)
            stage = self._build_stage("autoencoder", autoencoder=self.model.autoencoder, perceptual=perceptual)
            return self._train(stage, folder, tracker)
        unpack_modules(load_file(folder / "weights.safetensors"), {"autoencoder": self.model.autoencoder})
        return self._done("autoencoder", folder)

    def _latents(self, tracker: Any) -> dict[str, Any]:
        folder = self._folder("latents")
        if not (folder / "result.json").exists():
            start = time.perf_counter()
            if self.trainer.is_main:
                latents = {split: encode_maps(self.model, data) for split, data in self._splits().items()}
                write_tensors(folder / "latents.safetensors", latents)
                shape = list(latents["train"].shape)
                self._finish_stage(folder, {"shape": shape}, time.perf_counter() - start)
            self.trainer.accelerator.wait_for_everyone()
            return json.loads((folder / "result.json").read_text())
        return self._done("latents", folder)

    def _diffusion(self, tracker: Any) -> dict[str, Any]:
        folder = self._folder("diffusion")
        modules: dict[str, nn.Module] = {"denoiser": self.model.denoiser, "latent": self.model.latent}
        if (folder / "result.json").exists():
            unpack_modules(load_file(folder / "weights.safetensors"), modules)
            return self._done("diffusion", folder)
        latents = load_file(self._folder("latents") / "latents.safetensors")
        stage = self._build_stage("diffusion", model=self.model, latents=latents)
        self.model.to(self.model.device)
        return self._train(stage, folder, tracker)

    def _build_stage(self, name: str, **runtime: Any) -> Any:
        return build(self.config.stage[name], "stage", seed=self.config.seed, **self._splits(), **runtime)

    def _train(self, stage: Any, folder: Path, tracker: Any) -> dict[str, Any]:
        start = time.perf_counter()
        averages = self.trainer.run(stage, folder, self._hash(stage.name), self.config.seed, tracker)
        seconds = time.perf_counter() - start
        stage.finish(averages)
        metrics = stage.evaluate(averages)
        if self.trainer.is_main:
            tracker.log({f"{stage.name}/held_out/{key}": value for key, value in metrics.items()}, stage.steps)
            product = {key: getattr(self.model, key) for key in stage.product}
            write_tensors(folder / "weights.safetensors", pack_modules(product))
            self._finish_stage(folder, metrics | {"steps": stage.steps}, seconds)
        self.trainer.accelerator.wait_for_everyone()
        return json.loads((folder / "result.json").read_text())

    # --- bookkeeping ---------------------------------------------------------------------------------------------

    def _splits(self) -> dict[str, ShardedDataset]:
        return {"train": self.data.train, "held_out": self.data.held_out}

    def _hash(self, stage: str) -> str:
        """Covers all that determines a stage's result, and so the stages before it."""
        config, trainer = self.config, plain(self.config.trainer)
        precision = {key: trainer[key] for key in TRAINING_KEYS}
        parts: list[Any] = [self.data_hash, config.seed, precision]
        parts += [config.autoencoder, config.perceptual, config.stage["autoencoder"]]
        if stage == "diffusion":
            parts += [config.denoiser, config.schedule, config.prediction, config.model.separate]
            parts += [config.stage["diffusion"]]
        return config_hash(stage, *parts)

    def _folder(self, stage: str) -> Path:
        return Path(self.config.outputs) / "stages" / f"{stage}-{self._hash(stage)}"

    def _finish_stage(self, folder: Path, metrics: dict[str, Any], seconds: float) -> None:
        write_json(folder / "config.json", plain(self.config))
        write_json(folder / "result.json", metrics | {"seconds": round(seconds, 1)})

    def _done(self, stage: str, folder: Path) -> dict[str, Any]:
        if self.trainer.is_main:
            self.console.print(f"[green]{stage}[/] is done ({folder}): skipped")
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

    def _report(self, metrics: dict[str, Any]) -> None:
        if not self.trainer.is_main:
            return
        table = Table("stage", "metric", "value")
        for stage, values in metrics.items():
            for key, value in values.items():
                table.add_row(stage, key, f"{value:.4g}" if isinstance(value, float) else str(value))
        self.console.print(table)
        self.console.print(
            f"results: [bold]{self.run_dir}[/] (metrics.json, model/); stages: {self.run_dir.parent / 'stages'}"
        )


@torch.inference_mode()
def encode_maps(model: FitDiff, data: ShardedDataset, batch: int = 64) -> Tensor:
    """(n, C, h, w) map latents of a whole data set, on the CPU."""
    chunks = [range(i, min(i + batch, len(data))) for i in range(0, len(data), batch)]
    maps = (dequantise(data.gather(chunk, ("maps",))["maps"]).to(model.device) for chunk in chunks)
    return torch.cat([model.autoencoder.encode(m).cpu() for m in maps])
