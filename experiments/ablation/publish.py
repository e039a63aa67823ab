"""Where tables and charts of an experiment go."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from experiments.report import replace_generated, save_chart
from fitdiff.storage import write_atomically


def publish(folder: Path, out: Path, text: str, charts: Mapping[str, Figure], also_readme: bool) -> None:
    """Write table and charts to `out`, and, if asked, into an experiment's README and pictures."""
    write_atomically(out / "table.md", text.encode())
    for name, figure in charts.items():
        save_chart(figure, out / f"{name}.png")
        if also_readme:
            save_chart(figure, folder / "pictures" / f"{name}.png")
    if also_readme:
        replace_generated(folder / "README.md", text)
