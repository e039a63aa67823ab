"""What the documentation tells its readers to type: every command line of README and docs, and what each says it needs.

A fenced `bash` block is read line by line. What cannot run here is marked: a block by `<!-- needs: gpu -->` on the line
before it, a line by a comment that ends with `(needs: gpu)`. Inline code that starts as a command counts, too, unless
it holds a placeholder.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

PAGES = ("README.md", "docs/*.md", "fitdiff/**/*.md", "experiments/**/*.md", "examples/**/*.md", "sweeps/*.md")
GATED = "gated data"
NEEDS = ("gpu", GATED, "download", "cluster", "another checkout", "a display", "network")
"""What a command may need that this machine does not have."""

INLINE = re.compile(
    r"(?<!`)`((?:python |make |accelerate launch --|(?:train|prepare|fit|sample|evaluate)\.py )[^`]*)`(?!`)"
)
PLACEHOLDER = re.compile(r"…|\.\.\.|<\w+>|NAME|KEY")
MARK = re.compile(r"<!-- needs: (.+?) -->")
LINE_MARK = re.compile(r"\(needs: ([^)]+)\)\s*$")


@dataclass(frozen=True)
class Command:
    """A line that a reader may type.

    Attributes:
        page: relative to the root. line: from 1. text: as it stands, continuations joined.
        words: split as a shell does. needs: what it is said to need; None: nothing, so that it runs here.
    """

    page: str
    line: int
    text: str
    words: tuple[str, ...]
    needs: str | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line} {' '.join(self.words)[:90]}"


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, first line (from 1), language, text, and what the comment before it says it needs."""

    page: str
    line: int
    language: str
    text: str
    needs: str | None


def pages() -> list[Path]:
    """Every page of the repository."""
    return [path for pattern in PAGES for path in sorted(ROOT.glob(pattern))]


def blocks(path: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    lines = path.read_text().splitlines()
    begin = None
    for number, line in enumerate(lines):
        fence = re.match(r"\s*```(\S*)", line)
        if fence and begin is None:
            begin, language = number, fence[1]
        elif fence and begin is not None:
            before = next((text for text in reversed(lines[:begin]) if text.strip()), "")
            mark = MARK.search(before)
            text = "\n".join(lines[begin + 1 : number])
            yield Block(_name(path), begin + 2, language, text, mark and mark[1])
            begin = None


def commands(path: Path) -> Iterator[Command]:
    """The command lines of a page: of its `bash` blocks, and inline."""
    for block in blocks(path):
        if block.language in ("bash", "sh", "console"):
            yield from _of_block(block)
    prose = re.sub(r"^\s*```.*?^\s*```", lambda match: "\n" * match[0].count("\n"), path.read_text(), flags=re.M | re.S)
    for match in INLINE.finditer(prose):
        text = " ".join(match[1].split())
        if not PLACEHOLDER.search(text):
            line = prose[: match.start()].count("\n") + 1
            words = shlex.split(text)
            words = ["python", *words] if words[0].endswith(".py") else words
            yield Command(_name(path), line, text, tuple(words))


def _of_block(block: Block) -> Iterator[Command]:
    if block.needs not in (None, GATED):  # may be anything: a script of Slurm's, another project's commands
        yield Command(block.page, block.line, block.text, (), block.needs)
        return
    joined = re.sub(r"\\\n\s*", lambda match: "\0", block.text)
    number = block.line
    for line in joined.split("\n"):
        text = line.replace("\0", " ")
        words = tuple(shlex.split(text, comments=True))
        mark = LINE_MARK.search(text)
        if words:
            yield Command(block.page, number, text, words, mark[1] if mark else block.needs)
        number += 1 + line.count("\0")


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def distinct() -> list[Command]:
    """Every command line once: pages share many of them, and what only a comment tells apart runs once."""
    found: dict[object, Command] = {}
    for path in pages():
        for command in commands(path):
            found.setdefault((command.words or command.text, command.needs is None), command)
    return list(found.values())
