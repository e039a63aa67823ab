"""The example of a third party's package: installed by pip, selected from the command line, walked through."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import skimage.data
import torch
from hydra.core.config_store import ConfigStore
from PIL import Image

from fitdiff import registry
from fitdiff.renderer.bench import ellipsoid, scene
from fitdiff.types import IdentityFeatures, Observation, Prediction, Rendering
from tests.conftest import ROOT

PACKAGE = ROOT / "examples" / "fitdiff-plugin-toon"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Where pip has installed the package, built from a copy: a build leaves files beside what it builds."""
    source = tmp_path_factory.mktemp("toon") / "source"
    shutil.copytree(PACKAGE, source)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    target = source.parent / "site"
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def fit(site, *overrides):
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "fit.py", *overrides]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_a_fit_with_both_components_from_the_command_line(site, tiny_run, tmp_path):
    photo = tmp_path / "me.png"
    Image.fromarray(skimage.data.astronaut()).save(photo)
    done = fit(
        site, f"photo={photo}", f"checkpoint={tiny_run / 'model'}", f"out={tmp_path / 'out'}", "fitting.steps=3",
        "fitting.refine_steps=0", "fitting.size=128", "renderer=toon", "renderer.bands=3", "guidance=[mse,edges]",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    steps = json.loads((tmp_path / "out" / "fit.json").read_text())["steps"]
    assert all(set(step) >= {"mse", "edges"} and step["edges"] > 0 for step in steps)
    assert steps[-1]["mse"] < steps[0]["mse"]


def test_options_are_typed_and_refused_by_name(site):
    wrong = fit(site, "photo=me.png", "renderer=toon", "renderer.bands=many")
    assert wrong.returncode != 0
    assert "Integer" in wrong.stderr
    assert "toon" in fit(site, "photo=me.png", "renderer=tune").stderr  # among the available options


@pytest.fixture
def toon(site, monkeypatch):
    """The installed module, in a registry that forgets it afterwards."""
    registry.load_plugins()
    store = ConfigStore.instance()
    monkeypatch.setattr(registry, "_components", dict(registry._components))
    for kind in ("renderer", "guidance"):
        monkeypatch.setitem(store.repo, kind, dict(store.repo[kind]))
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "fitdiff_toon", raising=False)
    import fitdiff_toon

    return fitdiff_toon


def test_the_picture_has_as_many_steps_of_brightness_as_asked_for_and_the_gradient_of_the_smooth_one(toon):
    vertices, topology = ellipsoid(14)
    vertices, maps, camera, lighting = scene(vertices, 2, 8)
    diffuse = maps.diffuse_albedo.detach().clone().requires_grad_()
    maps = replace(maps, diffuse_albedo=diffuse)
    images, gradients = [], []
    for name in ("toon", "auto"):
        options = {"bands": 4} if name == "toon" else {}
        renderer = registry.build(registry.config_of("renderer", name, **options), "renderer", topology=topology)
        rendering = renderer(vertices, maps, camera, lighting, 24)
        images.append(rendering)
        gradients.append(torch.autograd.grad(rendering.image.sum(), diffuse)[0])
    flat, smooth = images
    inside = flat.mask.bool().expand_as(flat.image) & (flat.image.amax(1, keepdim=True) < 1)
    brightness = flat.image.mean(1, keepdim=True).expand_as(flat.image)[inside] * 3
    torch.testing.assert_close(brightness, brightness.round(), atol=1e-4, rtol=0)
    assert torch.equal(flat.mask, smooth.mask)
    torch.testing.assert_close(*gradients)


def test_one_band_is_refused(toon):
    with pytest.raises(registry.ComponentError, match=r"bands is 1; give the steps"):
        registry.build(registry.config_of("renderer", "toon", bands=1), "renderer", topology=ellipsoid(4)[1])


def prediction_of(image, mask):
    features = IdentityFeatures(torch.zeros(len(image), 1))
    return Prediction(Rendering(image, mask, torch.zeros(len(image), 68, 2)), features)


def target_of(image):
    none = torch.zeros(len(image), 0)
    return Observation(image, none, none, IdentityFeatures(none))


def test_edges_are_a_loop_over_neighbours_and_blind_to_an_even_offset(toon):
    torch.manual_seed(0)
    image, photo = torch.rand(2, 3, 6, 6), torch.rand(2, 3, 6, 6)
    mask = (torch.rand(2, 1, 6, 6) > 0.3).float()
    expected = torch.zeros(2)
    for b in range(2):
        for r, c in torch.cartesian_prod(torch.arange(6), torch.arange(6)).tolist():
            for r2, c2 in ((r + 1, c), (r, c + 1)):
                if r2 < 6 and c2 < 6 and mask[b, 0, r, c] and mask[b, 0, r2, c2]:
                    steps = [x[b, :, r2, c2] - x[b, :, r, c] for x in (image, photo)]
                    expected[b] += (steps[0] - steps[1]).abs().mean()
        expected[b] /= mask[b].sum()
    term = toon.Edges()
    torch.testing.assert_close(term(prediction_of(image, mask), target_of(photo)), expected)
    even = term(prediction_of(photo + 0.25, mask), target_of(photo))
    torch.testing.assert_close(even, torch.zeros(2), atol=1e-6, rtol=0)
    hidden = term(prediction_of(image, torch.zeros_like(mask)), target_of(photo))
    assert hidden.tolist() == [0, 0]


def test_the_walk_through_shows_the_package_line_by_line():
    blocks = re.findall(r"^```(python|toml)\n(.*?)^```$", (ROOT / "docs" / "extend.md").read_text(), re.M | re.S)
    for language, file in (("python", "fitdiff_toon.py"), ("toml", "pyproject.toml")):
        shown = "\n".join(text for kind, text in blocks if kind == language)
        lines = [[line for line in text.splitlines() if line] for text in (shown, (PACKAGE / file).read_text())]
        assert lines[0] == lines[1]
