"""Fit held-out people under hard poses, lights and occluders, and real photos, by every method; table and pictures.

`python -m experiments.fitting.bench [run=...] [n=64] [methods=...] [photos=true] [known=true]`

Fits are stored as they are made: a run that was stopped goes on, and what only changes the metrics fits nothing anew.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import MofNCompleteColumn, Progress, TextColumn
from torch import Tensor

from experiments.fitting import tables
from experiments.fitting.presets import compose_preset
from experiments.fitting.rivals import GUIDED, WITHOUT, rivals
from experiments.fitting.store import Store
from experiments.people.photos import PhotoFace, photo_faces
from experiments.people.pictures import save_jpeg
from experiments.people.survey import yaw_pitch
from experiments.report import replace_generated
from fitdiff.command import run_command
from fitdiff.data.workers import cores
from fitdiff.evaluation.methods import Fit
from fitdiff.evaluation.people import PHOTO, Scorer, Truth, find_faces, known_problem, photo_problem
from fitdiff.evaluation.portraits import hard_people
from fitdiff.evaluation.sheet import photo_rows, sheet
from fitdiff.fitting import FitProblem
from fitdiff.model import FitDiff
from fitdiff.registry import build, config_of
from fitdiff.storage import write_atomically, write_json

HERE = Path(__file__).parent
PUBLISHED = ("people.jpg", "real_free.jpg")
SHOWN = 6
"""People in the picture: drawn by the seed, not by how well they came out."""


@dataclass
class Options:
    """What the command line sets."""

    run: str = "outputs/fitdiff-laptop"  # folder of the training run
    n: int = 64  # held-out people
    batch: int = 8  # photos fitted at once
    methods: list[str] = field(default_factory=list)  # only these, and guided; empty is all
    paper: str = "guidance=paper fitting=guided"  # overrides of fit.py: the paper's preset
    preset: str = ""  # overrides of fit.py: the preset that is compared with everything; empty is fit.py's default
    photos: bool = True  # also the real faces that installed packages ship
    folder: str | None = None  # folder of photos of your own besides
    known: bool = False  # camera, light, expression and landmarks are given; no real photos
    judge: str | None = None  # a second identity network, as in judge=facenet
    seed: int = 0
    device: str = "auto"
    out: str = "outputs/experiments/fitting"
    publish: bool = False  # also update the README and its pictures


@dataclass(frozen=True)
class Batch:
    """Photos that are fitted at once: their names, a problem for each size of crop, and the truth where it is known."""

    names: list[str]
    problems: Mapping[int, FitProblem]
    truth: Truth | None


def main() -> None:
    """Read options, fit, score, print and write."""
    run_command(_bench, Options, __doc__)


def _bench(options: DictConfig, console: Console) -> None:
    bench = Bench(options)
    text = bench.run(console)
    Console().print(Markdown(text))
    console.print(f"results: {bench.out} (table.md, results.json, *.jpg)")


class Bench:
    """All of it, built once.

    Raises:
        ValueError: an unknown method, or own photos that would be published.
    """

    def __init__(self, options: DictConfig) -> None:
        self.options, self.out = options, Path(options.out) / ("known" if options.known else "unknown")
        if options.folder and options.publish:
            raise ValueError("got folder and publish=true: your own photos are not published; add publish=false")
        run = Path(options.run)
        self.model = model = FitDiff.load(run / "model", options.device)
        everyone = rivals(model, compose_preset(options.paper), compose_preset(options.preset), options.seed)
        if unknown := set(options.methods) - everyone.keys():
            raise ValueError(f"methods={sorted(unknown)} is unknown; choose from {list(everyone)}")
        wanted = {*options.methods, GUIDED} if options.methods else set(everyone)
        self.rivals = {name: rival for name, rival in everyone.items() if name in wanted}
        seal = json.loads((run / "model" / "config.json").read_text()).get("weights")
        self.store = Store(Path(options.out) / "fits", model, seal, {"known": options.known})
        self.scorer = Scorer(model)
        self.second = Scorer(model, _judge(options.judge, model.device)) if options.judge else None
        self.detectors = [build(model.config[kind], kind) for kind in ("detector", "landmarks")]

    def run(self, console: Console) -> str:
        """Fit and score everything, write tables and pictures; the tables."""
        began = time.monotonic()
        people = hard_people(self.model, self.options.n)
        faces = None if self.options.known else find_faces(people["image"][:, PHOTO], *self.detectors)
        found = [i for i in range(self.options.n) if faces is None or faces[i] is not None]
        real = self.real_photos()
        steps = sum(-(-len(items) // self.options.batch) for items in (found, real)) * len(self.rivals)
        columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TextColumn("{task.fields[method]}"))
        with Progress(*columns, console=console) as progress:
            self.progress, self.task = progress, progress.add_task("fitting", total=steps, method="")
            drawn = np.random.default_rng(self.options.seed).permutation(len(found))[:SHOWN]
            scores = self.measure(self.people_batches(people, faces, found), "people", set(drawn.tolist()))
            free = sum(face.free for face in real)
            of_real = self.measure(self.real_batches(real), "real", set(range(len(real))), free) if real else None
        yaw = yaw_pitch(people["rotation"][found, PHOTO][:, None])[0][:, 0].numpy()
        groups = tables.groups_of(yaw, people["occluded"][found].bool().numpy())
        names = [face.name for face in real]
        text = self.facts(len(found), (time.monotonic() - began) / 60)
        text += "\n\n" + tables.all_tables(scores, groups, (of_real, names) if of_real else None)
        self.write(text, scores, of_real, found, names)
        return text

    def real_photos(self) -> list[PhotoFace]:
        """Real faces, those that may be published first."""
        if self.options.known or not (self.options.photos or self.options.folder):
            return []
        own = Path(self.options.folder) if self.options.folder else None
        return sorted(photo_faces(*self.detectors, own), key=lambda face: not face.free)

    def people_batches(self, people: dict[str, Tensor], faces: list | None, found: Sequence[int]) -> Iterator[Batch]:
        """Found people, a batch at a time; observation and first scene are made once for all methods."""
        for start in range(0, len(found), self.options.batch):
            rows = list(found[start : start + self.options.batch])
            some = {key: value[rows].to(self.model.device) for key, value in people.items()}
            names = [f"person {row}" for row in rows]
            if faces is None:
                problem = known_problem(self.model, some, {})
                yield Batch(names, dict.fromkeys(self.sizes, problem), Truth.of(some))
            else:
                problems, square = self.problems([faces[row] for row in rows])
                yield Batch(names, problems, Truth.of(some, square))

    def real_batches(self, real: Sequence[PhotoFace]) -> Iterator[Batch]:
        """Real faces, a batch at a time."""
        for start in range(0, len(real), self.options.batch):
            some = real[start : start + self.options.batch]
            problems, _ = self.problems([item.face for item in some])
            yield Batch([item.name for item in some], problems, None)

    @property
    def sizes(self) -> set[int]:
        """Sides of crops that the methods want."""
        return {rival.size for rival in self.rivals.values()}

    def problems(self, faces: Sequence[Any]) -> tuple[dict[int, FitProblem], Tensor]:
        """A problem for each size, and the squares of the photos, which are the same for all sizes."""
        made = {size: photo_problem(self.model, faces, {}, size) for size in self.sizes}
        return {size: problem for size, (problem, _) in made.items()}, next(iter(made.values()))[1]

    def measure(
        self, batches: Iterator[Batch], kind: str, shown: set[int], free: int = 0
    ) -> dict[str, dict[str, np.ndarray]]:
        """method -> metric -> (n,) over all batches; writes the pictures of the kind on the way.

        Args:
            shown: which photos are in the picture. free: the first so many of them are in a picture of their own.
        """
        parts: dict[str, list[dict[str, Tensor]]] = {name: [] for name in self.rivals}
        rows, labels = [], []
        shown_methods = [name for name in self.rivals if not name.startswith(WITHOUT)]
        done = 0
        for batch in batches:
            fits = {}
            for name, rival in self.rivals.items():
                self.progress.update(self.task, method=name)
                fits[name] = self.store.get(rival, batch.names, batch.problems[rival.size])
                parts[name].append(self.score(fits[name], batch))
                self.progress.advance(self.task)
            chosen = [i for i in range(len(batch.names)) if done + i in shown]
            image = batch.problems[self.rivals[GUIDED].size].observation.image
            rows += photo_rows(self.model, image, {k: fits[k] for k in shown_methods}, batch.truth, chosen)
            labels += [batch.names[i] for i in chosen]
            done += len(batch.names)
        if rows:
            columns = shown_methods, kind == "people"
            save_jpeg(sheet(rows, labels, *columns), self.out / f"{kind}.jpg")
            if 0 < free < len(labels):
                save_jpeg(sheet(rows[: 2 * free], labels[:free], *columns), self.out / f"{kind}_free.jpg")
        return {name: _join(rows_of) for name, rows_of in parts.items()}

    def score(self, fit: Fit, batch: Batch) -> dict[str, Tensor]:
        """All metrics of a fit, (B,) each."""
        problem = batch.problems[self.rivals[GUIDED].size]
        scores = self.scorer.of_photo(problem, fit.z, fit.scene)
        if batch.truth is not None:
            scores |= self.scorer.of_truth(fit.z, fit.scene, batch.truth)
        if self.second is not None:
            other = self.second.of_photo(problem, fit.z, fit.scene)
            if batch.truth is not None:
                other |= self.second.of_truth(fit.z, fit.scene, batch.truth)
            scores |= {f"{self.options.judge}_{key}": value for key, value in other.items() if key.endswith("_id")}
        return {**scores, "seconds": torch.full((len(fit.z),), fit.seconds)}

    def facts(self, found: int, minutes: float) -> str:
        """What was run, when, and how many faces were found."""
        words = [word for word in sys.argv[1:] if not word.startswith(("out=", "run=", "publish="))]
        scene = "given as it was made" if self.options.known else f"unknown; faces found: {found} of {self.options.n}"
        return (
            f"Command: `{' '.join(['python -m experiments.fitting.bench', *words])}`. Date: {date.today()}. "
            f"{self.options.n} held-out people, scene {scene}. Batches of {self.options.batch}, {cores()} cores, "
            f"{torch.get_num_threads()} threads; {minutes:.1f} minutes with what was stored before."
        )

    def write(
        self, text: str, scores: tables.Scores, real: tables.Scores | None, found: list[int], names: list[str]
    ) -> None:
        """`results.json`, `table.md`, and where wanted the README and its pictures."""
        results = {"people": found, "scores": _plain(scores), "photos": names, "real": _plain(real or {})}
        write_json(self.out / "results.json", results)
        write_atomically(self.out / "table.md", (text + "\n").encode())
        if self.options.publish:
            replace_generated(HERE / "README.md", text, self.out.name)
            (HERE / "pictures").mkdir(exist_ok=True)
            for name in PUBLISHED:
                if (self.out / name).exists():
                    shutil.copyfile(self.out / name, HERE / "pictures" / f"{self.out.name}_{name}")


def _judge(name: str, device: torch.device) -> Any:
    return build(config_of("identity", name), "identity").to(device).eval()


def _join(parts: Sequence[dict[str, Tensor]]) -> dict[str, np.ndarray]:
    return {key: torch.cat([part[key] for part in parts]).cpu().numpy() for key in parts[0]}


def _plain(scores: tables.Scores) -> dict[str, dict[str, list[float]]]:
    return {
        name: {key: np.round(value.astype(float), 5).tolist() for key, value in row.items()}
        for name, row in scores.items()
    }


if __name__ == "__main__":
    main()
