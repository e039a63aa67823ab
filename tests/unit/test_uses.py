"""Overrides of sample.py: which of them go together, and what they call."""

import numpy as np
import pytest
import torch
from PIL import Image

from fitdiff import FitDiff
from fitdiff.alignment.photo import PhotoError
from fitdiff.config import SampleConfig
from fitdiff.faces import UseError, load_faces
from fitdiff.storage import write_json
from fitdiff.uses.command import draw_what_is_asked, name_of, publish_samples, results_folder

DEFAULTS = {key: getattr(SampleConfig, key, None) for key in SampleConfig.__dataclass_fields__}


def asked(**overrides):
    return {
        **DEFAULTS,
        "edit": {},
        "steps": 3,
        "n": 2,
        "sampler": None,
        "detector": None,
        "landmarks": None,
        "guidance": None,
        "fitting": None,
        **overrides,
    }


@pytest.fixture(scope="module")
def model(tiny_run):
    return FitDiff.load(tiny_run / "model", "cpu")


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    draw_what_is_asked(model, asked(n=3)).save(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"keep": "shape", "to": "x"}, "keep and to at once"),
        ({"photo": "a.jpg", "face": "b"}, "photo and face"),
        ({"n": 0}, "n=0"),
        ({"keep": "shape"}, "needs someone"),
        ({"edit": {"shape_0": 1.0}}, "needs someone"),
        ({"texture": "visible"}, "photo=me.jpg"),
        ({"mask": "m.png"}, "texture=half.png"),
        ({"mask": "m.png", "texture": "visible", "photo": "me.jpg"}, "texture=half.png"),
        ({"row": 1}, "row=1 of nothing"),
        ({"to_row": 1, "face": "b"}, "to_row=1 of nothing"),
        ({"steps": 0}, "steps=0: give 1 to 1000"),
        ({"steps": 2000}, "steps=2000"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**64}, "seed=18446744073709551616"),
        ({"cfg_scale": float("nan")}, "cfg_scale=nan"),
        ({"face": "b", "edit": {"shape_0": float("inf")}}, "shape_0=inf"),
    ],
)
def test_contradictions_are_named_before_anything_is_drawn(model, overrides, message):
    with pytest.raises(UseError, match=message):
        draw_what_is_asked(model, asked(**overrides))


def test_rows_of_a_folder_are_chosen(model, folder):
    z = load_faces(model, folder).z
    assert torch.equal(draw_what_is_asked(model, asked(face=folder, row=2, keep="shape")).z[0], z[2])
    with pytest.raises(UseError, match="row=3, expected 0 to 2"):
        draw_what_is_asked(model, asked(face=folder, row=3, keep="shape"))


