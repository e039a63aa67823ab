"""What the page knows of a run, whichever program made it, and what both kinds of run read alike."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

TRAINING = "training"
"""`Run.kind` of what `train.py` made; an evaluation's is its benchmark."""

FAILED = "failed.json"
"""File in the folder of a training: `reason` and `date` of what ended it, until it goes on."""


@dataclass(frozen=True)
class Problem:
    """Something that could not be read: told on the page, never the end of it."""

    where: str
    reason: str


class RunError(ValueError):
    """A folder is no run that can be shown."""


class NotARunError(RunError):
    """A file of another program: nothing to tell."""


@dataclass(frozen=True)
class Number:
    """A result, and what it was measured on: runs that share a stage share its numbers, which count once.

    `final` is False for what a stage that has not finished has reached so far.
    """

    value: float
    source: str
    final: bool = True


@dataclass(frozen=True)
class Curve:
    """A logged value over steps; `source` as in `Number`. Values are finite, steps ascend."""

    steps: tuple[int, ...]
    values: tuple[float, ...]
    source: str


@dataclass(frozen=True)
class Picture:
    """A picture on disk: runs' pictures of the same name stand side by side."""

    name: str
    caption: str
    path: Path


@dataclass(frozen=True)
class Sheet:
    """A table that a benchmark wrote, as text."""

    name: str
    header: list[str]
    rows: list[list[str]]


@dataclass
class Run:
    """A training run or an evaluation.

    Attributes:
        name: unique on the page. kind: `TRAINING` or the benchmark's name. status: `finished`, or what is missing,
            or why it failed.
        config: nested plain values; empty if unknown. compared: what decides whether runs differ only in their seed.
        numbers: final values. rows: of an evaluation, one a measured item: `name` and numbers. seconds: it took.
        facts: provenance, name -> text. command: that makes the run again; None if it was not recorded.
        notes: what the run itself, or reading it, has to say.
    """

    name: str
    folder: Path
    kind: str
    status: str = "finished"
    config: dict[str, Any] = field(default_factory=dict)
    compared: dict[str, Any] = field(default_factory=dict)
    numbers: dict[str, Number] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    sheets: list[Sheet] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    command: str | None = None
    notes: list[str] = field(default_factory=list)
    seconds: float | None = None

    @property
    def seed(self) -> Any:
        """The run's seed, as its config has it; None if unknown."""
        return self.config.get("seed")


def number(value: Any) -> float | None:
    """A finite number, or None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond floats, in a damaged file
        return None


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        NotARunError: no object. RunError: missing, or no JSON.
    """
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path.name} cannot be read ({_reason(error)})") from error
    if not isinstance(value, dict):
        raise NotARunError(f"{path.name} holds {type(value).__name__}, expected a JSON object")
    return value


def read_hydra(folder: Path) -> tuple[dict[str, Any], str | None]:
    """The config that Hydra composed for a run, and the command; empty and None where it left none."""
    config = _yaml(folder / ".hydra" / "config.yaml")
    overrides = _yaml(folder / ".hydra" / "overrides.yaml")
    hydra = _yaml(folder / ".hydra" / "hydra.yaml")
    settings = hydra.get("hydra", {}) if isinstance(hydra, dict) else {}
    if not isinstance(overrides, list) or not isinstance(settings, dict):
        return _resolved(config), None
    # One run of a grid is this run alone only if its experiment does not start the whole grid again.
    words = [*map(str, overrides), *(["hydra.mode=RUN"] if "MULTIRUN" in str(settings.get("mode")) else [])]
    job = settings.get("job")
    program = job.get("name", "train") if isinstance(job, dict) else "train"
    return _resolved(config), shlex.join(["python", f"{program}.py", *words])


def provenance_facts(provenance: Any) -> dict[str, str]:
    """`fitdiff.training.provenance.provenance` as short texts."""
    if not isinstance(provenance, Mapping):
        return {}
    facts = {}
    git = provenance.get("git")
    if isinstance(git, Mapping):
        changes = f" + changes {git['changes']}" if git.get("changes") else ""
        facts["git"] = f"{str(git.get('commit'))[:12]}{changes}"
    packages = provenance.get("packages")
    if isinstance(packages, Mapping):
        facts |= {str(name): str(version) for name, version in packages.items()}
    components = provenance.get("components")
    if isinstance(components, Mapping):
        facts |= {str(name): str(version) for name, version in components.items()}
    plain = {key: provenance[key] for key in ("data", "device", "processes") if provenance.get(key) is not None}
    return facts | {key: str(value) for key, value in plain.items()}


def flatten(config: Any, key: str = "") -> dict[str, Any]:
    """Leaves of nested dicts by dotted key; an empty dict is a leaf."""
    if not isinstance(config, dict) or not config:
        return {key: config}
    parts = (flatten(value, f"{key}.{name}" if key else str(name)) for name, value in config.items())
    return {name: value for part in parts for name, value in part.items()}


def natural(text: str) -> list[tuple[int, int, str]]:
    """Sorting key by which `s2` stands before `s10`."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text)]


def _yaml(path: Path) -> Any:
    """Plain values of a YAML file, `${...}` as text; an empty dict if it cannot be read."""
    try:
        return OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException, RecursionError):
        return {}


def _resolved(config: Any) -> dict[str, Any]:
    """`${seed}` filled in; what calls a resolver stays text, for the file may be a stranger's and ask for `oc.env`."""
    if not isinstance(config, dict):
        return {}
    try:
        return OmegaConf.to_container(OmegaConf.create(_without_resolvers(config)), resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException:
        return config


def _without_resolvers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_resolvers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_resolvers(item) for item in value]
    calls = isinstance(value, str) and "${" in value and ":" in value
    return value.replace("${", "\\${") if calls else value


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error) or type(error).__name__
