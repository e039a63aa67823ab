"""Whose photos `benchmark=identity` looks at, and which pairs of them are compared."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fitdiff.album.sources import find_sources
from fitdiff.evaluation.benchmark import BenchmarkError

FORM = "two photos, relative to benchmark.path, and 1 for the same person or 0, as in `a/1.jpg b/2.jpg 0`"


@dataclass(frozen=True)
class PersonPhoto:
    """A photo: `name` is unique; photos of one `person` share that."""

    name: str
    path: Path
    person: str


def find_photos(folder: Path, out: Path) -> list[PersonPhoto]:
    """All photos below a folder. Those in one folder below it are of one person; those directly in it each of another.

    Raises:
        PhotoError: there is no photo. BenchmarkError: there is no such folder.
    """
    if not folder.is_dir():
        raise BenchmarkError(f"benchmark.path={folder}: no such folder; give a folder of photos, or one a person in it")
    sources = find_sources(str(folder), out).photos
    return [PersonPhoto(s.name, s.path, s.name.rpartition("/")[0] or s.name) for s in sources]


def read_pairs(path: Path, photos: Sequence[PersonPhoto]) -> list[tuple[str, str, bool]]:
    """Pairs of a list: `photo photo 0|1` a line, tabs between them where names have spaces.

    Raises:
        BenchmarkError: the list cannot be read; a line that is none; a photo that is not there.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"benchmark.pairs={path} cannot be read ({error})") from error
    names, pairs = {photo.name for photo in photos}, []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        parts = line.strip().split("\t") if "\t" in line else line.split()
        if len(parts) != 3 or parts[2] not in ("0", "1"):
            raise BenchmarkError(f"{path}, line {number}: got {line.strip()!r}, expected {FORM}")
        if unknown := [name for name in parts[:2] if name not in names]:
            raise BenchmarkError(f"{path}, line {number}: no photo {unknown[0]!r}; expected {FORM}")
        pairs.append((parts[0], parts[1], parts[2] == "1"))
    if not pairs:
        raise BenchmarkError(f"benchmark.pairs={path} is empty; a line is {FORM}")
    return pairs


def all_pairs(photos: Iterable[PersonPhoto]) -> Iterator[tuple[str, str, bool]]:
    """Every pair of photos, and whether they show one person."""
    for first, second in itertools.combinations(photos, 2):
        yield first.name, second.name, first.person == second.person


def several_of_some(photos: Sequence[PersonPhoto]) -> bool:
    """Whether there are pairs of one person, and pairs of two."""
    people = {photo.person for photo in photos}
    return 1 < len(people) < len(photos)


def pair_rows(
    pairs: Iterable[tuple[str, str, bool]], rows: Mapping[str, int]
) -> tuple[list[tuple[int, int]], list[bool], int]:
    """Pairs as row numbers, whether each is of one person, and how many are left out: a photo of theirs has no row."""
    listed = list(pairs)
    whole = [pair for pair in listed if pair[0] in rows and pair[1] in rows]
    return [(rows[a], rows[b]) for a, b, _ in whole], [same for *_, same in whole], len(listed) - len(whole)
