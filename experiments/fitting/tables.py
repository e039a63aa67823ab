"""The results as Markdown: what is printed, written to `table.md`, and put into the README."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from experiments.fitting.rivals import GUIDED, WITHOUT
from experiments.report import markdown_table
from fitdiff.evaluation.metrics import METRICS, facts_of
from fitdiff.evaluation.statistics import difference, interval, mean_interval, verdict

Scores = Mapping[str, Mapping[str, NDArray]]
"""method -> metric -> a number a photo."""

IDENTITY = ("novel_id", "novel_id_centred", "frontal_id", "frontal_id_centred", "photo_id", "photo_id_centred", "seconds")  # fmt: skip # noqa: E501
SHAPE = ("shape_mm", "nose_mm", "mouth_mm", "forehead_mm", "cheek_mm", "true_landmarks", "detected_landmarks")
REFLECTANCE = (
    "diffuse_db", "visible_diffuse_db", "specular_db", "normals_db", "ita_degrees", "light_stops", "light_degrees",
)  # fmt: skip
DECISIVE = ("novel_id_centred", "frontal_id_centred", "shape_mm", "diffuse_db", "visible_diffuse_db", "ita_degrees")
"""Metrics by which methods are compared pair by pair."""

DIFFICULT = ("novel_id_centred", "shape_mm", "visible_diffuse_db")
REAL = ("photo_id", "photo_id_centred", "frontal_to_photo_id", "frontal_to_photo_id_centred", "detected_landmarks")
YAWS = (0, 20, 40, 60)
"""Edges of the bins of |yaw| in degrees."""


def metric_table(scores: Scores, metrics: Sequence[str]) -> str:
    """Means with intervals, a line a method."""
    metrics = [m for m in metrics if m in next(iter(scores.values()))]
    rows = [[name, *(interval(row[m], facts_of(m)[1]) for m in metrics)] for name, row in scores.items()]
    return markdown_table(["", *(facts_of(m)[0] for m in metrics)], rows)


def verdict_table(scores: Scores, metrics: Sequence[str] = DECISIVE) -> str:
    """Guided against every other method: the verdict and the paired difference, guided minus other."""
    ours = scores[GUIDED]

    def cell(theirs: Mapping[str, NDArray], metric: str) -> str:
        _, spec, higher_is_better = facts_of(metric)
        said = verdict(ours[metric], theirs[metric], higher_is_better)
        return f"{said} {difference(ours[metric], theirs[metric], spec)}"

    rows = [[name, *(cell(row, m) for m in metrics)] for name, row in scores.items() if name != GUIDED]
    return markdown_table(["guided against", *(facts_of(m)[0] for m in metrics)], rows)


def difficulty_table(scores: Scores, groups: Mapping[str, NDArray], metric: str) -> str:
    """Means of one metric over groups of photos, (n,) bool each."""
    _, spec, _ = facts_of(metric)
    rows = [
        [name, *(_mean(row[metric][chosen], spec) for chosen in groups.values())]
        for name, row in scores.items()
        if not name.startswith(WITHOUT)
    ]
    return markdown_table([facts_of(metric)[0], *(f"{name} ({c.sum()})" for name, c in groups.items())], rows)


def _mean(values: NDArray, spec: str) -> str:
    return format(mean_interval(values)[0], spec) if len(values) else "–"


def groups_of(yaw: NDArray, occluded: NDArray) -> dict[str, NDArray]:
    """Photos by what makes them difficult, (n,) bool each."""
    turned = {f"yaw {a} to {b}°": (np.abs(yaw) >= a) & (np.abs(yaw) < b) for a, b in itertools.pairwise(YAWS)}
    return {**turned, "something before the face": occluded, "nothing before it": ~occluded}


def real_table(scores: Scores, names: Sequence[str]) -> str:
    """Real photos: means over all of them, and the centred photo cosine of each for the guided fit."""
    each = zip(names, scores[GUIDED]["photo_id_centred"], scores[GUIDED]["frontal_to_photo_id_centred"], strict=True)
    lines = [f"{name} {view:.2f} / {frontal:.2f}" for name, view, frontal in each]
    return metric_table(scores, REAL) + "\n\nGuided, centred, in the photo's view / frontal: " + ", ".join(lines) + "."


def all_tables(scores: Scores, groups: Mapping[str, NDArray], real: tuple[Scores, Sequence[str]] | None) -> str:
    """Everything, under headings."""
    judges = [m for m in next(iter(scores.values())) if m not in METRICS]
    parts = [
        "### Identity (cosine) and time\n\n" + metric_table(scores, (*IDENTITY, *judges)),
        "### Shape (mm) and landmarks (eye distances)\n\n" + metric_table(scores, SHAPE),
        "### Reflectance and light\n\n" + metric_table(scores, REFLECTANCE),
        "### Guided against the others, paired\n\n" + verdict_table(scores),
        "### By difficulty\n\n" + "\n\n".join(difficulty_table(scores, groups, m) for m in DIFFICULT),
    ]
    if real:
        parts.append(f"### {len(real[1])} real faces\n\n" + real_table(*real))
    return "\n\n".join(parts)