def test_every_way_is_served(model, folder, tmp_path):
    embedding = tmp_path / "me.npy"
    np.save(embedding, model.embedding_mean.numpy())
    assert len(draw_what_is_asked(model, asked(photo=str(embedding), n=2)).z) == 2
    assert len(draw_what_is_asked(model, asked(face=folder, keep="reflectance")).z) == 3
    assert len(draw_what_is_asked(model, asked(photo=str(embedding), to=str(embedding), n=3)).z) == 3
    assert len(draw_what_is_asked(model, asked(face=folder, to=folder, n=4)).z) == 4
    edited = draw_what_is_asked(model, asked(face=folder, edit={"jawOpen": 0.5}))
    assert edited.expression is not None
    size = int(model.config["resolution"])
    picture = np.full((size, size, 4), 128, np.uint8)
    picture[:, size // 2 :, 3] = 0
    Image.fromarray(picture).save(tmp_path / "half.png")
    completed = draw_what_is_asked(model, asked(texture=str(tmp_path / "half.png"), n=1))
    levels = (completed.maps.to_images()["diffuse"] * 255).round()
    assert (levels[..., : size // 2] == 128).all()
    out = completed.save(tmp_path / "out")
    written = np.asarray(Image.open(out / "00" / "diffuse.png"))
    assert (written[:, : size // 2] == 128).all()
    of_someone = draw_what_is_asked(model, asked(face=folder, row=1, texture=str(tmp_path / "half.png"), n=1))
    shape = model.latent.parts[0]
    assert torch.equal(of_someone.z[0, shape], load_faces(model, folder).z[1, shape])


def test_both_ends_of_a_walk_are_chosen(model, folder):
    walk = draw_what_is_asked(model, asked(face=folder, row=1, to=folder, to_row=2, n=2))
    assert torch.equal(walk.z, load_faces(model, folder).z[1:])
    with pytest.raises(UseError, match="got to_row=3"):
        draw_what_is_asked(model, asked(face=folder, to=folder, to_row=3))


def test_names_that_no_file_can_have_are_refused_in_one_line(model):
    for key in ("face", "photo"):
        with pytest.raises(PhotoError):
            draw_what_is_asked(model, asked(**{key: "a" * 300}))
    with pytest.raises(FileNotFoundError):
        draw_what_is_asked(model, asked(texture="a" * 300))


def test_results_are_named_after_what_they_are_made_from_and_how(tmp_path):
    assert name_of(asked()) == "unconditional"
    assert name_of(asked(face="outputs/fits/me", keep="shape")) == "me-keep-shape"
    assert name_of(asked(face="fits/me", to="you.jpg")) == "me-to-you"
    assert name_of(asked(face="fits/me", edit={"shape_0": 1.0})) == "me-edit"
    assert name_of(asked(photo="a/you.jpg", texture="visible")) == "you-visible"
    assert name_of(asked(texture="half.png")) == "half"
    for version in ("v1.2", "v1.3"):
        (tmp_path / version).mkdir()
        assert name_of(asked(face=str(tmp_path / version))) == version
        assert name_of(asked(face=str(tmp_path / version / "z.safetensors"))) == version
        assert name_of(asked(face=str(tmp_path / version / ".."))) == tmp_path.name


def test_results_never_take_the_place_of_what_is_read(tmp_path):
    folder, out = tmp_path / "unconditional", str(tmp_path / "unconditional")
    assert results_folder(asked(out=out)) == folder
    assert results_folder(asked(out=out, texture=f"{out}/half.png")) == folder
    for sources in (
        {"face": out},
        {"face": f"{out}/z.safetensors"},
        {"face": f"{out}/../unconditional"},
        {"face": f"{out}/03"},
        {"face": "somebody", "to": out},
        {"texture": f"{out}/00/diffuse.png"},
    ):
        with pytest.raises(UseError, match="take the place"):
            results_folder(asked(out=out, **sources))
    write_json(folder / "fit.json", {})
    with pytest.raises(UseError, match="holds a fit"):
        results_folder(asked(out=out))


def test_a_smaller_draw_takes_the_place_of_a_larger_one_whole(model, tmp_path):
    out = tmp_path / "out"
    (out / "00").mkdir(parents=True)
    (out / "99").mkdir()
    (out / "99" / "mine.txt").write_text("not a face")
    publish_samples(draw_what_is_asked(model, asked(n=2)), out, avatars=True)
    publish_samples(draw_what_is_asked(model, asked(n=1)), out, avatars=True)
    assert sorted(path.name for path in out.iterdir()) == ["00", "99", "samples.png", "z.safetensors"]
    assert (out / "99" / "mine.txt").exists()
    samples = draw_what_is_asked(model, asked(n=1, seed=1))
    before = (out / "z.safetensors").read_bytes()
    with pytest.raises(AttributeError):  # the photo is none: the sheet cannot be drawn
        publish_samples(samples.beside("no picture"), out, avatars=False)
    assert (out / "z.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_photo_shows_is_fitted_as_asked_without_finding_the_face_twice(model, monkeypatch):
    calls = []
    monkeypatch.setattr(type(model), "fit", lambda self, photo, **options: calls.append((photo, options)) or "fit")
    monkeypatch.setattr(type(model), "complete_photo", lambda self, fit, **options: (fit, options["n"]))
    nodes = {"guidance": {"mse": 1}, "fitting": {"steps": 3}}
    assert draw_what_is_asked(model, asked(photo="me.jpg", texture="visible", n=1, seed=5, **nodes)) == ("fit", 1)
    ((photo, options),) = calls
    assert photo == "me.jpg"
    assert options == {"seed": 5, "sampler": None, "detector": None, "landmarks": None, **nodes}
