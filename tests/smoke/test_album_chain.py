"""Albums with a tiny model: batches decide nothing, failures cost one photo, and what is done is kept."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import skimage.data
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from fitdiff import FitDiff
from fitdiff.album import Album, album, find_sources
from fitdiff.alignment.photo import PhotoError
from fitdiff.cli import guarded, run_fit
from fitdiff.config import register_schemas
from fitdiff.registry import config_of, load_plugins
from tests.bad_photos import bad_photos
from tests.conftest import ROOT, run

FAST = ["fitting.steps=2", "fitting.refine_steps=0", "fitting.size=96", "guidance=[mse]"]
BAD = (
    "cut-5.jpg", "cut-3.png", "overwritten-1.tif", "says-30000.png", "brick.png", "noise-64.png", "tiny-1x1.png",
    "nan-0.01.tif", "mode-CMYK.jpg", "animated.gif", "volume.tif", "empty.jpg", "text.png", "loop.jpg", "folder.jpg",
    "pipe.jpg", "drawing-0.png",
)  # fmt: skip
"""Of the 300, those that go through the real program."""


ROUNDING = {"atol": 2e-3, "rtol": 0.0}
"""Of z, in deviations: a pixel whose triangle changes by rounding moves z by 5e-4; another first scene by 3e-2."""


@pytest.fixture(scope="module")
def model(tiny_run):
    return FitDiff.load(tiny_run / "model", "cpu")


@pytest.fixture(scope="module")
def choices(model):
    return {
        "fitting": config_of("fitting", "guided", steps=2, size=96),
        "guidance": {"mse": model.config["guidance"]["mse"]},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three photos with a face, one without."""
    path = tmp_path_factory.mktemp("photos")
    face = Image.fromarray(skimage.data.astronaut())
    face.save(path / "1.png")
    face.crop((60, 0, 420, 360)).save(path / "2.png")
    face.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path / "3.png")
    Image.new("RGB", (64, 64)).save(path / "4.png")
    return path


def z_of(fits, name):
    from safetensors.torch import load_file

    return load_file(fits / name / "z.safetensors")["z"]


def test_batches_decide_nothing(model, choices, folder, tmp_path):
    sources = find_sources(str(folder)).photos
    for batch in (1, 3):
        entries = Album(model, tmp_path / str(batch), batch=batch, **choices).fit_each(sources)
        assert [entry.name for entry in entries] == ["1.png", "2.png", "3.png", "4.png"]
        assert [entry.error is None for entry in entries] == [True, True, True, False]
    for name in ("1.png", "2.png", "3.png"):
        torch.testing.assert_close(z_of(tmp_path / "1", name), z_of(tmp_path / "3", name), **ROUNDING)
    assert not torch.allclose(z_of(tmp_path / "1", "1.png"), z_of(tmp_path / "1", "2.png"), **ROUNDING)


def test_what_is_done_is_kept_and_what_changed_is_fitted_again(model, choices, folder, tmp_path, monkeypatch):
    sources = find_sources(str(folder)).photos
    Album(model, tmp_path, **choices).fit_each(sources[:2])
    fitted = []
    real = album.fit_faces
    monkeypatch.setattr(album, "fit_faces", lambda m, faces, **k: fitted.extend(faces) or real(m, faces, **k))
    entries = Album(model, tmp_path, **choices).fit_each(sources)
    assert [face.photo.path.name for face in fitted] == ["3.png"]
    assert [entry.kept for entry in entries] == [True, True, False, False]
    fitted.clear()
    Album(model, tmp_path, seed=1, **choices).fit_each(sources[:1])
    assert len(fitted) == 1


def test_a_photo_that_breaks_a_batch_costs_only_itself(model, choices, folder, tmp_path, monkeypatch):
    real = album.fit_faces

    def fragile(m, faces, **options):
        if any(face.photo.path.name == "2.png" for face in faces):
            raise torch.OutOfMemoryError("CUDA out of memory.\nlong story")
        return real(m, faces, **options)

    monkeypatch.setattr(album, "fit_faces", fragile)
    entries = Album(model, tmp_path, batch=8, **choices).fit_each(find_sources(str(folder)).photos)
    assert [entry.error for entry in entries[:3]] == [None, "the fit failed (CUDA out of memory.)", None]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.png", "3.png"]


