"""Pictures of the measured people: charts, and sheets of portraits made anew from their indices."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from rich.progress import Progress
from skimage.color import lab2rgb

from experiments.people.analysis import split
from experiments.people.photos import RealFace, nearest_people
from experiments.people.survey import CHUNK, PORTRAITS
from experiments.people.tables import KINDS
from experiments.report import save_chart
from fitdiff.avatar.pictures import contact_sheet
from fitdiff.data.people.maker import PeopleMaker
from fitdiff.data.skin_look import sample_look
from fitdiff.evaluation.separation import DLIB_THRESHOLD, all_pairs
from fitdiff.evaluation.skin_tone import CLASSES, typology_angle
from fitdiff.shape_model.anny_population import sample_population
from fitdiff.storage import write_atomically

CELL = 128
SHEET_PEOPLE, SHEET_COLUMNS = 24, 4
EACH_EXTREME = 6
NEAREST = 5
GENUINE, IMPOSTOR = "#1b7837", "#b2182b"


def save_jpeg(image_HW3: NDArray[np.uint8], path: Path) -> Path:
    """Write a photo-like picture in little space; atomic."""
    buffer = io.BytesIO()
    Image.fromarray(image_HW3).save(buffer, "JPEG", quality=88)
    return write_atomically(path, buffer.getvalue())


def separation_chart(measured: dict[str, NDArray], n_controls: int, results: dict[str, Any], path: Path) -> Path:
    """Histograms of genuine and impostor distances of each kind of portrait."""
    figure = Figure((11, 2.8), layout="constrained")
    axes = figure.subplots(1, len(PORTRAITS), sharex=True, sharey=True)
    for axis, kind in zip(axes, PORTRAITS, strict=True):
        pairs = all_pairs(measured[f"embedding_{kind}"][:n_controls])
        bins = np.linspace(0, 1.1, 67)
        for label, values, colour in (("same", pairs.genuine, GENUINE), ("different", pairs.impostor, IMPOSTOR)):
            axis.hist(values, bins, density=True, color=colour, alpha=0.6, label=f"{label} person")
        axis.axvline(DLIB_THRESHOLD, color="black", linewidth=0.8, linestyle=":")
        axis.set_title(f"{KINDS[kind]}\nAUC {results[kind]['auc'][0]:.4f}", fontsize=9)
        axis.set_xlabel("distance of dlib embeddings", fontsize=8)
        axis.set_yticks([])
    axes[0].legend(fontsize=8)
    return save_chart(figure, path)


def tone_chart(tone_N3: NDArray, results: dict[str, Any], path: Path) -> Path:
    """Histogram of ITA in the colours that skin has there, with the classes' borders and shares."""
    figure = Figure((7.5, 3), layout="constrained")
    axis = figure.subplots()
    angles = typology_angle(tone_N3)
    counts, edges = np.histogram(angles, np.arange(-90, 91, 5))
    which = np.digitize(angles, edges) - 1
    for i in np.flatnonzero(counts):
        axis.bar(edges[i] + 2.5, counts[i], 5, color=lab2rgb(tone_N3[which == i].mean(0)), edgecolor="black", lw=0.4)
    highest, upper = counts.max(), 90.0
    for name, lower in CLASSES.items():
        lower = max(lower, -90.0)
        axis.axvline(lower, color="black", linewidth=0.6, linestyle=":")
        label = f"{name}\n{results['shares'][name]:.0%}"
        axis.text((lower + upper) / 2, highest * 1.08, label, ha="center", va="bottom", fontsize=6.5)
        upper = lower
    axis.set(xlim=(90, -90), ylim=(0, highest * 1.3), xlabel="individual typology angle, degrees", ylabel="people")
    return save_chart(figure, path)


