"""Every scale, experiment and sweep row composes, and the networks of every scale build."""

import itertools
import sys

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir

from fitdiff.cli import prepare
from fitdiff.registry import build
from tests.conftest import ROOT


def composed(*overrides: str):
    sys.argv[1:], kept = [], sys.argv[1:]
    prepare()
    sys.argv[1:] = kept
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", overrides=["name=test", *overrides])


@pytest.mark.parametrize("scale", sorted(p.stem for p in (ROOT / "conf" / "scale").glob("*.yaml")))
def test_the_networks_of_every_scale_build(scale):
    config = composed(f"scale={scale}")
    with torch.device("meta"):
        autoencoder = build(config.autoencoder, "autoencoder", resolution=config.resolution)
        length = -(-(config.shape_model.n_identity + autoencoder.latent_shape[1] ** 2) // 8) * 8
        denoiser = build(config.denoiser, "denoiser", length=length, embedding_dim=512)
    assert denoiser.length == length
    assert sum(p.numel() for p in denoiser.parameters()) > 1e6
    assert autoencoder.latent_shape == (1, config.resolution // 8, config.resolution // 8)


def test_paper_scale_holds_every_printed_number():
    config = composed("scale=paper")
    assert dict(config.autoencoder) | {
        "channels": 128, "channel_multipliers": [1, 2, 2, 4], "res_blocks": 2, "attention_resolutions": [32],
        "z_channels": 4, "embed_dim": 1, "codebook_size": 16384,
    } == dict(config.autoencoder)  # fmt: skip
    assert dict(config.denoiser) | {
        "channels": 192, "channel_multipliers": [1, 2, 4, 8], "depth": 2, "heads": 4, "head_channels": 32,
        "spade_dim": 128, "cond_dim": 1048,
    } == dict(config.denoiser)  # fmt: skip
    assert config.schedule.steps == 1000
    assert config.stage.autoencoder.batch_size == config.stage.diffusion.batch_size == 16
    assert config.stage.diffusion.learning_rate == pytest.approx(3.2e-5)
    assert config.stage.diffusion.epochs == 800
    assert config.identity._target_.endswith("ArcFace")
    assert "lpips" in config.guidance.vgg.backbone


def test_lambdas_of_equation_4():
    guidance = composed().guidance
    weights = {name: term.weight for name, term in guidance.items()}
    assert weights == {"id_cos": 1.0, "id_per": 50.0, "mse": 10.0, "landmarks": 200.0, "vgg": 1.0}
    assert (composed().fitting.scale, composed().fitting.steps) == (75.0, 50)


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "conf" / "experiment").glob("*.yaml")))
def test_every_experiment_composes(name):
    assert composed(f"experiment={name}").stage.diffusion._target_


def sweep_rows():
    for path in sorted((ROOT / "sweeps").glob("*.yaml")):
        parameters = yaml.safe_load(path.read_text())["parameters"]
        values = [p.get("values", [p.get("value", p.get("min"))]) for p in parameters.values()]
        for row in itertools.product(*values):
            yield pytest.param([f"{k}={v}" for k, v in zip(parameters, row, strict=True)], id=f"{path.stem}-{row}")


@pytest.mark.parametrize("row", list(sweep_rows()))
def test_every_sweep_row_composes(row):
    assert composed(*row).name == "test"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("renderer=mitsuba", "Available options(?s:.*)torch"),
        ("stage.diffusion.stepz=3", "stepz"),
        ("resolution=big", "Error merging override resolution=big"),
        ("denoiser.channels=wide", "Error merging override denoiser.channels=wide"),
    ],
)
def test_mistakes_are_named(override, message):
    with pytest.raises(Exception, match=message):
        composed(override)
