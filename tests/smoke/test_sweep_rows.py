"""Every row of every sweep file composes through Hydra for its entry point, and what it varies builds."""

import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fitdiff.cli import prepare
from fitdiff.config import plain
from fitdiff.data.shards import MemorySamples
from fitdiff.diffusion.separate import build_separate
from fitdiff.latent import LatentSpace
from fitdiff.registry import build
from fitdiff.sweep.spec import Choice, read_spec
from tests.conftest import ROOT

FILES = sorted((ROOT / "sweeps").glob("*.yaml"))


def rows(spec):
    """All of a grid; of a search, its corners and four draws."""
    if spec.method == "grid":
        return spec.rows()
    draw = np.random.default_rng(0)

    def value(p):
        return draw.choice(p.values) if isinstance(p, Choice) else p.spell(draw.uniform(p.low, p.high))

    return [*spec.corners(), *({key: value(p) for key, p in spec.parameters.items()} for _ in range(4))]


@pytest.fixture(scope="module")
def hydra():
    sys.argv[1:], kept = [], sys.argv[1:]
    prepare()
    sys.argv[1:] = kept
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_every_row_composes_and_builds(path, hydra):
    """What it says of a key is what arrives there, and what is built of it has that."""
    spec = read_spec(path)
    entry = spec.program.removesuffix(".py")
    built = {}
    for row in rows(spec):
        overrides = [*(f"{key}={value}" for key, value in row.items()), "name=test"]
        config = compose(entry, overrides=overrides, return_hydra_config=True)
        for key, value in row.items():
            assert spelled(config, key) in (value, number(value))
        build_training(config, built) if entry == "train" else build_evaluation(config, built)


def spelled(config, key):
    """A value as a sweep file's: of a group, its choice; of numbers, the number."""
    value = OmegaConf.select(config, key, throw_on_missing=True)
    if OmegaConf.is_dict(value):
        return config.hydra.runtime.choices[key]
    return f"[{','.join(map(str, value))}]" if OmegaConf.is_list(value) else value


def number(text):
    try:
        return float(text)
    except ValueError:
        return text


def test_no_sweep_writes_into_an_experiments_folder():
    """Both write to `outputs/<name>`, where the report would count one's runs as the other's."""
    experiments = {path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")}
    assert not experiments & {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_wandbs_agent_gives_each_trial_a_folder_of_its_own(path, hydra, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "k3v1n")
    spec = read_spec(path)
    words = [word for word in spec.command if not word.startswith("${")]
    config = compose(spec.program.removesuffix(".py"), overrides=words)
    assert config.name == f"{path.stem}/k3v1n"


def once(built, kind, node, make):
    """What `make` makes of a config node, made once for all rows that have the same."""
    key = kind, str(plain(node))
    if key not in built:
        built[key] = make()
    return built[key]


def build_evaluation(config, built):
    once(built, "benchmark", config.benchmark, lambda: build(config.benchmark, "benchmark"))
    for name, node in config.guidance.items():
        term = once(built, name, node, partial(build, node, "guidance"))
        assert term.weight == node.weight


def build_training(config, built):
    """The networks, without memory for their weights, and the stage that trains the denoiser."""
    latent = LatentSpace(config.shape_model.n_identity, (1, config.resolution // 8, config.resolution // 8))
    networks = once(built, config.model.separate, config.denoiser, lambda: build_networks(config, latent))
    stage = once(built, "stage", config.stage.diffusion, lambda: build_stage(config, latent, networks))
    asked = config.stage.diffusion
    assert (stage.steps, stage.batch_size, stage.peak_rate) == (asked.steps, asked.batch_size, asked.learning_rate)
    assert stage.weights == {"id": asked.id_weight, "per": asked.per_weight, "verts": asked.verts_weight}


def build_networks(config, latent):
    with torch.device("meta"):
        build(config.autoencoder, "autoencoder", resolution=config.resolution)
        whole = build(config.denoiser, "denoiser", length=latent.length, embedding_dim=128)
        parts = build_separate(config.denoiser, latent.parts, latent.length, latent.multiple, 128)
    return parts if config.model.separate else whole


def build_stage(config, latent, denoiser):
    """Of two people, who are noise."""
    people = MemorySamples({"latent": torch.rand(2, *latent.latent_shape), "embedding": torch.rand(2, 1, 128)})
    runtime = {"model": SimpleNamespace(latent=latent, denoiser=denoiser), "latents": {"train": people}}
    return build(config.stage.diffusion, "stage", **runtime, train=people, held_out=people, seed=config.seed)
