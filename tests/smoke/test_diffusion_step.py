"""One real step of the diffusion stage, all four terms, on tiny people: what is frozen, how precise, and apart."""

from types import SimpleNamespace

import pytest
import skimage.data
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from torch import nn

from fitdiff import FitDiff
from fitdiff.registry import build
from fitdiff.training.latents import open_latents, write_latents
from fitdiff.training.pipeline import Pipeline
from tests.conftest import TINY, run
from tests.smoke.test_configs import composed

FROZEN = ("shape_model", "autoencoder", "identity", "renderer")
EVERY_STEP = [f"stage.diffusion.{name}" for name in ("render_every=1", "steps=1", "id_weight=1", "per_weight=1", "verts_weight=1")]  # fmt: skip # noqa: E501


@pytest.fixture(autouse=True)
def own_accelerator():
    """Accelerate remembers the first precision of a process."""
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


@pytest.fixture
def prepare(tiny_run, tmp_path):
    """Build model, stage and trainer as `train.py` does, on the people of the tiny run."""

    def build_stage(*overrides: str) -> SimpleNamespace:
        folder = tiny_run.parent
        where = (f"outputs={tmp_path}", f"data.cache={folder}/cache", "tracker=none")
        config = composed(*TINY, *EVERY_STEP, *where, *overrides)
        pipeline = Pipeline(config)
        splits, latents = {"train": pipeline.data.train, "held_out": pipeline.data.held_out}, {}
        for split, data in splits.items():
            write_latents(pipeline.model, data, tmp_path / split)
            latents[split] = open_latents(data, tmp_path / split, 1e9)
        stage = build(config.stage.diffusion, "stage", model=pipeline.model, latents=latents, seed=0, **splits)
        for parameter in pipeline.model.denoiser.parameters():  # layers that start at 0 would let no gradient through
            if not parameter.any():
                nn.init.normal_(parameter, std=0.05)
        return SimpleNamespace(model=pipeline.model, stage=stage, trainer=pipeline.trainer)

    return build_stage


def tensors_of(module):
    """Parameters and buffers, also those that no checkpoint holds."""
    return [*module.parameters(), *module.buffers()]


def losses(stage, step=0):
    rows = torch.arange(stage.batch_size)
    batch = {**stage.batch(rows.tolist(), rows, step), "row": rows}
    ((_, loss, terms),) = stage.losses(batch, step)
    return loss, terms


def test_what_the_loss_looks_through_is_frozen_and_float32(prepare, tmp_path):
    made = prepare("trainer.mixed_precision=bf16", "trainer.evaluate_every=100")
    model, seen, mixed = made.model, {name: set() for name in FROZEN}, []
    parts = {name: module for name in FROZEN if isinstance(module := getattr(model, name), nn.Module)}

    def note(name):
        def hook(module, inputs, output):
            tensors = [output] if isinstance(output, torch.Tensor) else [output.image] if name == "renderer" else []
            seen[name] |= {torch.is_autocast_enabled("cpu"), *(tensor.dtype for tensor in tensors)}

        return hook

    for name, part in parts.items():
        for module in part.modules():
            module.register_forward_hook(note(name))
    inner = next(module for module in model.denoiser.modules() if isinstance(module, nn.Conv1d))
    inner.register_forward_hook(lambda module, inputs, output: mixed.append(output.dtype))
    before = {name: [tensor.clone() for tensor in tensors_of(part)] for name, part in parts.items()}
    learned = {key: value.clone() for key, value in model.denoiser.state_dict().items()}
    stage = made.stage
    stage.evaluate = lambda averages: {"noise_loss": 0.0}
    stage.preview = lambda averages: {}
    made.trainer.run(
        stage, tmp_path / "stage", {}, {}, 0, SimpleNamespace(log=lambda *_: None, log_images=lambda *_: None)
    )

    assert torch.bfloat16 in mixed  # the denoiser did run in mixed precision
    assert seen == {name: {torch.float32, False} for name in parts}
    for name, part in parts.items():
        assert before[name] or name == "renderer"
        assert all(torch.equal(now, then) for now, then in zip(tensors_of(part), before[name], strict=True))
        assert not any(module.training for module in part.modules())
        assert all(not p.requires_grad and p.grad is None for p in part.parameters())
    assert any(not torch.equal(model.denoiser.state_dict()[key], value) for key, value in learned.items())


