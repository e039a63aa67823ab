"""Model folders: what was saved comes back, and a stranger's folder runs no code, reads no secret, eats no memory."""

import json
import os
import pickle

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from fitdiff.model import COMPONENTS, DEFAULTS, CheckpointError, FitDiff
from fitdiff.registry import ComponentError, config_of, names
from tests.conftest import run

DEFAULT_NAMES = {
    "shape_model": "anny_face", "autoencoder": "vqgan", "denoiser": "spade_unet1d", "schedule": "scaled_linear",
    "identity": "dlib", "renderer": "torch", "sampler": "ddim", "fitting": "guided", "detector": "mtcnn",
    "landmarks": "dlib68",
}  # fmt: skip
SMALL = {
    "autoencoder": {"channels": 8, "channel_multipliers": [1, 2], "res_blocks": 1, "codebook_size": 64},
    "denoiser": {"channels": 16, "channel_multipliers": [1, 2, 2, 2], "depth": 1, "spade_dim": 8, "cond_dim": 16},
}


def config(**own) -> dict:
    nodes = {kind: config_of(kind, DEFAULT_NAMES[kind], **SMALL.get(kind, {})) for kind in DEFAULT_NAMES}
    nodes["guidance"] = {name: config_of("guidance", name) for name in names("guidance")}
    assert set(nodes) == {*COMPONENTS, *DEFAULTS}
    return {"resolution": 16, "prediction": "noise", "separate": False, **nodes, **own}


@pytest.fixture(scope="module")
def model() -> FitDiff:
    torch.manual_seed(0)
    return FitDiff(config())


@pytest.fixture
def folder(model, tmp_path):
    return model.save(tmp_path / "model")


def edit(folder, key: str, value) -> None:
    """Set `a.b.c` in the folder's config."""
    path = folder / "config.json"
    node = whole = json.loads(path.read_text())
    *outer, last = key.split(".")
    for name in outer:
        node = node[name]
    node[last] = value
    path.write_text(json.dumps(whole))


def test_a_model_comes_back(model, folder):
    loaded = FitDiff.load(folder, "cpu")
    assert loaded.config == model.config
    for name, part in model._trained().items():
        assert all(torch.equal(a, b) for a, b in zip(part.state_dict().values(), loaded._trained()[name].state_dict().values(), strict=True))  # fmt: skip # noqa: E501
    assert not any(p.requires_grad for p in loaded.parameters())
    assert all(tensor.device.type == "cpu" for tensor in loaded.state_dict().values())


def test_weights_without_a_seal_are_loaded(folder):
    """Folders written before configs sealed their weights."""
    path = folder / "config.json"
    whole = json.loads(path.read_text())
    del whole["weights"]
    path.write_text(json.dumps(whole))
    FitDiff.load(folder, "cpu")


def test_weights_that_are_not_the_configs_are_refused(model, folder):
    path = folder / "weights.safetensors"
    other = {name: tensor + 1 for name, tensor in load_file(path).items()}
    save_file(other, path)  # the same names, shapes and size: as after a copy that was cut between the two files
    with pytest.raises(CheckpointError, match=r"has changed|bytes"):
        FitDiff.load(folder, "cpu")


