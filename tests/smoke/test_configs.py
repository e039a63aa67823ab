"""Every scale and experiment composes, and the networks of every scale build."""

import re
import sys

import pytest
import torch
from hydra import compose, initialize_config_dir

from experiments.ablation.grid import jobs_of
from fitdiff.cli import prepare
from fitdiff.config import plain
from fitdiff.diffusion.separate import build_separate
from fitdiff.evaluation.command import scaled
from fitdiff.latent import LatentSpace
from fitdiff.registry import build
from tests.conftest import ROOT

SCALES = sorted(p.stem for p in (ROOT / "conf" / "scale").glob("*.yaml"))


def composed(*overrides: str):
    sys.argv[1:], kept = [], sys.argv[1:]
    prepare()
    sys.argv[1:] = kept
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", overrides=["name=test", *overrides])


@pytest.mark.parametrize("scale", SCALES)
def test_the_networks_of_every_scale_build(scale):
    config = composed(f"scale={scale}")
    with torch.device("meta"):
        autoencoder = build(config.autoencoder, "autoencoder", resolution=config.resolution)
        length = -(-(config.shape_model.n_identity + autoencoder.latent_shape[1] ** 2) // 8) * 8
        denoiser = build(config.denoiser, "denoiser", length=length, embedding_dim=512)
    assert denoiser.length == length
    assert sum(p.numel() for p in denoiser.parameters()) > 1e6
    assert autoencoder.latent_shape == (1, config.resolution // 8, config.resolution // 8)


@pytest.mark.parametrize("scale", SCALES)
def test_separate_models_have_the_budget_of_one_at_every_scale(scale):
    config = composed(f"scale={scale}", "model=fitdiff_separate")
    assert config.model.separate
    dim = 512 if config.identity._target_.endswith("ArcFace") else 128
    latent = LatentSpace(config.shape_model.n_identity, (1, config.resolution // 8, config.resolution // 8))
    with torch.device("meta"):
        one = build(config.denoiser, "denoiser", length=latent.length, embedding_dim=dim)
        two = build_separate(config.denoiser, latent.parts, latent.length, latent.multiple, dim)
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in (one, two)]
    assert counts[1] == pytest.approx(counts[0], rel=0.02)


def test_paper_scale_selects_the_papers_networks():
    config = composed("scale=paper")
    assert config.identity._target_.endswith("ArcFace")
    assert config.landmarks._target_.endswith("FaceAlignmentNetwork")
    assert config.perceptual._target_.endswith("LpipsVgg")
    assert config.guidance.vgg.backbone == "lpips"


def experiments(primary):
    """Those whose own command, in the second line of the file, is of this entry point."""
    for path in sorted((ROOT / "conf" / "experiment").glob("*.yaml")):
        command = re.match(r"# @package _global_\n# python (\w+)\.py experiment=(\w+)", path.read_text())
        assert command, f"{path}: the second line must be its command"
        assert command[2] == path.stem
        if command[1] == primary:
            yield path.stem


@pytest.mark.parametrize("name", list(experiments("train")))
def test_every_training_experiment_composes_and_builds(name):
    jobs = jobs_of("train", [f"experiment={name}"])
    assert len({job.config.name for job in jobs}) == len(jobs), "each run needs a name of its own"
    assert all(job.config.name.startswith(f"{name}/") for job in jobs)
    assert len({(job.config.autoencoder_seed, job.config.stage.diffusion.steps) for job in jobs}) == 1
    for node in {str(job.config.denoiser): job.config.denoiser for job in jobs}.values():
        with torch.device("meta"):
            assert build(node, "denoiser", length=160, embedding_dim=128).length == 160


@pytest.mark.parametrize("name", list(experiments("evaluate")))
def test_every_evaluation_experiment_composes_and_builds(name):
    jobs = jobs_of("evaluate", [f"experiment={name}"])
    assert len({str(job.config) for job in jobs}) == len(jobs), "two jobs are the same"
    for job in jobs:
        scaled(plain(job.config.guidance), plain(job.config.factors))
        build(job.config.fitting, "fitting")
    assert callable(build(jobs[0].config.benchmark, "benchmark"))


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
