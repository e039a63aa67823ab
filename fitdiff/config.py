"""Root schemas of the entry points: a misspelt key is an error before anything is built.

Groups (`renderer`, `autoencoder`, ...) are typed by the registry, from each component's constructor.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import MISSING, DictConfig, OmegaConf


@dataclass
class ModelConfig:
    """What `model=` chooses: the stages to run, in order."""

    stages: list[str] = MISSING
    separate: bool = False  # two diffusion models, for shape and for reflectance, with the parameters of one


@dataclass
class TrainConfig:
    """`train.py`. Every group is a registry kind."""

    name: str = MISSING  # the run's folder under outputs/
    resolution: int = MISSING  # side R of the UV maps in texels, a power of two
    prediction: str = "noise"  # what the network gives: noise (the paper) or velocity
    seed: int = 0
    autoencoder_seed: int | None = None  # of the stages before diffusion, so that seeds share them; null: seed
    outputs: str = "outputs"
    latents_gb: float = 4.0  # 1e9 bytes of map latents that each process may hold; more are read from disk at each step
    model: ModelConfig = field(default_factory=ModelConfig)
    data: Any = MISSING
    shape_model: Any = MISSING
    autoencoder: Any = MISSING
    denoiser: Any = MISSING
    schedule: Any = MISSING
    identity: Any = MISSING
    renderer: Any = MISSING
    perceptual: Any = MISSING
    stage: dict[str, Any] = MISSING
    trainer: Any = MISSING
    tracker: dict[str, Any] = MISSING
    detector: Any = MISSING  # the scale's default for fitting; stored with the model
    landmarks: Any = MISSING
    guidance: dict[str, Any] = MISSING
    sampler: Any = MISSING
    fitting: Any = MISSING


@dataclass
class PrepareConfig(TrainConfig):
    """`prepare.py`: the settings of `train.py`, of which those of the data and what it is made with matter."""

    shards: int = 1  # jobs that share the work
    shard: int = 0  # which of them this is
    check: bool = False  # make nothing, say what is missing


@dataclass
class FitConfig:
    """`fit.py`. Groups left null come from the checkpoint."""

    photo: str = ""  # a photo, a folder, a video, or a list [a.jpg,b.jpg]
    checkpoint: str = "outputs/fitdiff-laptop/model"  # folder written by train.py
    out: str | None = None  # result folder; null: outputs/fits/<name>; of an album, with digits of its path
    person: str = "each"  # each: every photo is of a person of its own; shared: all are of one
    faces: str = "largest"  # of each photo: largest, all, or a number (1 is the largest)
    every: int = 1  # of a video, take each n-th frame
    batch: int = 8  # fits at once; the samples of one photo are never apart
    samples: int = 1  # fits of each person from as many noises, of which the best is taken
    seed: int = 0
    device: str = "auto"  # auto | cpu | cuda | cuda:1 ...
    sampler: Any = MISSING
    guidance: dict[str, Any] = MISSING
    fitting: Any = MISSING
    detector: Any = MISSING
    landmarks: Any = MISSING
    renderer: Any = MISSING


@dataclass
class EvaluateConfig:
    """`evaluate.py`. Groups left null come from the checkpoint."""

    benchmark: Any = MISSING
    checkpoint: str = "outputs/fitdiff-laptop/model"  # folder written by train.py
    name: str | None = None  # null: <benchmark>-<run>-<digits of the settings>
    outputs: str = "outputs"
    out: str | None = None  # result folder; null: <outputs>/evaluations/<name>
    factors: dict[str, float] = field(default_factory=dict)  # multiply weights of guidance terms; 0 leaves one out
    batch: int = 8  # fits at once
    samples: int = 1  # fits of each photo from as many noises, of which the best is taken
    seed: int = 0
    device: str = "auto"
    sampler: Any = MISSING
    guidance: dict[str, Any] = MISSING
    fitting: Any = MISSING
    detector: Any = MISSING
    landmarks: Any = MISSING
    renderer: Any = MISSING
    tracker: dict[str, Any] = MISSING


@dataclass
class SampleConfig:
    """`sample.py`."""

    checkpoint: str = "outputs/fitdiff-laptop/model"
    photo: str | None = None  # whose identity: a photo, or an embedding (.npy); null: unconditional
    face: str | None = None  # whose face: the folder of a fit or of samples
    row: int = 0  # which face of that folder
    keep: str | None = None  # shape | reflectance: of `face`, and draw the rest anew
    to: str | None = None  # walk from `photo` or `face` to this photo, embedding or folder
    to_row: int = 0  # which face of that folder
    edit: dict[str, float] = field(default_factory=dict)  # move `face` along shape_K or expressions
    texture: str | None = None  # complete this partial UV map of the diffuse albedo; visible: what `photo` shows
    mask: str | None = None  # what of it is known: white in this picture; null: its alpha channel
    n: int = 8
    steps: int = 50  # sampler steps
    cfg_scale: float = 1.0  # classifier-free guidance; 1 is off, 0 is unconditional
    avatars: bool = False  # also write every sample as an avatar folder
    out: str | None = None  # null: outputs/samples/<name of photo, face or texture, or 'unconditional'>
    seed: int = 0
    device: str = "auto"
    sampler: Any = MISSING
    guidance: dict[str, Any] = MISSING  # of the fit that texture=visible begins with; so is `fitting`
    fitting: Any = MISSING
    detector: Any = MISSING
    landmarks: Any = MISSING


def register_schemas() -> None:
    """Store the root schemas for the primary configs' defaults lists, and what their `--help` is made with."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="prepare_schema", node=PrepareConfig)
    store.store(name="fit_schema", node=FitConfig)
    store.store(name="evaluate_schema", node=EvaluateConfig)
    store.store(name="sample_schema", node=SampleConfig)
    OmegaConf.register_new_resolver("groups", _groups, replace=True)


def _groups(*, _root_: DictConfig) -> str:
    """`${groups:}`: the groups that a command has, and what each may be; its experiments stand in the text below.

    (Hydra's own list has the groups of all commands.)
    """
    loader = GlobalHydra.instance().config_loader()
    groups = sorted(g for g in _root_.hydra.runtime.choices if not g.startswith("hydra/") and g != "experiment")
    return "\n".join(f"{group}: {', '.join(loader.get_group_options(group))}" for group in groups)


def plain(node: Any) -> Any:
    """Resolved plain containers of a config node."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def config_hash(*parts: Any) -> str:
    """Twelve hex digits that depend on the resolved values alone, not on their order."""
    text = json.dumps([plain(part) for part in parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def select(config: DictConfig, *keys: str) -> dict[str, Any]:
    """The named top-level parts of a config, resolved."""
    return {key: plain(config[key]) for key in keys}
