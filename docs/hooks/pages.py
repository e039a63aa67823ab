"""mkdocs hook: the site is the repository's own tree of Markdown, so that one link works there and on the site alike.

Pages keep their places (`README.md`, `docs/uses.md`, `experiments/people/README.md`, ...). The reference is made at
build time by `reference.py` from docstrings and config schemas; nothing of it is committed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

PAGES = ("README.md", "docs/*.md", "fitdiff/**/*.md", "experiments/**/*.md", "examples/**/*.md", "sweeps/*.md")
STYLE = "docs/hooks/site.css"
LINK = re.compile(r"\]\(([^)#:\s]+)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation: every experiment by its own heading, and the reference."""
    experiments: list[Any] = [{"All of them": "docs/experiments.md"}]
    experiments += [{_heading(ROOT / page): page} for page in _present("experiments/*/README.md")]
    config.nav = [*(config.nav or []), {"Experiments": experiments}, {"Reference": _reference().navigation()}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The repository's pages in place of those below `docs_dir` alone, and the generated ones."""
    theme = [
        file for file in files if file.abs_src_path is None or not Path(file.abs_src_path).is_relative_to(ROOT / "docs")
    ]
    pages = list(_present(*PAGES))
    kept = [File(path, str(ROOT), config.site_dir, config.use_directory_urls) for path in (*pages, *_linked(pages))]
    made = [File.generated(config, path, content=text) for path, text in _reference().pages()]
    return Files([*theme, *kept, *made])


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """A link to a folder, which a repository's page shows, leads to the page that the folder has."""
    folder = Path(page.file.src_uri).parent

    def lead(match: re.Match[str]) -> str:
        target = (ROOT / folder / match[2]).resolve()
        inside = match[2] and target.is_dir() and (target / "README.md").exists()
        return f"{match[1]}{match[2].rstrip('/')}/README.md)" if inside else match[0]

    return re.sub(r"(\]\()([^)#:]*)\)", lead, markdown)


def _reference() -> Any:
    """`reference.py`, imported when the site is built: it loads every component."""
    sys.path.insert(0, str(Path(__file__).parent))
    import reference

    return reference


def _present(*patterns: str) -> Iterator[str]:
    """Paths of files below the root, sorted within each pattern."""
    for pattern in patterns:
        for path in sorted(ROOT.glob(pattern)):
            yield path.relative_to(ROOT).as_posix()


def _linked(pages: Iterable[str]) -> list[str]:
    """Files that pages link to and that are none themselves: pictures, sources; and the site's style."""
    found = {STYLE}
    for page in pages:
        targets = ((ROOT / page).parent / link for link in LINK.findall((ROOT / page).read_text()))
        files = (target.resolve() for target in targets if target.is_file() and target.suffix != ".md")
        found |= {file.relative_to(ROOT).as_posix() for file in files if file.is_relative_to(ROOT)}
    return sorted(found)


def _heading(path: Path) -> str:
    """First heading of a page, up to a colon."""
    line = next((line for line in path.read_text().splitlines() if line.startswith("# ")), f"# {path.parent.name}")
    return line[2:].partition(":")[0]
