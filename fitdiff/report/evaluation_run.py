"""Reads the result folder of an evaluation: `results.json`, the tables and the pictures beside it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from fitdiff.evaluation.results import RESULTS
from fitdiff.report.runs import (
    NotARunError,
    Number,
    Picture,
    Run,
    Sheet,
    number,
    provenance_facts,
    read_hydra,
    read_object,
)  # fmt: skip
from fitdiff.report.training_run import training_config
from fitdiff.storage import read_json

PICTURES = 12
"""Pictures of one evaluation that are shown; a benchmark may write one a subject."""

LINES = 500
"""Lines of a benchmark's table that are shown."""


def read_evaluation(folder: Path, name: str) -> Run:
    """An evaluation of `evaluate.py`.

    Raises:
        NotARunError: results.json is another program's. RunError: it is damaged.
    """
    results = read_object(folder / RESULTS)
    benchmark = results.get("benchmark")
    if not isinstance(benchmark, str):
        raise NotARunError("results.json names no benchmark: it is not evaluate.py's")
    config, command = read_hydra(folder)
    config = _dict(results.get("config")) or config
    command = results["command"] if isinstance(results.get("command"), str) else command
    run = Run(name, folder, benchmark, config=config, command=command)
    run.compared = config | _trained_as(folder, config)
    run.rows = [row for row in _list(results.get("rows")) if isinstance(row, dict) and "name" in row]
    source = str(folder.resolve())
    summary = {key: number(value) for key, value in _dict(results.get("summary")).items()}
    run.numbers = {key: Number(value, source) for key, value in summary.items() if value is not None}
    run.notes = [str(note) for note in _list(results.get("notes"))]
    run.seconds = number(results.get("seconds"))
    run.facts = _facts(results)
    run.pictures = _pictures(folder, run.notes)
    run.sheets = _sheets(folder, run.notes)
    return run


def _trained_as(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """In place of the checkpoint's path and seal, the config that it was trained with: of checkpoints that differ in
    their seed alone, results are compared as seeds of one training."""
    checkpoint = config.get("checkpoint")
    if not isinstance(checkpoint, str):
        return {}
    # A relative path is one of where the command ran: that is above the results, or at last here.
    for start in (*folder.absolute().parents, Path()):
        model = start / checkpoint
        if _is_of(model, config.get("weights")) and (trained := training_config(model.parent)):
            return {"checkpoint": trained, "weights": None}
    return {}


def _is_of(model: Path, weights: Any) -> bool:
    """Whether a model may have the weights of that seal: not another project's of its name, nor trained again since."""
    known = _dict(read_json(model / "config.json")).get("weights")
    return not known or not weights or known == weights


def _facts(results: dict[str, Any]) -> dict[str, str]:
    facts = {"date": results.get("date"), "config hash": results.get("config_hash")}
    checkpoint = results.get("checkpoint")
    if isinstance(checkpoint, dict):
        facts |= {"checkpoint": checkpoint.get("path"), "weights": str(checkpoint.get("sha256"))[:12]}
    elif checkpoint is not None:
        facts["checkpoint"] = checkpoint
    told = {name: str(value) for name, value in facts.items() if value is not None}
    return told | provenance_facts(results.get("provenance"))


def _pictures(folder: Path, notes: list[str]) -> list[Picture]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if len(paths) > PICTURES:
        notes.append(f"{len(paths) - PICTURES} more pictures are in the run's folder")
    return [Picture(path.stem, "", path) for path in paths[:PICTURES]]


def _sheets(folder: Path, notes: list[str]) -> list[Sheet]:
    sheets = []
    for path in sorted(folder.glob("*.tsv")):
        try:
            lines = list(csv.reader(path.read_text("utf-8").splitlines(), delimiter="\t"))
        except (OSError, ValueError, csv.Error):
            continue
        if len(lines) > 1:
            sheets.append(Sheet(path.stem, lines[0], lines[1 : LINES + 1]))
        if len(lines) > LINES + 1:
            notes.append(f"{path.name} has {len(lines) - 1} lines, of which the first {LINES} are shown")
    return sheets


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
