"""`python -m fitdiff.data.folder path=DIR [shape_model=anny_face]`: check a folder of people before training on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fitdiff.command import run_command
from fitdiff.data.folder.layout import FolderError, check, find_people, split
from fitdiff.data.folder.rules import Rules
from fitdiff.registry import build, config_of


@dataclass
class Options:
    """What the command line sets."""

    path: str = ""  # the folder
    shape_model: str = "anny_face"  # that the codes and meshes are of
    shape_path: str | None = None  # file of a shape model that needs one
    held_out: float = 0.05


def main() -> None:
    """Say who is there, or everything that is wrong; exit code 2 if something is."""
    run_command(lambda options, console: console.print(report(options)), Options, __doc__)


def report(options: Options) -> str:
    """One line about a folder without faults.

    Raises:
        FolderError: the folder has faults. ValueError: the rules have.
    """
    if not options.path:
        raise FolderError("path= is missing: name the folder that holds a subfolder for each person")
    root = Path(options.path).expanduser()
    people, rules = find_people(root), Rules.load(root)
    train, held_out = split(root, people, options.held_out)
    where = {"path": options.shape_path} if options.shape_path else {}
    shape_model = build(config_of("shape_model", options.shape_model, **where), "shape_model")
    check(people, shape_model)
    photos = sum(len(person.photos) for person in people)
    return f"{len(people)} people ({len(train)} to train on, {len(held_out)} held out), {photos} photos; {rules}"


if __name__ == "__main__":
    main()
