"""The jobs of an experiment of `conf/experiment`, as Hydra's multirun would run them, and their evaluations."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from experiments.ablation.scores import read_results
from fitdiff.cli import hydra_word
from fitdiff.config import config_hash, register_schemas
from fitdiff.evaluation.command import evaluate_what_is_asked, place_of, settings
from fitdiff.registry import load_plugins

CONF = Path(__file__).parents[2] / "conf"


@dataclass(frozen=True)
class Job:
    """One of a grid: the values that it alone has, as they are written in overrides, and what Hydra composes of it."""

    values: dict[str, str]
    composed: DictConfig

    @cached_property
    def config(self) -> DictConfig:
        """As the entry point gets it."""
        return plain_config(self.composed)


def jobs_of(primary: str, overrides: Sequence[str]) -> list[Job]:
    """Every job of `python <primary>.py <overrides>`: the product of what its `hydra.sweeper.params` list.

    Args:
        primary: train or evaluate. overrides: as on the command line, `experiment=...` among them.

    Raises:
        ValueError: Hydra does not take the overrides.
    """
    swept = composed(primary, overrides).hydra.sweeper.params or {}
    parser = OverridesParser.create()
    choices = [_choices(parser, f"{key}={value}") for key, value in swept.items()]
    return [_job(primary, overrides, dict(zip(swept, row, strict=True))) for row in itertools.product(*choices)]


def _choices(parser: OverridesParser, text: str) -> list[str]:
    override = parser.parse_override(text)
    return list(override.sweep_string_iterator()) if override.is_sweep_override() else [text.partition("=")[2]]


def _job(primary: str, overrides: Sequence[str], values: dict[str, str]) -> Job:
    config = composed(primary, [*overrides, *(f"{key}={value}" for key, value in values.items())])
    return Job({key.lstrip("+"): value for key, value in values.items()}, config)


def plain_config(config: DictConfig) -> DictConfig:
    """As an entry point gets it: resolved, without Hydra's own part, which is kept where Hydra would keep it."""
    HydraConfig.instance().set_config(config)  # names of runs hold ${hydra:...}; results hold the command line
    own = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
    return OmegaConf.create(OmegaConf.to_container(own, resolve=True))


def composed(primary: str, overrides: Sequence[str]) -> DictConfig:
    """The config of a command line, Hydra's own part included.

    Raises:
        ValueError: Hydra does not take the overrides.
    """
    load_plugins()
    register_schemas()
    try:
        with initialize_config_dir(str(CONF), job_name=primary, version_base="1.3"):
            return compose(primary, [hydra_word(word) for word in overrides], return_hydra_config=True)
    except HydraException as error:
        raise ValueError(f"{primary}.py {' '.join(overrides)}: {' '.join(str(error).split())}") from error


def evaluated(asked: DictConfig, console: Console) -> dict[str, Any]:
    """What `evaluate.py` finds: read where it is there, be it of a run of another name, else measured.

    Args:
        asked: what `composed` gives.

    Raises:
        BenchmarkError, FileNotFoundError: see `evaluate_what_is_asked`.
    """
    config = plain_config(asked)
    there = _found(config)
    return there if there is not None else read_results(evaluate_what_is_asked(config, console) / "results.json")


def _found(config: DictConfig) -> dict[str, Any] | None:
    asked = settings(config)
    _, folder = place_of(config, asked)
    digits = folder.name.rpartition("-")[2]
    for path in sorted(folder.parent.glob(f"*-{digits}/results.json")):
        results = read_results(path)
        if results["config_hash"] == config_hash(asked):
            return results
    return None
