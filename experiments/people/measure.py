"""Measure the synthetic people: `python -m experiments.people.measure [n=1500] [size=256] [seed=0] [out=...]`.

Makes people in memory (nothing is cached), prints tables and writes `results.json`, `table.md` and pictures to `out`.
With `publish=true`, as by default, the tables and pictures of experiments/people/README.md are replaced as well.
"""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import MofNCompleteColumn, Progress

from experiments.people import analysis, pictures
from experiments.people.photos import RealFace, real_faces
from experiments.people.survey import Population, Surveyor, survey
from experiments.people.tables import all_tables
from experiments.report import replace_generated
from fitdiff.command import run_command
from fitdiff.config import config_hash, plain
from fitdiff.data.people import VERSION
from fitdiff.data.workers import cores
from fitdiff.shape_model.anny_population import RACES, sample_population
from fitdiff.storage import write_atomically, write_json
from fitdiff.types import ShapeModel

HERE = Path(__file__).parent
OWN_OPTIONS = {"views": "views", "seed": "seed", "portrait_size": "portrait"}
"""Fields of data=people that have an option of their own."""
FEWEST_PEOPLE, FEWEST_CONTROLS = 20, 2
PUBLISHED = ("people.jpg", "extremes.jpg", "nearest_free.jpg", "separation.png", "tones.png", "learning.png")


@dataclass
class Options:
    """What the command line sets."""

    n: int = 1500  # people; the last fifth is held out from regression and nearest neighbours
    controls: int = 300  # the first of them, whose portraits are also made clean, and by texture and shape alone
    size: int = 256  # side of the maps, a power of two
    portrait: int = 224  # side of the portraits in pixels
    views: int = 3  # portraits a person
    seed: int = 0
    resamples: int = 200  # of the bootstrap
    photos: str | None = None  # folder of your own photos to measure besides those that packages ship
    data: dict[str, Any] = field(default_factory=dict)  # overrides of data=people, as in data.augmentation.jpeg=0
    out: str = "outputs/experiments/people"
    publish: bool = True  # also update the README and its pictures


def main() -> None:
    """Read options, measure, print and write."""
    run_command(_measure, Options, __doc__)


def _measure(options: DictConfig, console: Console) -> None:
    check(options)
    results = run(options, console)
    Console().print(Markdown(all_tables(results)))
    console.print(f"results: {options.out} (table.md, results.json, *.jpg, *.png)")


def check(options: DictConfig) -> None:
    """Refuse what would fail after minutes of work.

    Raises:
        ValueError: too few people, controls or views, no such folder of photos, own photos to be published, or an
            override of the data that has an option of its own.
    """
    if options.n < FEWEST_PEOPLE or not FEWEST_CONTROLS <= options.controls <= options.n or options.views < 2:
        raise ValueError(
            f"got n={options.n} controls={options.controls} views={options.views}; expected n >= {FEWEST_PEOPLE}, "
            f"{FEWEST_CONTROLS} <= controls <= n and views >= 2"
        )
    for key in OWN_OPTIONS.keys() & options.data.keys():
        raise ValueError(f"got data.{key}={options.data[key]}; write {OWN_OPTIONS[key]}={options.data[key]}")
    if options.photos and not Path(options.photos).is_dir():
        raise ValueError(f"photos={options.photos}: no such folder")
    if options.photos and options.publish:
        raise ValueError(
            "got photos and publish=true: what is measured on your photos is not published; add publish=false"
        )


def run(options: DictConfig, console: Console) -> dict[str, Any]:
    """Measure, analyse, draw, and write everything to `options.out`."""
    began = time.monotonic()
    population = Population(options.size, options.portrait, options.views, options.seed, plain(options.data))
    out = Path(options.out)
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console) as progress:
        # Before the workers start: what is built once and cached is then there, and a fault is a plain error.
        surveyor = Surveyor(population)
        measured = survey(population, options.n, options.controls, progress)
        faces = real_faces(surveyor.maker.identity, surveyor.detector, Path(options.photos) if options.photos else None)
        results = analyse(options, measured, surveyor.maker.shape_model, faces, progress)
        draw_charts(options, measured, results, out)
        pictures.sheets(measured, surveyor.maker, faces, out, progress)
    results["run"] = facts(options, population, (time.monotonic() - began) / 60)
    write_json(out / "results.json", results)
    write_atomically(out / "table.md", (all_tables(results) + "\n").encode())
    if options.publish:
        publish(results, out)
    return results


def analyse(
    options: DictConfig,
    measured: dict[str, np.ndarray],
    shape_model: ShapeModel,
    faces: list[RealFace],
    progress: Progress,
) -> dict[str, Any]:
    """All results by the name of their table."""
    jobs = {
        "separation": lambda: analysis.separations(measured, options.controls, options.resamples),
        "detector": lambda: analysis.detector_rates(measured),
        "predictability": lambda: analysis.predictabilities(measured, shape_model, options.resamples),
        "tone": lambda: analysis.tones(measured["tone"]),
        "coverage": lambda: analysis.coverage(measured, phenotypes(options)),
        "real": lambda: analysis.real_distances(measured, faces),
    }
    return {name: compute() for name, compute in progress.track(jobs.items(), description="computing statistics")}


def draw_charts(options: DictConfig, measured: dict[str, np.ndarray], results: dict[str, Any], out: Path) -> None:
    """The pictures that need no portraits."""
    pictures.separation_chart(measured, options.controls, results["separation"], out / "separation.png")
    pictures.tone_chart(measured["tone"], results["tone"], out / "tones.png")
    pictures.learning_chart(results["predictability"], out / "learning.png")


def phenotypes(options: DictConfig) -> dict[str, np.ndarray]:
    """The people's phenotypes by name, (n,) each."""
    people = sample_population(options.seed, torch.arange(options.n))
    columns = {name: getattr(people, name).numpy() for name in analysis.PHENOTYPES}
    return columns | {name: people.race[:, i].numpy() for i, name in enumerate(RACES)}


def facts(options: DictConfig, population: Population, minutes: float) -> dict[str, Any]:
    """What was run, when, and how long it took; the hash names the people and everything that they were measured by."""
    chosen = {key: value for key, value in plain(options).items() if key not in ("out", "publish")}
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith(("out=", "publish="))]
    return {
        **chosen,
        "command": " ".join(["python -m experiments.people.measure", *arguments]),
        "date": str(date.today()),
        "hash": config_hash(VERSION, population.config(), chosen),
        "minutes": minutes,
        "cores": cores(),
    }


def publish(results: dict[str, Any], out: Path) -> None:
    """Replace the generated part of the README, and its pictures."""
    replace_generated(HERE / "README.md", all_tables(results))
    (HERE / "pictures").mkdir(exist_ok=True)
    for name in PUBLISHED:
        if (out / name).exists():
            shutil.copyfile(out / name, HERE / "pictures" / name)


if __name__ == "__main__":
    main()
