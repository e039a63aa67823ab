"""What experiments share: tables in Markdown, charts, the generated part of a README, and the command that makes it."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fitdiff.command import SPELLED
from fitdiff.storage import write_atomically

PATHS, UNSAID = ("checkpoint", "path"), ("outputs", "out", "publish")
"""Options that are places on this machine, and those that decide no figure."""

BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; every row as long as the header.

    Raises:
        ValueError: a row of another length.
    """
    lines = [list(header), ["---"] * len(header), *map(list, rows)]
    for line in lines:
        if len(line) != len(header):
            raise ValueError(f"got a row of {len(line)} cells, expected {len(header)}: {line}")
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def command_line(module: str, options: Any, kind: type) -> str:
    """`python -m <module> key=value ... publish=true`: every option that differs from its default, as it is typed.

    Of files and folders of this machine it says the name alone, and nothing of where results are written.

    Args:
        kind: dataclass of the options, whose defaults count.
    """
    pairs = {key: (_typed(key, options[key]), _typed(key, default)) for key, default in vars(kind()).items()}
    words = [f"{key}={text}" for key, (text, default) in pairs.items() if key not in UNSAID and text != default]
    return " ".join(["python -m", module, *words, "publish=true"])


def name_of_place(path: str | Path) -> str:
    """Last part of a path, `run/model` of a checkpoint: what a place is called on any machine."""
    parts = Path(path).parts
    return "/".join(parts[-2:] if parts[-1:] == ("model",) else parts[-1:])


def _typed(key: str, value: Any) -> str:
    if key in PATHS and value is not None:
        return name_of_place(value)
    several = isinstance(value, Sequence) and not isinstance(value, str)
    text = f"[{','.join(map(str, value))}]" if several else str(value)
    return SPELLED.get(text, text)


def replace_generated(path: Path, text: str, part: str = "") -> Path:
    """Put `text` between the markers of a README, in place of what stood there.

    Args:
        part: name in the first marker, `<!-- generated: begin name -->`, where a README has several generated parts.

    Raises:
        ValueError: the file lacks the markers.
    """
    old, marker = path.read_text(), BEGIN.replace("begin", f"begin {part}".strip())
    before, begin, rest = old.partition(marker)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path}: expected the lines {marker} and {END}; put them where the generated text belongs")
    return write_atomically(path, f"{before}{marker}\n\n{text.strip()}\n\n{END}{after}".encode())


def save_chart(figure: Figure, path: Path) -> Path:
    """Write a chart as PNG; atomic, and the same file wherever it is drawn anew (no software's version in it)."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return write_atomically(path, buffer.getvalue())
