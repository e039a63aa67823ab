"""What `evaluate.py` does: build a benchmark, call it, write what it found."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markdown import Markdown

from fitdiff.config import config_hash, plain
from fitdiff.evaluation.benchmark import BenchmarkError, Context
from fitdiff.evaluation.results import markdown, write_evaluation
from fitdiff.registry import build, name_of
from fitdiff.storage import read_json
from fitdiff.tracker import Trackers, build_trackers
from fitdiff.tracker.runs import describe_run, log_evaluation
from fitdiff.training.provenance import provenance

GROUPS = ("sampler", "guidance", "fitting", "detector", "landmarks")


def evaluate_what_is_asked(config: DictConfig, console: Console) -> Path:
    """Run the benchmark of `config`, write `results.json`, tables and pictures.

    Returns:
        The folder of the results.

    Raises:
        BenchmarkError, FileNotFoundError: see `Benchmark`.
    """
    began = time.monotonic()
    _check_options(config)
    benchmark = build(config.benchmark, "benchmark")
    trackers = build_trackers(config.tracker)
    asked = settings(config)
    name, out = place_of(config, asked)
    loaded: list[Any] = []

    def load() -> Any:
        from fitdiff.model import FitDiff  # not before it is wanted: meshes made elsewhere need none of it

        loaded.append(FitDiff.load(config.checkpoint, config.device, plain(config.renderer)))
        return loaded[0]

    choices = {kind: asked.get(kind) for kind in GROUPS}
    evaluation = benchmark(Context(load, choices, out, console, config.seed, config.samples, config.batch))
    about = {
        "benchmark": name_of("benchmark", asked["benchmark"]),
        "name": name,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "config": asked if _predictions(asked) else {**asked, "checkpoint": config.checkpoint},
        "config_hash": config_hash(asked),
        "command": _command_line(),
        "checkpoint": config.checkpoint if loaded else None,
        "provenance": {k: v for k, v in provenance("", loaded[0].versions if loaded else {}, 1).items() if k != "data"},
        "seconds": round(time.monotonic() - began, 1),
    }
    write_evaluation(out, evaluation, about)
    _track(trackers, out, about, Path(config.outputs))
    for table in list(evaluation.tables.values())[:1]:
        console.print(Markdown(markdown(table)))
    for note in evaluation.notes:
        _say(console, f"note: {note}")
    _say(console, f"results: {out} (results.json, table.md, .tsv, .tex, pictures)")
    return out


def _track(trackers: Trackers, out: Path, about: Mapping[str, Any], outputs: Path) -> None:
    """Show the results in the dashboards that were chosen."""
    if trackers:
        run = describe_run(
            out, about["name"], about["config"], outputs=outputs, job_type="evaluate", origin=about["provenance"],
            decided_by=about["date"],
        )  # fmt: skip
        trackers.start(run)
        log_evaluation(trackers, out)
        trackers.finish()


def _command_line() -> str | None:
    """What runs this evaluation again, by itself where it is one of a grid; None where Hydra composed nothing."""
    if not HydraConfig.initialized():
        return None
    hydra = HydraConfig.get()
    alone = ["hydra.mode=RUN"] if hydra.mode == RunMode.MULTIRUN else []
    return shlex.join(["python", f"{hydra.job.name}.py", *hydra.overrides.task, *alone])


def settings(config: DictConfig) -> dict[str, Any]:
    """All that decides the figures, resolved: what is left to the checkpoint as that says, guidance by `factors`.

    Of the checkpoint, `weights` has the seal of its file: the same weights at another place give the same figures. Of
    meshes that were made elsewhere, the benchmark's own options decide: nothing is fitted.
    """
    asked = {"benchmark": plain(config.benchmark)}
    if _predictions(asked):
        return asked
    trained = read_json(Path(config.checkpoint) / "config.json") or {}
    nodes = {kind: plain(config[kind]) or trained.get(kind) for kind in (*GROUPS, "renderer")}
    factors = plain(config.factors)
    return {
        **asked,
        **nodes,
        "guidance": scaled(nodes["guidance"], factors),
        "factors": factors,
        "samples": config.samples,
        "seed": config.seed,
        "weights": trained.get("weights") or {},
    }


def _predictions(asked: Mapping[str, Any]) -> str | None:
    """The folder of meshes that were made elsewhere."""
    return asked["benchmark"].get("predictions")


def scaled(guidance: Mapping[str, Mapping[str, Any]], factors: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Guidance with the weights of some terms multiplied; a term whose factor is 0 is left out.

    Raises:
        BenchmarkError: a factor of a term that guidance has not, or that is negative; or no term is left.
    """
    if unknown := sorted(set(factors) - set(guidance)):
        raise BenchmarkError(f"factors={unknown}: guidance has no such term; it has {sorted(guidance)}")
    if negative := sorted(name for name, factor in factors.items() if not factor >= 0):
        raise BenchmarkError(f"factors of {negative} are not numbers of 0 or more; 0 leaves a term out")
    kept = {name: node for name, node in guidance.items() if factors.get(name) != 0}
    if not kept:
        raise BenchmarkError(f"factors={dict(factors)} leave no term of guidance; give one a factor above 0")
    return {name: {**node, "weight": node["weight"] * factors.get(name, 1.0)} for name, node in kept.items()}


def place_of(config: DictConfig, asked: Mapping[str, Any]) -> tuple[str, Path]:
    """Name and folder: `<outputs>/evaluations/<benchmark>-<who is judged>-<digits of the settings>` unless given."""
    judged = _predictions(asked)
    path = Path(judged or config.checkpoint).expanduser().absolute()
    who = path.parent.name if not judged and path.name == "model" else path.name
    words = re.sub(r"[^\w.+-]+", "_", f"{name_of('benchmark', asked['benchmark'])}-{who}")
    name = config.name or f"{words}-{config_hash(asked)[:6]}"
    return name, Path(config.out) if config.out else Path(config.outputs) / "evaluations" / name


def _check_options(config: DictConfig) -> None:
    for name, least in (("batch", 1), ("samples", 1), ("seed", 0)):
        if config[name] < least:
            raise BenchmarkError(f"{name}={config[name]}: give {least} or more")
    if OmegaConf.is_missing(config, "guidance") or not config.guidance:  # Hydra makes [] a missing value
        raise BenchmarkError("guidance=[]: give a term to fit by, as in guidance=[mse]")


def _say(console: Console, text: str) -> None:
    printable = text.encode("utf-8", "replace").decode()
    console.print(printable, highlight=False, markup=False, soft_wrap=True)
