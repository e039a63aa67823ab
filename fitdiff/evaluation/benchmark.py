"""What a benchmark (`types.Benchmark`) is called with, a `Context`, and gives, an `Evaluation`.

A benchmark is registered (`@register("benchmark", "mine")`), so that `python evaluate.py benchmark=mine` finds it, and
its constructor's keywords are its options. One with an option `predictions` scores meshes that were made elsewhere, and
asks for no model then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from fitdiff.evaluation.photo_meshes import Meshes

T = TypeVar("T")


class BenchmarkError(ValueError):
    """What is asked of a benchmark cannot be done; the message says what to give instead. `evaluate.py` prints it."""


@dataclass(frozen=True)
class Table:
    """A table of texts, written as Markdown, TSV and LaTeX.

    Attributes:
        header: names of the columns. rows: measured now, cells as texts, in the order of the header.
        published: rows of figures that others published; every format marks them as that. title: a line above it.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    published: Sequence[Sequence[str]] = ()
    title: str = ""


@dataclass
class Evaluation:
    """What a benchmark found.

    Attributes:
        rows: one an item (photo, subject): `name`, and numbers; None where there is none.
        summary: figures of all items. tables: by file name without suffix; the first one's files are `table.*`.
        pictures: by file name without suffix: (H, W, 3) uint8 arrays become JPEG, matplotlib figures PNG.
        notes: what a reader of the figures must know, in sentences.
    """

    rows: list[dict[str, Any]]
    summary: dict[str, float]
    tables: dict[str, Table] = field(default_factory=dict)
    pictures: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass
class Context:
    """What a benchmark has to work with.

    Attributes:
        load: gives the model; `model` calls it once, when it is first wanted.
        choices: config nodes of `sampler`, `guidance`, `fitting`, `detector`, `landmarks`; None: the checkpoint's.
        out: folder of the results, where a benchmark may keep what it resumes from (in folders of its own).
        samples: fits of each photo, of which the best is taken. batch: fits at once.
    """

    load: Callable[[], Any]
    choices: Mapping[str, Any]
    out: Path
    console: Console
    seed: int = 0
    samples: int = 1
    batch: int = 8

    @cached_property
    def model(self) -> Any:
        """The `FitDiff` that is judged.

        Raises:
            CheckpointError: see `FitDiff.load`.
        """
        return self.load()

    def node(self, kind: str) -> Any:
        """The config node of a kind: that of the command line, or the checkpoint's."""
        return self.choices.get(kind) or self.model.config[kind]

    def meshes(self, photos: Mapping[str, Path]) -> Meshes:
        """Fit the photos that have no mesh yet, and give all meshes; see `photo_meshes.fit_meshes`."""
        from fitdiff.evaluation.photo_meshes import fit_meshes

        return fit_meshes(self, photos)

    def track(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        """The items, under a bar that tells how many are done and how long the rest takes.

        Args:
            total: how many there are, where `items` does not know.
        """
        if total is None and isinstance(items, Sized) and not len(items):
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=self.console) as progress:
            yield from progress.track(items, total=total, description=what)
