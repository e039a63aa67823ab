"""The whole chain as a user runs it: train, fit, sample, on tiny sizes with everything real."""

import json

import numpy as np
import pytest
import skimage.data
import torch
import trimesh
from hydra import compose, initialize_config_dir
from PIL import Image
from pygltflib import GLTF2

from experiments.laptop.table import load_run
from fitdiff import FitDiff
from fitdiff.alignment.face import find_faces
from fitdiff.alignment.photo import load_photo
from fitdiff.cli import guarded, prepare, run_fit, run_sample
from fitdiff.photo_fit import fit_faces
from fitdiff.registry import build, config_of
from tests.conftest import ROOT, TINY, run

FAST = ["fitting.steps=3", "fitting.refine_steps=0", "fitting.size=128", "guidance=[id_cos,mse,landmarks]"]


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "astronaut.png"
    Image.fromarray(skimage.data.astronaut()).save(path)
    return path


def configure(monkeypatch, entry: str, *overrides: str):
    monkeypatch.setattr("sys.argv", [f"{entry}.py", *overrides])
    prepare()
    import sys

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(entry, overrides=sys.argv[1:])


def test_training_writes_a_model_its_metrics_and_an_offline_log(tiny_run):
    metrics = json.loads((tiny_run / "metrics.json").read_text())
    for stage, folder in json.loads((tiny_run / "stages.json").read_text()).items():
        assert json.loads((tiny_run / folder / "result.json").read_text()) == metrics[stage]
    assert set(metrics) == {"autoencoder", "latents", "diffusion"}
    assert metrics["autoencoder"]["psnr_diffuse"] > 10
    assert 0 < metrics["diffusion"]["noise_loss"] < 2
    assert metrics["diffusion"]["mean_alpha_bar"] == pytest.approx(0.2754, abs=1e-3)
    assert (tiny_run / "model" / "weights.safetensors").exists()
    assert list((tiny_run / "wandb").glob("offline-run-*"))
    assert list((tiny_run.parent / "stages").glob("diffusion-*/previews/samples-*.png"))


def test_experiments_find_the_people_of_a_run(tiny_run):
    model, people, metrics = load_run(tiny_run)
    assert (len(people.train), len(people.held_out)) == (20, 10)
    assert people.train.gather([0], ("embedding",))["embedding"].shape[-1] == model.identity.dim
    assert metrics["diffusion"]["steps"] == 8


def test_the_same_command_skips_what_is_done(tiny_run):
    folder = tiny_run.parent
    before = {p: p.stat().st_mtime_ns for p in folder.glob("stages/*/weights.safetensors")}
    done = run("train.py", *TINY, f"outputs={folder}", f"data.cache={folder}/cache", "tracker=none")
    assert done.stderr.count("skipped") == 3
    assert {p: p.stat().st_mtime_ns for p in folder.glob("stages/*/weights.safetensors")} == before


def test_fit_from_the_command_line_writes_everything(tiny_run, photo, tmp_path):
    odd = tmp_path / "my photo (1), ä=b [x].png"
    odd.write_bytes(photo.read_bytes())
    out = tmp_path / "out, 2"
    run("fit.py", f"photo={odd}", f"checkpoint={tiny_run / 'model'}", f"out={out}", *FAST)
    report = json.loads((out / "fit.json").read_text())
    assert report["photo"] == odd.name
    assert len(report["steps"]) == 3
    assert set(report["id_cosine"]) == {"guided", "unguided", "mean_face"}
    assert all(-1 <= value <= 1 for value in report["id_cosine"].values())
    assert len(report["scene"]["expression"]) == 51
    pictures = {"diffuse.png", "specular.png", "normals.png", "render.png", "comparison.png"}
    assert pictures | {"avatar.glb", "avatar.obj", "avatar.mtl"} <= {p.name for p in out.iterdir()}
    glb = GLTF2().load(str(out / "avatar.glb"))
    assert "KHR_materials_specular" in glb.extensionsUsed
    mesh = trimesh.load(out / "avatar.glb", force="mesh")
    assert 0.1 < mesh.extents[1] < 0.3  # metres


