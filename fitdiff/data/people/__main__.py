"""`python -m fitdiff.data.people out=DIR n=24 size=256`: write a browsable set of people with a contact sheet."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.progress import track

from fitdiff.avatar.pictures import contact_sheet, save_png
from fitdiff.data.people import People
from fitdiff.data.shards import dequantise
from fitdiff.registry import build, config_of
from fitdiff.storage import write_json
from fitdiff.types import SCENE_KEYS, FaceMaps


@dataclass
class Options:
    """What the command line sets."""

    out: str = "outputs/people"  # folder to write
    n: int = 24  # people
    size: int = 256  # side of the maps and portraits, a power of two
    seed: int = 0
    views: int = 2  # portraits a person
    start: int = 0  # first person's index


def main() -> None:
    """Write `NNNNNN/{view0,...,diffuse,specular,normals}.png` and `person.json` for each person, and `sheet.png`."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(f"{__doc__}\n\nOptions and their defaults:\n{OmegaConf.to_yaml(OmegaConf.structured(Options))}")
        return
    console = Console(stderr=True)
    try:
        options = OmegaConf.merge(OmegaConf.structured(Options), OmegaConf.from_cli(sys.argv[1:]))
        _write(options, console)
    except (OmegaConfBaseException, ValueError) as error:
        console.print(f"[bold red]error:[/] {str(error).splitlines()[0]}", highlight=False)
        sys.exit(2)


def _write(options: Options, console: Console) -> None:
    if options.n < 1 or options.size < 32 or options.size & (options.size - 1):
        raise ValueError(f"got n={options.n} size={options.size}; expected n >= 1 and a power of two from 32")
    shape_model = build(config_of("shape_model", "anny_face"), "shape_model")
    identity = build(config_of("identity", "dlib"), "identity")
    renderer = build(config_of("renderer", "torch"), "renderer", topology=shape_model.topology)
    people = People(
        shape_model, identity, renderer, options.size, "browse",
        n=options.n, held_out=0, views=options.views, portrait_size=options.size, seed=options.seed, shard_size=4,
        start=options.start,
    )  # fmt: skip
    people.prepare()
    out, rows = Path(options.out), []
    for row in track(range(options.n), "writing", console=console):
        person = people.train.gather([row], ("identity", "maps", "image", "embedding", *SCENE_KEYS))
        folder = out / f"{options.start + row:06d}"
        views = [image.float() / 255 for image in person["image"][0]]
        maps = FaceMaps.from_tensor(dequantise(person["maps"])).to_images()
        pictures = {f"view{i}": view for i, view in enumerate(views)} | {name: m[0] for name, m in maps.items()}
        for name, picture in pictures.items():
            save_png(picture, folder / f"{name}.png")
        facts = {key: person[key][0].tolist() for key in ("identity", "embedding", *SCENE_KEYS)}
        write_json(folder / "person.json", facts)
        rows.append(list(pictures.values()))
    per_line = max(1, 12 // len(rows[0]))
    lines = [list(itertools.chain(*rows[i : i + per_line])) for i in range(0, len(rows), per_line)]
    save_png(contact_sheet(lines, cell=160), out / "sheet.png")
    console.print(f"results: [bold]{out}[/] ({options.n} people, sheet.png)")


if __name__ == "__main__":
    main()