def test_no_weights(folder):
    (folder / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        FitDiff.load(folder, "cpu")


EVIL = {"_target_": "os.mkdir", "path": "owned"}


@pytest.mark.parametrize("kind", COMPONENTS)
def test_only_registered_components_are_built(folder, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    for node in (
        EVIL,
        {**config()[kind], "_args_": ["owned"]},
        {**config()[kind], "_partial_": True},
        {**config()[kind], "path": EVIL},
        {**config()[kind], "path": [[EVIL]]},
        "os.mkdir",
        [EVIL],
        None,
    ):
        edit(folder, kind, node)
        with pytest.raises((ComponentError, CheckpointError)):
            FitDiff.load(folder, "cpu")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("kind", DEFAULTS)
def test_defaults_of_a_fit_are_registered_components_too(folder, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    edit(folder, kind, {"mse": EVIL} if kind == "guidance" else EVIL)
    loaded = FitDiff.load(folder, "cpu")
    with pytest.raises(ComponentError, match=r"'os.mkdir' is not a registered"):
        loaded.fit(skimage.data.astronaut())
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "text", ["${oc.env:SECRET}", "${oc.decode:${oc.env:SECRET}}", "${hydra:runtime.cwd}", "${evil:1}"]
)
@pytest.mark.parametrize(
    "key", ["identity.weights", "denoiser.channels", "resolution", "prediction", "shape_model.n_identity"]
)
def test_interpolations_stay_text(folder, monkeypatch, key, text):
    from omegaconf import OmegaConf

    called = []
    OmegaConf.register_new_resolver("evil", called.append, replace=True)
    monkeypatch.setenv("SECRET", "hunter2")
    edit(folder, key, text)
    with pytest.raises((CheckpointError, FileNotFoundError)) as refusal:
        FitDiff.load(folder, "cpu")
    assert "hunter2" not in str(refusal.value)
    assert not called
    OmegaConf.clear_resolver("evil")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("denoiser.channels", 10**9, r"denoiser.channels is 1000000000, but the checkpoint's weights are \d+ numbers"),
        ("denoiser.channel_multipliers", [10**9], r"channel_multipliers.0 is 1000000000"),
        ("autoencoder.codebook_size", 1e300, "codebook_size is 1e"),
        ("autoencoder.codebook_size", float("inf"), "codebook_size is inf"),
        ("autoencoder.channels", float("nan"), "channels is nan"),
        ("schedule.steps", 10**10, "schedule.steps is"),
        ("resolution", 2**40, "resolution is"),
        ("denoiser.channels", 4096, "denoiser/.* has shape"),  # plausible alone: 10 GB that the weights do not have
        ("autoencoder.codebook_size", 65, r"codebook.* has shape \[64, 1\], expected \[65, 1\]"),
        ("shape_model.n_identity", 10**9, "n_identity is 1000000000"),
        ("shape_model.subdivisions", 30, "subdivisions is 30"),
        ("shape_model.population", 10**9, "population 1000000000"),
    ],
)
def test_absurd_sizes_are_refused_before_they_get_memory(folder, monkeypatch, key, value, message):
    edit(folder, key, value)
    with pytest.raises(CheckpointError, match=message):
        FitDiff.load(folder, "cpu")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weights", 7),
        ("weights", []),
        ("denoiser.channel_multipliers", []),
        ("autoencoder.channel_multipliers", []),
        ("denoiser.heads", 0),
        ("denoiser.channels", 0),
        ("autoencoder.channels", 0),
        ("schedule.steps", 0),
        ("resolution", 0),
        ("resolution", None),
    ],
)
def test_values_that_make_no_model_are_refused(folder, key, value):
    edit(folder, key, value)
    with pytest.raises(CheckpointError):
        FitDiff.load(folder, "cpu")


class Evil:
    def __reduce__(self):
        return os.mkdir, ("owned",)


@pytest.mark.parametrize(
    ("kind", "name", "option"),
    [
        ("identity", "facenet", "weights"),
        ("identity", "arcface", "weights"),
        ("identity", "dlib", "weights"),
        ("shape_model", "flame", "path"),
        ("shape_model", "bfm", "path"),
        ("shape_model", "pca_npz", "path"),
    ],
)
@pytest.mark.parametrize("suffix", ["pkl", "pt", "safetensors", "npz", "npy", "mat"])
def test_files_that_a_config_points_to_are_not_unpickled(folder, tmp_path, monkeypatch, kind, name, option, suffix):
    monkeypatch.chdir(tmp_path)
    file = folder / f"evil.{suffix}"
    if suffix in ("npz", "npy"):
        {"npz": np.savez, "npy": np.save}[suffix](file, np.array([Evil()], dtype=object))
    elif suffix == "pt":
        torch.save({"weight": Evil()}, file)
    else:
        file.write_bytes(pickle.dumps(Evil()))
    edit(folder, kind, {**config_of(kind, name), option: str(file)})
    with pytest.raises((ComponentError, CheckpointError, FileNotFoundError)):
        FitDiff.load(folder, "cpu")
    assert not (tmp_path / "owned").exists()


def test_a_strangers_folder_on_the_command_line(folder, tmp_path):
    photo = tmp_path / "photo.png"
    Image.new("RGB", (64, 64)).save(photo)
    owned = tmp_path / "owned"
    for kind in ("renderer", "denoiser", "sampler"):
        edit(folder, kind, {"_target_": "os.mkdir", "path": str(owned)})
    edit(folder, "guidance.mse", {"_target_": "os.mkdir", "path": str(owned)})
    done = run("fit.py", f"photo={photo}", f"checkpoint={folder}", f"out={tmp_path / 'out'}", check=False)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "'os.mkdir' is not a registered renderer" in line
    assert not owned.exists()
    assert not (tmp_path / "out").exists()