def test_a_fit_is_reproducible(tiny_run, photo):
    model = FitDiff.load(tiny_run / "model", "cpu")
    choice = {"fitting": config_of("fitting", "guided", steps=2, size=96), "guidance": {"mse": model.config["guidance"]["mse"]}}  # fmt: skip # noqa: E501
    first, second, other = (model.fit(photo, seed=seed, **choice).result.z for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.allclose(first, other)


def test_what_a_stochastic_sampler_adds_depends_neither_on_chance_nor_on_the_batch(tiny_run, photo):
    """Without guidance, which Adam's steps make sensitive to rounding, a fit is its own unguided sample."""
    model = FitDiff.load(tiny_run / "model", "cpu")
    choice = {
        "fitting": config_of("fitting", "guided", steps=3, size=96, scale=0.0, through_unet=False),
        "guidance": {"mse": model.config["guidance"]["mse"]},
        "sampler": config_of("sampler", "ddpm"),
    }
    face = find_faces(load_photo(photo), *(build(model.config[kind], kind) for kind in ("detector", "landmarks")))[0]
    (alone,) = fit_faces(model, [face], **choice)
    for fit in (alone, *fit_faces(model, [face, face], **choice)):
        torch.testing.assert_close(fit.result.z, alone.result.z, atol=1e-3, rtol=1e-3)
        for figures in fit.metrics.values():
            assert figures["unguided"] == pytest.approx(figures["guided"], abs=2e-3)


def test_sampling_with_and_without_identity(tiny_run, photo, tmp_path, monkeypatch):
    for name, extra in (("plain", []), ("identity", [f"photo={photo}", "cfg_scale=2", "avatars=true"])):
        out = tmp_path / name
        config = configure(
            monkeypatch, "sample", f"checkpoint={tiny_run / 'model'}", "n=2", "steps=3", f"out={out}", *extra
        )
        assert run_sample(config) == out
        assert np.asarray(Image.open(out / "samples.png")).std() > 10
    assert (tmp_path / "identity" / "01" / "avatar.glb").exists()


def bad_photo(kind: str, photo, tmp_path):
    path = tmp_path / f"{kind}.png"
    if kind == "text":
        path.write_text("not an image")
    elif kind == "landscape":
        Image.fromarray(skimage.data.coffee()).save(path)
    elif kind == "tiny face":
        Image.open(photo).resize((40, 40)).resize((41, 41)).save(path)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "missing.png"),
        ("text", "not an image|cannot be read|unreadable"),
        ("landscape", "no face"),
        ("tiny face", "too small|no face"),
    ],
)
def test_bad_photos_end_with_one_line(kind, message, tiny_run, photo, tmp_path, monkeypatch, capsys):
    path = bad_photo(kind, photo, tmp_path)
    config = configure(monkeypatch, "fit", f"photo={path}", f"checkpoint={tiny_run / 'model'}", *FAST)
    with pytest.raises(SystemExit) as stop:
        guarded(run_fit)(config)
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error:")
    assert "Traceback" not in error
    import re

    assert re.search(message, error), error


@pytest.mark.parametrize(
    "damage", ["nothing there", "not json", "foreign target", "truncated", "other sizes", "other face model"]
)
def test_bad_checkpoints_end_with_one_line(damage, tiny_run, photo, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "model"
    config = json.loads((tiny_run / "model" / "config.json").read_text())
    if damage != "nothing there":
        folder.mkdir()
        weights = (tiny_run / "model" / "weights.safetensors").read_bytes()
        (folder / "weights.safetensors").write_bytes(weights[: len(weights) // 2] if damage == "truncated" else weights)
        if damage == "foreign target":
            config["denoiser"] = {"_target_": "os.system", "command": f"touch {tmp_path / 'owned'}"}
        if damage == "other sizes":
            config["denoiser"]["channels"] *= 2
        if damage == "other face model":
            config["versions"]["shape_model"] = "1"
        (folder / "config.json").write_text("{" if damage == "not json" else json.dumps(config))
    config = configure(monkeypatch, "fit", f"photo={photo}", f"checkpoint={folder}", *FAST)
    with pytest.raises(SystemExit) as stop:
        guarded(run_fit)(config)
    assert stop.value.code == 2
    assert capsys.readouterr().err.strip().startswith("error:")
    assert not (tmp_path / "owned").exists()


def test_no_traceback_on_the_real_command_line(tmp_path):
    done = run("fit.py", f"photo={tmp_path}/nobody.jpg", check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