def learning_chart(results: dict[str, Any], path: Path) -> Path:
    """R^2 against training people, with intervals."""
    figure = Figure((5.5, 3.2), layout="constrained")
    axis = figure.subplots()
    for name, curve in results.items():
        people = [row["people"] for row in curve]
        (line,) = axis.plot(people, [row["r2"] for row in curve], marker="o", markersize=3, label=name)
        low, high = ([row[key] for row in curve] for key in ("low", "high"))
        axis.fill_between(people, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axis.set_xscale("log", base=2)
    axis.set_xticks(people, [str(n) for n in people])
    axis.set(xlabel="training people", ylabel="R² from one portrait's embedding", ylim=(min(0, axis.get_ylim()[0]), 1))
    axis.legend(fontsize=8)
    return save_chart(figure, path)


@dataclass(frozen=True)
class Extreme:
    """What people are extreme in, and which (person, view) show it, the most extreme first."""

    name: str
    shown: list[tuple[int, int]]


def find_extremes(measured: dict[str, NDArray], maker: PeopleMaker) -> list[Extreme]:
    """The people with the most and the least of several traits, each in the most frontal portrait."""
    n = len(measured["tone"])
    people = sample_population(maker.seed, torch.arange(n))
    look = sample_look(people, maker.seed)
    ita = typology_angle(measured["tone"])
    scores = {
        "youngest": -people.age, "oldest": people.age, "most female": -people.gender, "most male": people.gender,
        "lightest": ita, "darkest": -ita, "leanest": -people.weight, "heaviest": people.weight,
        "bearded": look.hair.beard.zones.mean(1), "made up": look.foundation + look.blush,
    }  # fmt: skip
    frontal = np.abs(measured["yaw"]).argmin(1)
    return [
        Extreme(name, [(int(i), int(frontal[i])) for i in np.argsort(-np.asarray(score))[:EACH_EXTREME]])
        for name, score in scores.items()
    ]


def sheets(
    measured: dict[str, NDArray], maker: PeopleMaker, faces: list[RealFace], folder: Path, progress: Progress
) -> list[Path]:
    """Write `people.jpg`, `extremes.jpg`, and `nearest.jpg`; the last one also as `nearest_free.jpg`, without the
    photos that may not be published."""
    extremes = find_extremes(measured, maker)
    train, _ = split(len(measured["tone"]))
    embedding = np.stack([face.embedding for face in faces]) if faces else np.zeros((0, 128))
    nearest = nearest_people(embedding, measured["embedding_stored"][train], NEAREST)
    first = list(range(min(SHEET_PEOPLE, len(measured["tone"]))))
    wanted = {*first, *(person for e in extremes for person, _ in e.shown), *nearest.person.ravel().tolist()}
    portrait = _make(maker, sorted(wanted), progress)
    views = range(maker.views)
    lines = [first[i : i + SHEET_COLUMNS] for i in range(0, len(first), SHEET_COLUMNS)]
    people = contact_sheet([[portrait(i, view) for i in line for view in views] for line in lines], cell=CELL)
    rows = [[portrait(*place) for place in extreme.shown] for extreme in extremes]
    written = [
        save_jpeg(people, folder / "people.jpg"),
        save_jpeg(contact_sheet(rows, rows=[e.name for e in extremes], cell=CELL), folder / "extremes.jpg"),
    ]
    for name, keep in (("nearest.jpg", faces), ("nearest_free.jpg", [face for face in faces if face.free])):
        numbers = [i for i, face in enumerate(faces) if face in keep]
        if numbers:
            written.append(save_jpeg(_nearest_sheet(faces, nearest, numbers, portrait), folder / name))
    return written


def _nearest_sheet(faces: list[RealFace], nearest: Any, numbers: list[int], portrait: Callable) -> NDArray[np.uint8]:
    rows = [
        [faces[i].image, *(portrait(p, v) for p, v in zip(nearest.person[i], nearest.view[i], strict=True))]
        for i in numbers
    ]
    labels = [f"{faces[i].name}  {nearest.distance[i, 0]:.2f}" for i in numbers]
    return contact_sheet(rows, rows=labels, cell=CELL)


def _make(maker: PeopleMaker, indices: list[int], progress: Progress) -> Callable[[int, int], NDArray[np.uint8]]:
    """Portraits of some people as a function of (person, view): person i is the same as when it was measured."""
    images: dict[int, NDArray[np.uint8]] = {}
    task = progress.add_task("drawing people", total=len(indices))
    for start in range(0, len(indices), CHUNK):
        part = indices[start : start + CHUNK]
        stored = maker.make(part)["image"].permute(0, 1, 3, 4, 2).cpu().numpy()
        images |= dict(zip(part, stored, strict=True))
        progress.advance(task, len(part))
    return lambda person, view: images[person][view]
