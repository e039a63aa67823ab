"""Finding the runs in folders and globs."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fitdiff.evaluation.results import RESULTS
from fitdiff.report.evaluation_run import read_evaluation
from fitdiff.report.runs import NotARunError, Problem, Run, RunError, natural
from fitdiff.report.training_run import read_training

READERS = {"stages.json": read_training, RESULTS: read_evaluation}
"""The file that makes a folder a run, and what reads the folder."""

OTHER_FOLDERS = ("stages", "multirun", "wandb", "dashboards", "model")
"""Never holds runs: shared stages, Hydra's own, the trackers', weights."""

DEPTH = 6
"""Folders below one that is named in which runs are looked for."""


@dataclass
class Found:
    """Runs in the order of their names, and what could not be read."""

    runs: list[Run] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def find_runs(request: str) -> Found:
    """Read all runs of a request.

    Args:
        request: a folder, a file of one, or a glob, or several as `[a,b]` or `a,b`. A folder that is no run is
            searched for runs.
    """
    folders, problems = run_folders(request)
    found = Found(problems=problems)
    parent = _common_parent(folders)
    for folder in folders:
        name = os.path.relpath(folder, parent)
        for reader in (READERS[file] for file in READERS if (folder / file).is_file()):
            try:
                found.runs.append(reader(folder, Path(name).as_posix()))
            except NotARunError:
                continue
            except RunError as error:
                found.problems.append(Problem(name, str(error)))
    return found


def run_folders(request: str) -> tuple[list[Path], list[Problem]]:
    """Folders of the runs of a request, by name, and the parts of it that name nothing. See `find_runs`."""
    folders, problems = [], []
    for word in _words(request):
        # A name with brackets is a name first, a pattern only if there is no such folder.
        paths = [word] if os.path.exists(word) else sorted(glob.glob(word, recursive=True))
        if not paths:
            problems.append(Problem(word, "nothing there"))
        folders += [folder for path in paths for folder in _runs_below(Path(path))]
    folders = list({folder.resolve(): folder for folder in folders}.values())
    return sorted(folders, key=lambda folder: natural(str(folder))), problems


def _words(request: str) -> list[str]:
    if os.path.exists(request):
        return [request]
    inner = request[1:-1] if request.startswith("[") and request.endswith("]") and "," in request else request
    return [os.path.expanduser(word.strip().strip("\"'")) for word in inner.split(",") if word.strip()]


def _runs_below(path: Path, depth: int = DEPTH) -> Iterator[Path]:
    if not path.is_dir():
        if path.name in READERS:
            yield path.parent
        return
    if any((path / file).is_file() for file in READERS):
        yield path
        return
    if depth:
        try:
            below = sorted(path.iterdir())
        except OSError:
            return
        for folder in below:
            if folder.is_dir() and folder.name not in OTHER_FOLDERS and not folder.name.startswith("."):
                yield from _runs_below(folder, depth - 1)


def _common_parent(folders: list[Path]) -> Path:
    """Of which run names are relative: of one run, the folder that it is in. Links are not followed: a run is called
    as it was asked for, wherever its disk is."""
    if not folders:
        return Path()
    whole = [os.path.abspath(folder) for folder in folders]
    common = os.path.commonpath(whole)
    return Path(common).parent if common in whole else Path(common)
