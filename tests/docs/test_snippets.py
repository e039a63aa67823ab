"""Python blocks of README and docs run, by sybil, as a reader's session of one page: later blocks see earlier ones.

The walk-through of docs/extend.md is held against the package that it shows (tests/plugins/test_toon.py).
"""

import shutil
from pathlib import Path

import pytest
import skimage.data
from hydra.core.config_store import ConfigStore
from PIL import Image
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from fitdiff import registry
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


def test_a_broken_snippet_is_told(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# x\n\n```python\nfrom fitdiff import NoSuchThing\n```\n")
    document = Sybil(parsers=[PythonCodeBlockParser()], path=str(tmp_path)).parse(page)
    with pytest.raises(ImportError):
        next(iter(document.examples())).evaluate()
