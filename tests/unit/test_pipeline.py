"""The pipeline beside its components: what a stage's folder depends on, and what is said when memory runs out."""

from types import SimpleNamespace

import pytest
import torch

from fitdiff.training.health import TrainingError
from fitdiff.training.pipeline import Pipeline
from tests.smoke.test_configs import composed


def pipeline(*overrides):
    """One that knows its config and data, and nothing else."""
    bare = Pipeline.__new__(Pipeline)
    bare.config, bare.data_hash = composed(*overrides), "0"
    return bare


def hashes(*overrides):
    return [pipeline(*overrides)._hash(stage) for stage in ("autoencoder", "diffusion")]


@pytest.mark.parametrize(
    "override",
    [
        "trainer.compile=true", "trainer.gradient_accumulation=2", "trainer.loader_workers=3", "trainer.log_every=1",
        "trainer.keep_last=5", "autoencoder.checkpoint_activations=true",
    ],
)  # fmt: skip
def test_what_changes_no_more_than_rounding_continues_the_same_run(override):
    assert hashes(override) == hashes()


@pytest.mark.parametrize("override", ["seed=1", "trainer.mixed_precision=bf16", "autoencoder.channels=16"])
def test_what_changes_the_result_has_another_folder(override):
    assert all(mine != other for mine, other in zip(hashes(override), hashes(), strict=True))


def test_ablations_of_the_diffusion_share_the_autoencoder():
    mine, other = hashes("stage.diffusion.id_weight=0"), hashes()
    assert mine[0] == other[0]
    assert mine[1] != other[1]


def test_out_of_memory_names_the_settings(tmp_path):
    bare = pipeline("scale=paper")
    bare.model = SimpleNamespace(versions={})
    bare.trainer = SimpleNamespace(accelerator=SimpleNamespace(num_processes=2), run=lambda *_: torch.empty(2**60))
    expected = r"stage diffusion ran out of memory \(.*\). A batch of 16 over 2 process.*gradient_accumulation=2 \(4 at"
    with pytest.raises(TrainingError, match=expected):
        bare._train(SimpleNamespace(name="diffusion"), tmp_path, None)
