"""Every row of every sweep file composes through Hydra for its entry point, and what it varies builds."""

import sys

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fitdiff.cli import prepare
from fitdiff.config import plain
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
    spec = read_spec(path)
    entry = spec.program.removesuffix(".py")
    built = set()
    for row in rows(spec):
        config = compose(entry, overrides=[*(f"{key}={value}" for key, value in row.items()), "name=test"])
        for key, value in row.items():
            arrived = OmegaConf.select(config, key)
            assert not isinstance(arrived, (int, float)) or arrived == float(value)
        parts = plain(config.denoiser if entry == "train" else config.benchmark)
        if str(parts) not in built:
            built.add(str(parts))
            build_networks(config) if entry == "train" else build(config.benchmark, "benchmark")
    assert len(spec.parameters) == len(row)
    assert built


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_wandbs_agent_gives_each_trial_a_folder_of_its_own(path, hydra, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "k3v1n")
    spec = read_spec(path)
    words = [word for word in spec.command if not word.startswith("${")]
    config = compose(spec.program.removesuffix(".py"), overrides=words)
    assert config.name == f"{path.stem}/k3v1n"


def build_networks(config):
    latent = LatentSpace(config.shape_model.n_identity, (1, config.resolution // 8, config.resolution // 8))
    with torch.device("meta"):
        build(config.autoencoder, "autoencoder", resolution=config.resolution)
        build(config.denoiser, "denoiser", length=latent.length, embedding_dim=128)
        build_separate(config.denoiser, latent.parts, latent.length, latent.multiple, 128)
