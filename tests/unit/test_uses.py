"""Overrides of sample.py: which of them go together, and what they call."""

import numpy as np
import pytest
import torch
from PIL import Image

from fitdiff import FitDiff
from fitdiff.config import SampleConfig
from fitdiff.faces import UseError, load_faces
from fitdiff.uses.command import draw_what_is_asked, name_of

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
    assert completed.save(tmp_path / "out", avatars=True).joinpath("00", "diffuse.png").exists()


def test_results_are_named_after_what_they_are_made_from():
    assert name_of(asked()) == "unconditional"
    assert name_of(asked(face="outputs/fits/me", keep="shape")) == "me"
    assert name_of(asked(photo="a/you.jpg", texture="visible")) == "you"
    assert name_of(asked(texture="half.png")) == "half"
