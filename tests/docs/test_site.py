"""The site builds without a warning, asks nothing of the network, and its reference has what the registry has."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fitdiff import registry
from tests.conftest import ROOT

LOADS = re.compile(r"<(?:script|img|link|iframe)\b[^>]*?\b(?:src|href)=\"((?:https?:)?//[^\"]+)\"[^>]*>")


def build(folder: Path, config: Path = ROOT / "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("mkdocs"), "build", "--strict", "-f", config, "--site-dir", folder]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_nothing_is_fetched_from_the_network(site):
    for page in site.rglob("*.html"):
        assert not [url for url in LOADS.findall(page.read_text()) if 'rel="canonical"' not in url], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(\s*[\"']?(https?:)?//", sheet.read_text()), sheet


def test_every_component_is_in_the_reference_with_its_options(site):
    registry.load_plugins()
    for kind in registry.kinds():
        text = (site / "reference" / "components" / f"{kind}.html").read_text()
        for name in registry.names(kind):
            if not registry._components[kind, name].__module__.startswith("fitdiff."):
                continue  # other tests' toys
            assert f"<code>{name}</code>" in text, (kind, name)
            for option in registry.config_of(kind, name):
                assert option == "_target_" or f"<code>{option}</code>" in text, (kind, name, option)


def test_defaults_and_docstring_lines_stand_beside_the_options(site):
    text = (site / "reference" / "components" / "fitting.html").read_text()
    row = re.search(r"<tr>\s*<td><code>refine_rate</code></td>.*?</tr>", text, re.S)[0]
    assert "<code>0.05</code>" in row
    assert "decaying to a tenth" in row
    assert "refine_prior" not in row  # which shares its line in the docstring


def test_angle_brackets_of_comments_are_text(site):
    assert "null: &lt;outputs&gt;/evaluations/&lt;name&gt;" in (site / "reference/configs/evaluate.html").read_text()


def test_every_key_of_the_commands_is_in_the_reference(site):
    from dataclasses import fields

    from fitdiff import config

    for name in ("train", "prepare", "fit", "sample", "evaluate"):
        text = (site / "reference" / "configs" / f"{name}.html").read_text()
        for field in fields(getattr(config, f"{name.capitalize()}Config")):
            linked = f'href="../components/{field.name}.html"'  # a group, whose page has its components
            assert f"<code>{field.name}</code>" in text or linked in text, (name, field.name)


def test_pages_of_the_repository_keep_their_places_and_pictures(site):
    assert 'src="experiments/laptop/pictures/astronaut.png"' in (site / "index.html").read_text()
    assert (site / "experiments" / "laptop" / "pictures" / "astronaut.png").exists()
    for readme in ROOT.glob("experiments/*/README.md"):
        assert (site / readme.relative_to(ROOT).with_name("index.html")).exists(), readme


def test_a_page_that_is_not_there_fails_the_build(tmp_path):
    """In a copy of the config, without the plug-in that takes most of the time."""
    text = (ROOT / "mkdocs.yml").read_text().replace("docs/method.md", "docs/no_such_page.md")
    text = re.sub(r"  - mkdocstrings:.*?(?=^markdown_extensions)", "", text, flags=re.M | re.S)
    text = text.replace("docs_dir: docs", f"docs_dir: {ROOT / 'docs'}")
    text = text.replace("hooks: [docs/hooks/pages.py]", f"hooks: [{ROOT / 'docs/hooks/pages.py'}]")
    (tmp_path / "mkdocs.yml").write_text(text)
    done = build(tmp_path / "site", tmp_path / "mkdocs.yml")
    assert done.returncode != 0
    assert "no_such_page" in done.stderr
