"""Synthetic people: the same person whatever the batch, order or process; portraits show what the sample holds."""

import subprocess
import sys

import pytest
import torch

from fitdiff.data.people import People
from fitdiff.data.people.maker import PeopleMaker
from fitdiff.data.people.scenes import sample_backgrounds, sample_scenes
from fitdiff.data.shards import ShardedDataset, dequantise, quantise
from fitdiff.registry import build, config_of
from fitdiff.types import FaceMaps
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def parts():
    shape_model = build(config_of("shape_model", "anny_face", n_identity=32), "shape_model")
    identity = build(config_of("identity", "dlib"), "identity")
    return shape_model, identity, build(config_of("renderer", "torch"), "renderer", topology=shape_model.topology)


def maker(parts):
    return PeopleMaker(*parts, resolution=64, portrait_size=64, views=2, seed=3)


def test_a_person_does_not_depend_on_the_batch(parts):
    make = maker(parts).make
    together, alone = make([5, 9, 2]), make([9])
    for key, value in alone.items():
        assert torch.allclose(value.float(), together[key][1:2].float(), atol=2e-3), key
    for key in ("expression", "rotation", "translation", "focal"):
        assert torch.equal(alone[key], together[key][1:2])
    assert (alone["maps"].int() - together["maps"][1:2].int()).abs().max() <= 1


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
    here = maker(parts).make([7])
    maps, image, identity = done.stdout.split()
    assert (int(maps), int(image)) == (here["maps"].sum().item(), here["image"].sum().item())
    assert float(identity) == here["identity"].double().sum().item()


def test_portraits_show_the_stored_sample(parts):
    person = maker(parts).make([4])
    shape_model, _, renderer = parts
    from fitdiff.types import SCENE_KEYS, Scene

    scene = Scene.from_tensors({key: person[key][:, 0] for key in SCENE_KEYS})
    vertices = shape_model(person["identity"], scene.expression)
    maps = FaceMaps.from_tensor(dequantise(person["maps"]))
    rendering = renderer(vertices, maps, scene.camera, scene.lighting, 64)
    stored = person["image"][:, 0].float() / 255
    difference = ((rendering.image - stored) * rendering.mask).abs().max()
    assert difference < 1 / 255
    assert 0.15 < rendering.mask.mean() < 0.8
    assert torch.allclose(rendering.landmarks, person["landmarks"][:, 0], atol=1e-4)


def test_quantising_keeps_eight_bits():
    packed = torch.rand(2, 9, 8, 8) * 2 - 1
    packed[:, 6:] = torch.nn.functional.normalize(packed[:, 6:] + torch.tensor([0, 0, 2.0]).view(1, 3, 1, 1), dim=1)
    error = dequantise(quantise(FaceMaps.from_tensor(packed))) - packed
    assert error.abs().max() < 1.1 / 127.5


def test_scenes_frame_the_face():
    scene = sample_scenes(0, range(200), 1, 51)
    centre = scene.camera.translation
    assert (centre[:, 2] < -200).all()
    ndc = scene.camera.focal[:, None] * centre[:, :2] / -centre[:, 2:]
    assert ndc.abs().max() < 0.15
    assert ((scene.expression >= 0) & (scene.expression <= 1)).all()
    neutral = (scene.expression == 0).all(1).float().mean()
    assert 0.2 < neutral < 0.5
    assert (scene.lighting.ambient > 0.15).all()


def test_backgrounds_are_reproducible_and_differ():
    a, b = sample_backgrounds(0, [1, 2], 2, 32), sample_backgrounds(0, [2], 2, 32)
    assert torch.equal(a[2:], b)
    assert not torch.allclose(a[0], a[1], atol=0.05)


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


def test_a_missing_shard_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"shard-000000\.safetensors is missing"):
        ShardedDataset(tmp_path, 3, 4)