def test_stored_embeddings_are_those_of_the_portraits(prepare):
    """So the target's embedding need not be computed again; its activations are (see the stage for the numbers)."""
    from fitdiff.alignment.crop import crop, crop_transform

    made = prepare()
    people = made.stage.train.gather(range(4), ("image", "landmarks", "embedding"))
    network = made.model.identity
    portraits = people["image"].flatten(0, 1).float() / 255
    crops = crop(portraits, crop_transform(network, people["landmarks"].flatten(0, 1)), network.size)
    torch.testing.assert_close(network(crops).embedding, people["embedding"].flatten(0, 1), rtol=0, atol=1e-4)


def gradients(network):
    return [parameter.grad.clone() for parameter in network.parameters()]


def test_separate_models_do_not_learn_from_each_other(prepare):
    """All four terms together: the gradient of either model does not notice what the other one is."""
    made = prepare("model=fitdiff_separate")
    shape, maps = made.model.denoiser.network.networks
    loss, terms = losses(made.stage)
    assert {"loss_noise", "loss_verts", "loss_id", "loss_per"} == set(terms)
    loss.backward()
    kept = {"shape": gradients(shape), "maps": gradients(maps)}
    for name, own, other in (("shape", shape, maps), ("maps", maps, shape)):
        before = {key: value.clone() for key, value in other.state_dict().items()}
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        made.model.denoiser.zero_grad()
        changed, _ = losses(made.stage)
        changed.backward()
        other.load_state_dict(before)
        assert not torch.equal(changed, loss)  # the other one did change
        assert all(gradient.any() for gradient in kept[name])
        for gradient, expected in zip(gradients(own), kept[name], strict=True):
            torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-6 * expected.abs().max().item())


def test_both_separate_models_learn_from_renderings(prepare):
    made = prepare("model=fitdiff_separate")
    shape, maps = made.model.denoiser.network.networks
    _, terms = losses(made.stage)
    for name in ("loss_id", "loss_per"):
        for network in (shape, maps):
            gradient = torch.autograd.grad(
                terms[name], list(network.parameters()), retain_graph=True, allow_unused=True
            )
            assert sum(g.abs().sum() for g in gradient if g is not None) > 0
    only_shape = torch.autograd.grad(terms["loss_verts"], list(maps.parameters()), retain_graph=True, allow_unused=True)
    assert all(g is None or not g.any() for g in only_shape)


def test_separate_models_train_and_fit_a_photo(tiny_run, tmp_path):
    folder = tiny_run.parent
    where = (f"outputs={folder}", f"data.cache={folder}/cache", "tracker=none")
    done = run("train.py", *TINY, *where, "model=fitdiff_separate", "name=separate")
    assert done.stderr.count("skipped") == 2  # autoencoder and latents are those of the single model
    photo = tmp_path / "astronaut.png"
    Image.fromarray(skimage.data.astronaut()).save(photo)
    run("fit.py", f"photo={photo}", f"checkpoint={folder}/separate/model", f"out={tmp_path}/fit", "fitting.steps=2",
        "fitting.size=96", "fitting.cfg_scale=2", "guidance=[id_cos,landmarks]")  # fmt: skip
    assert (tmp_path / "fit" / "avatar.glb").exists()
    model = FitDiff.load(folder / "separate" / "model", "cpu")
    assert model.separate
    assert len(model.denoiser.network.networks) == 2
    assert model.sample(1, steps=2).z.shape == (1, model.latent.length)
