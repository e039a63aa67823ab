"""Synthetic people: the same person whatever the batch, order or process; portraits show what the sample holds."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from omegaconf.errors import OmegaConfBaseException
from PIL import Image

from fitdiff.data.people import HELD_OUT_OFFSET, People
from fitdiff.data.people import __main__ as browse
from fitdiff.data.people.maker import PeopleMaker, feathered
from fitdiff.data.people.options import CLEAN, STANDARD_AUGMENTATION, Augmentation
from fitdiff.data.shards import ShardedDataset, dequantise, quantise
from fitdiff.registry import build, config_of
from fitdiff.types import SCENE_KEYS, FaceMaps, Scene
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def parts():
    shape_model = build(config_of("shape_model", "anny_face", n_identity=32), "shape_model")
    identity = build(config_of("identity", "dlib"), "identity")
    return shape_model, identity, build(config_of("renderer", "torch"), "renderer", topology=shape_model.topology)


OCCLUDED = dataclasses.replace(CLEAN, hair_strands=0.2, glasses=0.2, hand=0.2, cover=0.2)
BUSY = Augmentation(hair_strands=0.5, glasses=0.5, hand=0.5, cover=0.5)


def maker(parts, augmentation=CLEAN, **options):
    return PeopleMaker(*parts, 64, 64, 2, 3, augmentation=augmentation, **options)


@pytest.mark.parametrize("augmentation", [CLEAN, BUSY], ids=["clean", "busy"])
def test_a_person_does_not_depend_on_the_batch(parts, augmentation):
    """Bit for bit: on one machine's CPU nothing but the index decides."""
    make = maker(parts, augmentation).make
    together = make([5, 9, 2, 11, 3, 4])
    for indices in ([9], [8, 9], [1, 2, 3, 9, 12, 14, 15, 16, 17]):
        row = make(indices)
        for key, value in row.items():
            assert torch.equal(value[indices.index(9)], together[key][1]), (key, indices)


def test_people_are_the_same_in_another_process(parts):
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from fitdiff.registry import build, config_of\n"
        "from fitdiff.data.people.maker import PeopleMaker\n"
        "s = build(config_of('shape_model', 'anny_face', n_identity=32), 'shape_model')\n"
        "i = build(config_of('identity', 'dlib'), 'identity')\n"
        "r = build(config_of('renderer', 'torch'), 'renderer', topology=s.topology)\n"
        "p = PeopleMaker(s, i, r, 64, 64, 2, 3).make([7])\n"
        "print(p['maps'].sum().item(), p['image'].sum().item(), p['identity'].double().sum().item())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    here = maker(parts, STANDARD_AUGMENTATION).make([7])
    maps, image, identity = done.stdout.split()
    assert (int(maps), int(image)) == (here["maps"].sum().item(), here["image"].sum().item())
    assert float(identity) == here["identity"].double().sum().item()


def test_portraits_show_the_stored_sample(parts):
    person = maker(parts).make([4])
    shape_model, _, renderer = parts
    scene = Scene.from_tensors({key: person[key][:, 0] for key in SCENE_KEYS})
    vertices = shape_model(person["identity"], scene.expression)
    maps = FaceMaps.from_tensor(dequantise(person["maps"]))
    rendering = renderer(vertices, maps, scene.camera, scene.lighting, 64)
    stored = person["image"][:, 0].float() / 255
    inside = feathered(rendering.mask) == 1
    assert ((rendering.image - stored) * inside).abs().max() < 1 / 255
    assert inside.sum() > 0.7 * rendering.mask.sum()
    assert not person["occluded"].any()
    assert 0.15 < rendering.mask.mean() < 0.8
    assert torch.allclose(rendering.landmarks, person["landmarks"][:, 0], atol=1e-4)


def test_quantising_keeps_eight_bits():
    packed = torch.rand(2, 9, 8, 8) * 2 - 1
    packed[:, 6:] = torch.nn.functional.normalize(packed[:, 6:] + torch.tensor([0, 0, 2.0]).view(1, 3, 1, 1), dim=1)
    error = dequantise(quantise(FaceMaps.from_tensor(packed))) - packed
    assert error.abs().max() < 1.1 / 127.5


def test_flags_say_which_faces_are_covered(parts):
    indices = range(12)
    clean, busy = (maker(parts, augmentation).make(indices) for augmentation in (CLEAN, OCCLUDED))
    difference = (clean["image"].int() - busy["image"].int()).abs().amax(2).flatten(2)
    assert torch.equal((difference > 8).any(2), busy["occluded"].bool())
    assert 0 < busy["occluded"].float().mean() < 1
    for key in ("identity", "maps", "landmarks", *SCENE_KEYS):
        assert torch.equal(clean[key], busy[key]), key


def test_the_callers_modules_are_not_touched(parts):
    made = maker(parts)
    for own, given in zip((made.shape_model, made.identity, made.renderer), parts, strict=True):
        assert own is not given


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_makes_the_same_people(parts):
    here, there = (maker(parts, device=device).make(range(8)) for device in ("cpu", "cuda"))
    for key in ("identity", *SCENE_KEYS, "landmarks"):
        torch.testing.assert_close(there[key].cpu(), here[key], atol=1e-3, rtol=1e-4)
    for key in ("maps", "image"):
        assert ((there[key].cpu().int() - here[key].int()).abs() > 2).float().mean() < 1e-3


def test_the_cache_knows_the_options(parts, tmp_path):
    def folder(**options):
        return People(*parts, 64, "test", n=4, portrait_size=64, cache=str(tmp_path), **options).folder

    assert folder(augmentation={"blur": 0.4}) == folder(augmentation=Augmentation()) == folder(workers=3)
    assert folder(augmentation={"blur": 0.3}) != folder()
    assert folder(portraits={"yaw": 20.0}) != folder()


def test_options_are_typed_config_fields(parts):
    node = config_of("data", "people", augmentation={"blur": 0.1}, n=4)
    people = build(node, "data", **dict(zip(("shape_model", "identity", "renderer"), parts, strict=True)),
                   resolution=64, fingerprint="test")  # fmt: skip
    assert people.maker.augmentation == Augmentation(blur=0.1)
    with pytest.raises(OmegaConfBaseException, match="bluur"):
        config_of("data", "people", augmentation={"bluur": 0.1})
    with pytest.raises(OmegaConfBaseException, match="much"):
        config_of("data", "people", augmentation={"blur": "much"})


@pytest.mark.parametrize(("options", "message"), [
    ({"augmentation": {"blur": 1.5}}, r"augmentation.blur is 1.5; give a share in \[0, 1\]"),
    ({"augmentation": {"jpeg_quality": 0.0}}, "augmentation.jpeg_quality is 0.0; give 1 to 95"),
    ({"portraits": {"lamps": 0.0, "near_lamps": 0.0, "surroundings": 0.0}}, "not all 0"),
    ({"portraits": {"wide": -0.1}}, r"portraits.wide is -0.1; give a share in \[0, 1\]"),
    ({"portrait_size": 65}, "portrait_size=65; expected an even number"),
    ({"portraits": {"narrowest_lens": 0.0}}, "portraits.narrowest_lens is 0.0; give 1 to 90"),
    ({"portraits": {"widest_lens": 200.0}}, "portraits.widest_lens is 200.0; give 1 to 90"),
    ({"portraits": {"narrowest_lens": 50.0}}, "narrowest_lens is 50.0, widest_lens 45.0; give the smaller"),
    ({"portraits": {"widest": -5.0}}, "portraits.widest is -5.0; give 0 to 90"),
    ({"portraits": {"exposure": -1.0}}, "portraits.exposure is -1.0; give 0 to 2"),
    ({"portraits": {"tint": float("inf")}}, "portraits.tint is inf; give 0 to 100"),
    ({"portraits": {"lamps": float("nan")}}, "portraits.lamps is nan; give 0"),
    ({"augmentation": {"blur_strength": float("nan")}}, "augmentation.blur_strength is nan; give 0 to 20"),
    ({"augmentation": {"noise_strength": -1.0}}, "augmentation.noise_strength is -1.0; give 0 to 2"),
    ({"views": 0}, "views=0; expected 1"),
    ({"n": 0}, "data.n is 0; give 1 or more"),
    ({"held_out": -1}, "data.held_out is -1; give 0 or more"),
    ({"shard_size": 0}, "data.shard_size is 0; give 1 or more"),
    ({"workers": -1}, "data.workers is -1; give 1 or more"),
    ({"start": -1}, "data.start is -1; give 0 or more"),
    ({"start": HELD_OUT_OFFSET - 49}, "end before person 1000000001.* held out; give a smaller start"),
    ({"portraits": 3}, "got int for Portraits"),
])  # fmt: skip
def test_bad_options_are_named(parts, options, message):
    with pytest.raises(ValueError, match=message):
        People(*parts, 64, "test", **{"n": 4, "portrait_size": 64} | options)


def test_training_may_reach_to_the_held_out_people(parts, tmp_path):
    people = People(*parts, 64, "test", n=4, start=HELD_OUT_OFFSET - 50, portrait_size=64, cache=str(tmp_path))
    assert people.start + people.shard_size == HELD_OUT_OFFSET


def test_the_cache_is_extended_not_rewritten(parts, tmp_path):
    options = {"held_out": 4, "views": 2, "portrait_size": 64, "shard_size": 4, "workers": 1, "cache": str(tmp_path)}
    first = People(*parts, 64, "test", n=4, **options)
    first.prepare()
    stamp = (first.folder / "train" / "shard-000000.safetensors").stat().st_mtime_ns
    more = People(*parts, 64, "test", n=8, **options)
    more.prepare()
    assert more.folder == first.folder
    assert (first.folder / "train" / "shard-000000.safetensors").stat().st_mtime_ns == stamp
    assert len(more.train) == 8
    rows = more.train.gather([6, 1], ("identity",))["identity"]
    assert torch.equal(rows, more.train.load("identity")[[6, 1]])
    assert not torch.equal(first.held_out.load("identity"), first.train.load("identity"))
    other = People(*parts, 64, "another fingerprint", n=4, **options)
    assert other.folder != first.folder


def test_browsing_makes_people_anew(parts, tmp_path, monkeypatch):
    """A cache would show the people of an older face model."""
    built = dict(zip(("shape_model", "identity", "renderer"), parts, strict=True))
    monkeypatch.setattr(browse, "build", lambda node, kind, **_: built[kind])
    monkeypatch.setattr(People, "prepare", lambda _: pytest.fail("it asks the cache"))
    words = [f"out={tmp_path}", "n=5", "size=64", "portrait_size=64", "seed=3", "start=7", "augmentation.bust=0"]
    monkeypatch.setattr(sys, "argv", ["people", *words])
    browse.main()
    expected = PeopleMaker(*parts, 64, 64, 2, 3, augmentation=Augmentation(bust=0.0)).make(range(7, 12))
    for row in range(5):
        picture = np.asarray(Image.open(tmp_path / f"{7 + row:06d}" / "view1.png"))
        np.testing.assert_array_equal(picture, expected["image"][row, 1].movedim(0, -1))
    assert (tmp_path / "sheet.png").is_file()


def test_a_missing_shard_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"shard-000000\.safetensors is missing"):
        ShardedDataset(tmp_path, 3, 4)