@pytest.mark.parametrize("error", [IndexError("index 0"), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_result_that_cannot_be_drawn_costs_only_itself(model, choices, folder, tmp_path, monkeypatch, error):
    real = album.PhotoFit.save

    def fragile(fit, *place, **options):
        if fit.photo.path.name == "1.png":
            raise error
        return real(fit, *place, **options)

    monkeypatch.setattr(album.PhotoFit, "save", fragile)
    entries = Album(model, tmp_path, **choices).fit_each(find_sources(str(folder)).photos[:2])
    assert [entry.error for entry in entries] == [f"the fit could not be drawn ({error})", None]
    assert [path.name for path in tmp_path.iterdir()] == ["2.png"]


def test_a_fit_that_is_not_finite_writes_nothing(model, choices, folder, tmp_path, monkeypatch):
    real = album.fit_faces

    def broken(m, faces, **options):
        (fit,) = real(m, faces, **options)
        return [replace(fit, result=replace(fit.result, z=fit.result.z * torch.nan))]

    monkeypatch.setattr(album, "fit_faces", broken)
    (entry,) = Album(model, tmp_path, **choices).fit_each(find_sources(str(folder)).photos[:1])
    assert entry.error == "the fit did not stay finite"
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_nothing(model, choices, folder, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fitdiff.photo_fit.write_json", full)
    with pytest.raises(OSError, match="No space"):
        Album(model, tmp_path, **choices).fit_each(find_sources(str(folder)).photos[:1])
    assert list(tmp_path.iterdir()) == []


def test_every_face_of_a_group_photo(model, choices, folder, tmp_path):
    with Image.open(folder / "1.png") as file:
        face = np.asarray(file)
    small = np.pad(face[:256:2, 100:356:2], ((0, 384), (0, 0), (0, 0)))
    Image.fromarray(np.concatenate([small, face], 1)).save(tmp_path / "group.png")
    sources = find_sources(str(tmp_path / "group.png")).photos
    entries = Album(model, tmp_path / "all", faces="all", **choices).fit_each(sources)
    assert [entry.name for entry in entries] == ["group.png/face1", "group.png/face2"]
    (second,) = Album(model, tmp_path / "second", faces=2, **choices).fit_each(sources)
    torch.testing.assert_close(
        z_of(tmp_path / "second", second.folder), z_of(tmp_path / "all", "group.png/face2"), **ROUNDING
    )
    (third,) = Album(model, tmp_path / "third", faces=3, **choices).fit_each(sources)
    assert "face 3 of 2" in third.error


def test_one_person_over_all_photos(model, choices, folder, tmp_path):
    sources = find_sources(str(folder)).photos
    entries = Album(model, tmp_path, batch=2, **choices).fit_shared(sources)
    assert [entry.error is None for entry in entries] == [True, True, True, False]
    person = z_of(tmp_path, "person")
    for name in ("1.png", "2.png", "3.png"):
        assert torch.equal(z_of(tmp_path, name), person)
        assert {"frame.jpg", "fit.json"} <= {path.name for path in (tmp_path / name).iterdir()}
        assert not (tmp_path / name / "avatar.glb").exists()
    assert (tmp_path / "person" / "avatar.glb").exists()
    scenes = [json.loads((tmp_path / name / "fit.json").read_text())["scene"] for name in ("1.png", "3.png")]
    assert scenes[0]["rotation"] != scenes[1]["rotation"]
    assert all(entry.kept for entry in Album(model, tmp_path, batch=2, **choices).fit_shared(sources)[:3])
    with pytest.raises(PhotoError, match="none of the 1 photos"):
        Album(model, tmp_path / "none", **choices).fit_shared(sources[3:])


def test_bad_photos_through_the_program(tiny_run, tmp_path):
    collection = bad_photos()
    for name in (*BAD, os.fsdecode(b"face \xff.jpg")):
        (tmp_path / "photos").mkdir(exist_ok=True)
        collection[name](tmp_path / "photos" / name)
    out = tmp_path / "out"
    words = [f"checkpoint={tiny_run / 'model'}", "batch=4", *FAST]
    done = run("fit.py", f"photo={tmp_path / 'photos'}", f"out={out}", *words)
    assert "Traceback" not in done.stderr
    results = {
        row["photo" if "photo" in row else "name"]: row for row in json.loads((out / "results.json").read_text())
    }
    for name in ("mode-CMYK.jpg", "animated.gif", "nan-0.01.tif", os.fsdecode(b"face \xff.jpg")):
        assert results[name]["error"] is None
        assert (out / name / "avatar.glb").exists()
    for name in ("brick.png", "says-30000.png", "empty.jpg", "loop.jpg", "pipe.jpg", "volume.tif"):
        assert results[name]["error"]
        assert f"  {name}: " in done.stderr
        assert not (out / name).exists()
    assert "Not fitted" in (out / "index.html").read_text()
    assert not [path for path in out.rglob(".*")]


def test_an_album_without_any_fit_ends_with_2(tiny_run, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("no photo")
    words = [f"checkpoint={tiny_run / 'model'}", f"out={tmp_path / 'out'}", *FAST]
    done = run("fit.py", f"photo={tmp_path / 'photos'}", *words, check=False)
    assert done.returncode == 2
    assert "none of 1 photos could be fitted" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photo="], "no photo given"),
        (["batch=0"], "batch=0: give 1 or more"),
        (["samples=0"], "samples=0: give 1 or more"),
        (["seed=-1"], "seed=-1: give 0 or more"),
        (["guidance=[]"], "guidance=[]: give a term"),
        (["fitting.light=dim"], "fitting.light=dim: give fitted or fixed"),
        (["fitting.steps=2000"], "fitting.steps=2000: n=2000 sampling steps: expected 1 to"),
        (["fitting.through_unet=true"], "give fitting.through_unet=false"),
        (["person=both"], "person=both: give each or shared"),
        (["faces=some"], "faces=some: give largest, all, or a number"),
        (["device=cuda:99"], "device=cuda:99, which does not work here"),
    ],
)
def test_wrong_choices_are_one_line(tiny_run, folder, tmp_path, capsys, words, message):
    given = [f"photo={folder / '1.png'}", f"checkpoint={tiny_run / 'model'}", f"out={tmp_path}", *words]
    load_plugins()
    register_schemas()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("fit", given)
    with pytest.raises(SystemExit) as caught:
        guarded(run_fit)(config)
    assert caught.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []
