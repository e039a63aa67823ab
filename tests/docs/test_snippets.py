"""Python blocks of README and docs run, by sybil, as a reader's session of one page: later blocks see earlier ones.

The walk-through of docs/extend.md is held against the package that it shows (tests/plugins/test_toon.py).
"""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import skimage.data
import torch
from hydra.core.config_store import ConfigStore
from PIL import Image
from rich.console import Console
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from fitdiff import FitDiff, registry
from fitdiff.evaluation.benchmark import Context
from tests.conftest import ROOT
from tests.docs.documented import blocks, pages

SHOWN_ELSEWHERE = ("docs/extend.md",)
PAGES = [
    page
    for page in pages()
    if page.relative_to(ROOT).as_posix() not in SHOWN_ELSEWHERE
    and any(block.language == "python" and not block.needs for block in blocks(page))
]


@pytest.fixture
def reader(tiny_run, tmp_path, monkeypatch):
    """A folder with a trained model and a photo; what a page registers is forgotten."""
    shutil.copytree(tiny_run / "model", tmp_path / "outputs" / "fitdiff-laptop" / "model")
    Image.fromarray(skimage.data.astronaut()[:256, 96:352]).save(tmp_path / "me.jpg")
    monkeypatch.chdir(tmp_path)
    registry.load_plugins()
    store = ConfigStore.instance()
    monkeypatch.setattr(registry, "_components", dict(registry._components))
    for kind in registry.kinds():
        monkeypatch.setitem(store.repo, kind, dict(store.repo[kind]))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_python_of_a_page_runs(page: Path, reader):
    document = Sybil(parsers=[PythonCodeBlockParser()], path=str(ROOT)).parse(page)
    examples = list(document.examples())
    assert len(examples) == sum(block.language == "python" for block in blocks(page))
    for example in examples:
        example.evaluate()


def evaluate(page: str) -> None:
    for example in Sybil(parsers=[PythonCodeBlockParser()], path=str(ROOT)).parse(ROOT / page).examples():
        example.evaluate()


def test_the_term_of_the_readme_pulls_the_colour(reader):
    evaluate("README.md")
    tone = registry.build(registry.config_of("guidance", "tone", weight=5.0), "guidance")
    image = torch.full((2, 3, 4, 4), 0.5, requires_grad=True)
    prediction = SimpleNamespace(rendering=SimpleNamespace(image=image, mask=torch.ones(2, 1, 4, 4)))
    target = torch.stack([torch.full((3, 4, 4), 0.5), torch.full((3, 4, 4), 0.7)])
    loss = tone(prediction, SimpleNamespace(image=target))
    assert loss.tolist() == pytest.approx([0, 0.04], abs=1e-6)
    loss.sum().backward()
    assert (image.grad[1] < 0).all()  # descending makes it brighter


def test_the_benchmark_of_the_page_measures(reader):
    evaluate("docs/benchmarks.md")
    Path("photos").mkdir()
    shutil.copy("me.jpg", "photos")
    Image.new("RGB", (96, 96)).save("photos/nobody.png")
    model = FitDiff.load("outputs/fitdiff-laptop/model", "cpu")
    choices = {
        "fitting": registry.config_of("fitting", "guided", steps=2, size=96),
        "guidance": {"mse": model.config["guidance"]["mse"]},
    }
    width = registry.build(registry.config_of("benchmark", "width"), "benchmark")
    found = width(Context(lambda: model, choices, Path("out"), Console(quiet=True)))
    x = model.vertices(model.load_faces("out/fits/me.jpg").require_z())[0, :, 0]
    assert found.summary["width_mm"] == pytest.approx(float(x.max() - x.min()), abs=1e-3)
    assert "nobody.png" in found.notes[0]


def test_a_broken_snippet_is_told(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# x\n\n```python\nfrom fitdiff import NoSuchThing\n```\n")
    document = Sybil(parsers=[PythonCodeBlockParser()], path=str(tmp_path)).parse(page)
    with pytest.raises(ImportError):
        next(iter(document.examples())).evaluate()
