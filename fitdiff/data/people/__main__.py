"""`python -m fitdiff.data.people out=DIR n=24 size=256`: write people for `data=folder`, and a contact sheet."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import OmegaConf
from rich.console import Console
from rich.progress import track
from torch import Tensor

from fitdiff.avatar.pictures import contact_sheet, save_png
from fitdiff.command import run_command, usable_device
from fitdiff.data.folder.export import write_person
from fitdiff.data.people import People
from fitdiff.data.people.bench import bench
from fitdiff.data.people.options import Augmentation, Portraits
from fitdiff.data.shards import dequantise
from fitdiff.registry import build, config_of
from fitdiff.types import FaceMaps

BATCH = 4
"""People made at once."""


@dataclass
class Options:
    """What the command line sets."""

    out: str = "outputs/people"  # folder to write
    n: int = 24  # people
    size: int = 256  # side of the maps, a power of two
    portrait_size: int = 224  # side of the portraits, even
    seed: int = 0
    views: int = 2  # portraits a person
    start: int = 0  # first person's index
    device: str = "cpu"  # or cuda
    portraits: Portraits = field(default_factory=Portraits)
    augmentation: Augmentation = field(default_factory=Augmentation)
    bench: bool = False  # measure with batches of n people instead


def main() -> None:
    """Write `NNNNNN/` for each person in the layout of `data=folder` (docs/data.md), and `sheet.png`."""
    run_command(_write, Options, __doc__)


def _write(options: Options, console: Console) -> None:
    if options.n < 1 or options.size < 32 or options.size & (options.size - 1):
        raise ValueError(f"got n={options.n} size={options.size}; expected n >= 1 and a power of two from 32")
    shape_model = build(config_of("shape_model", "anny_face"), "shape_model")
    identity = build(config_of("identity", "dlib"), "identity")
    renderer = build(config_of("renderer", "torch"), "renderer", topology=shape_model.topology)
    people = People(
        shape_model, identity, renderer, options.size, "not cached",
        n=options.n, views=options.views, portrait_size=options.portrait_size, seed=options.seed,
        shard_size=BATCH, start=options.start, device=str(usable_device(options.device)),
        portraits=OmegaConf.to_container(options.portraits), augmentation=OmegaConf.to_container(options.augmentation),
    )  # fmt: skip
    if options.bench:
        console.print(bench(people.maker, options.n))
        return
    out, rows = Path(options.out), []
    for index, person in track(_made(people), "making people", total=options.n, console=console):
        write_person(out / f"{index:06d}", person)
        maps = FaceMaps.from_tensor(dequantise(person["maps"][None])).to_images()
        rows.append([*(person["image"].float() / 255), *(picture[0] for picture in maps.values())])
    per_line = max(1, 12 // len(rows[0]))
    lines = [list(itertools.chain(*rows[i : i + per_line])) for i in range(0, len(rows), per_line)]
    save_png(contact_sheet(lines, cell=160), out / "sheet.png")
    console.print(f"results: {out} ({options.n} people, sheet.png)")


def _made(people: People) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Each training person's index and tensors, without a cache, which could hold those of another face model."""
    end = people.start + people.n
    for first in range(people.start, end, BATCH):
        indices = range(first, min(first + BATCH, end))
        batch = {key: value.cpu() for key, value in people.maker.make(indices).items()}
        for row, index in enumerate(indices):
            yield index, {key: value[row] for key, value in batch.items()}


if __name__ == "__main__":
    main()
