"""The pipeline beside its components: what a stage's folder depends on, and what is said when memory runs out."""

import importlib.util
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from fitdiff.registry import ComponentError
from fitdiff.training.health import TrainingError
from fitdiff.training.pipeline import Pipeline, _alone_in
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
        "trainer.compile=true", "trainer.gradient_accumulation=1", "trainer.skip_steps=[3,5]",
        "trainer.loader_workers=3", "trainer.log_every=1",
        "trainer.keep_last=5", "autoencoder.checkpoint_activations=true",
    ],
)  # fmt: skip
def test_what_changes_no_more_than_rounding_continues_the_same_run(override):
    assert hashes(override) == hashes()


def test_accumulation_is_rounding_unless_there_is_an_adversary():
    two, without = "trainer.gradient_accumulation=2", "stage.autoencoder.adversarial_weight=0"
    assert hashes(two, without) == hashes(without)
    assert all(mine != other for mine, other in zip(hashes(two), hashes(), strict=True))


def test_half_precision_without_the_range_that_an_adversary_needs_is_refused():
    with pytest.raises(TrainingError, match="fp16: the gradients that weigh the adversary vanish"):
        Pipeline(composed("trainer.mixed_precision=fp16"))


def test_a_dashboard_whose_package_is_missing_ends_the_run_before_anything_is_built(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked: None if asked == "alembic" else find(asked))
    monkeypatch.setattr(Pipeline, "_build_model", lambda _: pytest.fail("networks are built"))
    with pytest.raises(ComponentError, match="alembic is missing: pip install mlflow-skinny sqlalchemy alembic"):
        Pipeline(composed("tracker=mlflow"))


def test_two_runs_never_train_in_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("fitdiff.training.pipeline.PATIENCE", 0.0)
    folder = tmp_path / "stages" / "diffusion-0"
    message = f"another run is training {folder}"
    with _alone_in(folder), pytest.raises(TrainingError, match=message), _alone_in(folder):
        pytest.fail("it trains")
    with _alone_in(folder):
        pass


def test_who_waits_for_people_is_told_how_long(capsys):
    bare = pipeline()
    bare.trainer = SimpleNamespace(accelerator=SimpleNamespace(num_processes=2), is_main=True)
    bare.data, bare.console = SimpleNamespace(missing=lambda: ["a", "b"]), Console(stderr=True)
    bare._tell_of_waiting()
    assert "makes 2 files of people; the others wait for trainer.patience=7200 seconds" in capsys.readouterr().err


@pytest.mark.parametrize("override", ["seed=1", "trainer.mixed_precision=bf16", "autoencoder.channels=16"])
def test_what_changes_the_result_has_another_folder(override):
    assert all(mine != other for mine, other in zip(hashes(override), hashes(), strict=True))


def test_seeds_of_the_diffusion_stage_can_share_an_autoencoder():
    plain, other, shared = hashes(), hashes("seed=1"), hashes("seed=1", "autoencoder_seed=0")
    assert shared[0] == plain[0] != other[0]
    assert len({plain[1], other[1], shared[1]}) == 3
    assert hashes("autoencoder_seed=0") == plain


def test_the_seed_of_a_stage_initialises_its_network():
    def weights(*overrides):
        model = pipeline(*overrides)
        torch.manual_seed(model._seed("autoencoder"))
        model = model._build_model()
        return [torch.cat([p.flatten() for p in part.parameters()]) for part in (model.autoencoder, model.denoiser)]

    plain, shared, other = weights(), weights("seed=1", "autoencoder_seed=0"), weights("seed=1")
    assert torch.equal(shared[0], plain[0])
    assert not torch.equal(shared[1], plain[1])
    assert not torch.equal(other[0], plain[0])


@pytest.mark.parametrize("stages", ["[latents,diffusion]", "[diffusion]", "[diffusion,autoencoder]", "[]", "[gan]"])
def test_a_stage_is_never_run_without_those_before_it(stages):
    with pytest.raises(TrainingError, match="or its beginning: a stage needs those before it"):
        Pipeline(composed(f"model.stages={stages}"))


def test_the_folders_of_stages_are_seen_from_the_runs(tmp_path):
    mine = pipeline(f"outputs={tmp_path}")
    mine.run_dir = tmp_path / "run"
    for stage, folder in mine._stage_folders(["autoencoder", "diffusion"]).items():
        assert (mine.run_dir / folder).resolve() == mine._folder(stage).resolve()
        assert not folder.startswith("/")


def test_ablations_of_the_diffusion_share_the_autoencoder():
    mine, other = hashes("stage.diffusion.id_weight=0"), hashes()
    assert mine[0] == other[0]
    assert mine[1] != other[1]


def run_with(diffusion, *overrides):
    """Run stages of which only the diffusion does something."""
    bare = pipeline(*overrides)
    accelerator = SimpleNamespace(num_processes=2)
    bare.trainer, bare.data = SimpleNamespace(accelerator=accelerator, is_main=False), SimpleNamespace(prepare=list)
    bare._autoencoder = bare._latents = dict
    bare._diffusion = diffusion
    return bare._run(["autoencoder", "latents", "diffusion"])


def bare_memory_error():
    raise MemoryError  # as Python itself does


@pytest.mark.parametrize(
    ("lack", "reason"), [(lambda: torch.empty(2**60), ".*allocate.*"), (bare_memory_error, "MemoryError")]
)
def test_out_of_memory_names_the_settings(lack, reason):
    with pytest.raises(TrainingError, match=rf"stage diffusion ran out of memory \({reason}\). A batch of 16 over 2 p"):
        run_with(lack, "scale=paper")
