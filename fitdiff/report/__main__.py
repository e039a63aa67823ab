"""One self-contained HTML page of any training runs and evaluations: tables, curves, config diffs, pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from fitdiff.command import run_command
from fitdiff.report import find_runs, render
from fitdiff.storage import write_atomically


@dataclass
class Options:
    """What the command line sets."""

    runs: str = "outputs/*"  # folders of runs, or folders that hold some; globs; several as [a,b]
    out: str = "report.html"  # the page to write
    base: str | None = None  # run or group that the others are compared with; null: the first
    title: str | None = None  # null: the folder's name


def main() -> None:
    """Write the page."""
    run_command(write, Options, __doc__)


def write(options: Options, console: Console) -> None:
    """Render the runs that the options name.

    Raises:
        ValueError: there is no run that can be read, or no run is called as `base` says.
    """
    found = find_runs(options.runs)
    if not found.runs:
        reasons = "".join(f"; {problem.where}: {problem.reason}" for problem in found.problems)
        raise ValueError(
            f"runs={options.runs}: no run found; a run is a folder with stages.json (train.py) or results.json "
            f"(evaluate.py), and is looked for in the folders inside, too{reasons}"
        )
    page = render(found, base=options.base, title=options.title).encode()
    out = write_atomically(Path(options.out), page)
    for problem in found.problems:
        console.print(f"note: {problem.where}: {problem.reason}")
    count = f"{len(found.runs)} run{'s' * (len(found.runs) != 1)}"
    console.print(f"results: {out} ({count}, {len(page) / 1e6:.2f} MB)")


if __name__ == "__main__":
    main()
