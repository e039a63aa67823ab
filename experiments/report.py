"""What experiments share: tables in Markdown, charts, and the generated part of a README."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from fitdiff.storage import write_atomically

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
