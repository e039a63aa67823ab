"""An evaluation on disk: results.json, table.md, .tsv and .tex, and pictures."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fitdiff.evaluation.benchmark import Evaluation, Table
from fitdiff.storage import read_json, write_atomically, write_json

RESULTS = "results.json"
MEASURED, PUBLISHED = "this run", "as published"
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "°": r"$^\circ$", "–": "--", "−": "$-$",
}  # fmt: skip
"""Characters that LaTeX reads otherwise."""


def write_evaluation(folder: Path, evaluation: Evaluation, about: Mapping[str, Any]) -> Path:
    """Write everything; results.json is the last, so that a folder which has it is whole.

    What an earlier evaluation wrote here is removed first, as its results.json lists it; nothing else is touched.

    Args:
        about: the head of results.json: benchmark, name, date, config, ...

    Returns:
        Path of results.json.

    Raises:
        ValueError: a row of a table has another length than its header; nothing is removed then.
    """
    files = _files_of(evaluation)
    _remove_former(folder)
    for name, data in files.items():
        write_atomically(folder / name, data)
    results = {
        **about,
        "rows": [_numbers(row) for row in evaluation.rows],
        "summary": _numbers(evaluation.summary),
        "notes": list(evaluation.notes),
        "files": list(files),
    }
    return write_json(folder / RESULTS, results)


def _files_of(evaluation: Evaluation) -> dict[str, bytes]:
    """Tables and pictures by file name."""
    files: dict[str, bytes] = {}
    tables = dict(zip(_file_names(evaluation.tables), evaluation.tables.values(), strict=True))
    if tables:
        notes = "\n".join(f"- {note}" for note in evaluation.notes)
        text = "\n\n".join([*map(markdown, tables.values()), notes])
        files["table.md"] = (text.strip() + "\n").encode()
    for name, table in tables.items():
        files |= {f"{name}.tsv": tsv(table).encode(), f"{name}.tex": latex(table).encode()}
    for name, picture in evaluation.pictures.items():
        suffix, data = _encoded(picture)
        files[f"{name}{suffix}"] = data
    return files


def _remove_former(folder: Path) -> None:
    former = read_json(folder / RESULTS)
    for name in former.get("files", []) if isinstance(former, dict) else []:
        if Path(name).name == name:  # a results.json of a stranger's names nothing outside of its folder
            (folder / name).unlink(missing_ok=True)
    (folder / RESULTS).unlink(missing_ok=True)


def markdown(table: Table) -> str:
    """The table as GitHub reads it, under its title."""
    header, rows = _marked(table)
    cells = [[cell.replace("|", r"\|").replace("\n", " ") for cell in row] for row in [header, *rows]]
    lines = [cells[0], ["---"] + ["---:"] * (len(header) - 1), *cells[1:]]
    return (f"**{table.title}**\n\n" if table.title else "") + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tsv(table: Table) -> str:
    """A header line, and a line a row."""
    header, rows = _marked(table)
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def latex(table: Table) -> str:
    r"""A `tabular` with the rules of booktabs (`\usepackage{booktabs}`); published rows follow a rule of their own."""
    header, rows = _marked(table)
    lines = [" & ".join(map(_escape, row)) + r" \\" for row in [header, *rows]]
    lines.insert(1, r"\midrule")
    if table.published and table.rows:
        lines.insert(2 + len(table.rows), r"\midrule")
    head = rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}"
    comment = [f"% {table.title}"] if table.title else []
    return "\n".join([*comment, head, r"\toprule", *lines, r"\bottomrule", r"\end{tabular}", ""])


def _marked(table: Table) -> tuple[list[str], list[list[str]]]:
    """Header and rows, with a column that says whose figures they are where some are published ones.

    Raises:
        ValueError: a row of another length than the header.
    """
    for row in [*table.rows, *table.published]:
        if len(row) != len(table.header):
            raise ValueError(f"got a row of {len(row)} cells, expected {len(table.header)}: {row}")
    if not table.published:
        return list(table.header), [list(row) for row in table.rows]
    rows = [[*row, MEASURED] for row in table.rows] + [[*row, PUBLISHED] for row in table.published]
    return [*table.header, "figures"], rows


def _escape(text: str) -> str:
    return re.sub("|".join(map(re.escape, LATEX)), lambda match: LATEX[match[0]], text)


def _file_names(tables: Mapping[str, Table]) -> Sequence[str]:
    return ["table", *list(tables)[1:]] if tables else []


def _encoded(picture: Any) -> tuple[str, bytes]:
    """Suffix and content of a picture's file."""
    data = io.BytesIO()
    if isinstance(picture, np.ndarray):
        Image.fromarray(picture).save(data, "JPEG", quality=90)
        return ".jpg", data.getvalue()
    picture.savefig(data, format="png", dpi=130, metadata={"Software": None})
    return ".png", data.getvalue()


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values for JSON: no number of NumPy's, None for what is not finite."""
    return {key: _number(value) for key, value in row.items()}


def _number(value: Any) -> Any:
    if isinstance(value, (np.floating, np.integer, np.bool_)):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value
