"""What `benchmark=people` says: a row a person, tables of methods with intervals, and the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fitdiff.evaluation.benchmark import Evaluation, Table
from fitdiff.evaluation.metrics import facts_of
from fitdiff.evaluation.people_scores import Method, Part, PeopleScores
from fitdiff.evaluation.sheet import photo_rows, sheet
from fitdiff.evaluation.statistics import difference, interval, mean_interval, verdict

HEADLINE = (
    "novel_id_centred", "frontal_id_centred", "shape_mm", "diffuse_db", "visible_diffuse_db", "ita_degrees",
    "light_degrees", "true_landmarks", "seconds",
)  # fmt: skip
IDENTITY = (
    "photo_id", "photo_id_centred", "novel_id", "novel_id_centred", "frontal_id", "frontal_id_centred",
    "frontal_to_photo_id", "frontal_to_photo_id_centred",
)  # fmt: skip
SHAPE = ("shape_mm", "nose_mm", "mouth_mm", "forehead_mm", "cheek_mm", "true_landmarks", "detected_landmarks")
REFLECTANCE = (
    "diffuse_db", "visible_diffuse_db", "specular_db", "normals_db", "ita_degrees", "light_stops", "light_degrees",
)  # fmt: skip
COMPARED = ("novel_id_centred", "frontal_id_centred", "shape_mm", "diffuse_db", "visible_diffuse_db", "ita_degrees")

Scores = Mapping[str, Mapping[str, NDArray]]
"""Method -> metric -> (n,); NaN for people whose face was not found."""


def evaluation_of(asked: Any, scores: PeopleScores, parts: Sequence[tuple[Method, Part]]) -> Evaluation:
    """Everything that is written.

    Args:
        asked: the benchmark's options. parts: each method's result of each batch.
    """
    judged = asked.methods[-1]
    table = joined(asked, parts)
    named = {metric if m == judged else f"{m}/{metric}": v for m, of in table.items() for metric, v in of.items()}
    rows = [{"name": f"person {i}", **{key: float(v[i]) for key, v in named.items()}} for i in range(asked.n)]
    summary = {key: mean_interval(values)[0] for key, values in named.items()}
    found = sum(len(part.rows) for method, part in parts if method.name == judged)
    pictures = _pictures(asked, scores, parts)
    return Evaluation(rows, {**summary, "faces_found": found}, tables(table, judged), pictures, _notes(asked, found))


def joined(asked: Any, parts: Sequence[tuple[Method, Part]]) -> dict[str, dict[str, NDArray]]:
    """Method -> metric -> (n,)."""
    table: dict[str, dict[str, NDArray]] = {name: {} for name in asked.methods}
    for method, part in parts:
        for metric, values in part.scores.items():
            table[method.name].setdefault(metric, np.full(asked.n, np.nan))[part.rows] = values
    return table


def tables(scores: Scores, judged: str) -> dict[str, Table]:
    """Means with 95% intervals over people; the judged method against the others."""
    known = {*HEADLINE, *IDENTITY, *SHAPE, *REFLECTANCE}
    others = [metric for metric in scores[judged] if metric not in known]
    made = {
        "people": _means(scores, HEADLINE, "Means over people, and their 95% intervals"),
        "identity": _means(scores, IDENTITY, "Identity: cosines of the network that guides the fit"),
        "shape": _means(scores, SHAPE, "Shape after similarity alignment; landmarks in distances of the eyes"),
        "reflectance": _means(scores, REFLECTANCE, "Maps and light"),
    }
    if others:
        made["others"] = _means(scores, others, "Other judges and surfaces")
    if len(scores) > 1:
        made["paired"] = _paired(scores, judged)
    return made


def _means(scores: Scores, metrics: Sequence[str], title: str) -> Table:
    header = ["method", *(facts_of(metric)[0] for metric in metrics)]
    none = np.array([np.nan])
    rows = [
        [name, *(interval(of.get(metric, none), facts_of(metric)[1]) for metric in metrics)]
        for name, of in scores.items()
    ]
    return Table(header, rows, title=title)


def _paired(scores: Scores, judged: str) -> Table:
    """Differences, judged minus other, on the same people."""

    def cell(theirs: Mapping[str, NDArray], metric: str) -> str:
        if metric not in theirs or metric not in scores[judged]:
            return "–"
        _, spec, higher_is_better = facts_of(metric)
        pair = scores[judged][metric], theirs[metric]
        return f"{verdict(*pair, higher_is_better)} {difference(*pair, spec)}"

    header = [f"{judged} against", *(facts_of(metric)[0] for metric in COMPARED)]
    rows = [[name, *(cell(of, metric) for metric in COMPARED)] for name, of in scores.items() if name != judged]
    return Table(header, rows, title=f"Paired differences, {judged} minus the other")


def _pictures(asked: Any, scores: PeopleScores, parts: Sequence[tuple[Method, Part]]) -> dict[str, NDArray]:
    """Photo, truth and every method, of a few people who are drawn by the seed."""
    found = [row for method, part in parts if method.name == asked.methods[-1] for row in part.rows]
    drawn = set(np.random.default_rng(scores.context.seed).permutation(found)[: asked.pictures].tolist())
    if not drawn:
        return {}
    rows, names = [], []
    for start in range(0, len(parts), len(asked.methods)):
        batch = [part for _, part in parts[start : start + len(asked.methods)]]
        chosen = [i for i, row in enumerate(batch[0].rows) if row in drawn]
        if chosen:
            _, problem, truth = scores.problem(batch[0].people)
            fits = {name: part.fit for name, part in zip(asked.methods, batch, strict=True)}
            rows += photo_rows(scores.model, problem.observation.image, fits, truth, chosen)
            names += [f"person {batch[0].rows[i]}" for i in chosen]
    return {"people": sheet(rows, names, list(asked.methods), True)}


def _notes(asked: Any, found: int) -> list[str]:
    scene = "given as they were made" if asked.known else f"unknown; faces found: {found} of {asked.n}"
    notes = [
        f"{asked.n} held-out synthetic people in {asked.portraits} portraits; camera, light, expression and landmarks "
        f"are {scene}. People without a found face have no figures.",
        "Identity is judged by the network that guides the fit"
        + (f" and by {asked.judge}." if asked.judge else ", which a fit can please without looking like the person."),
    ]
    if asked.surface:
        notes.append(
            "Scan errors: REALY's protocol on scans that are re-meshed from the true faces, with the generator's own "
            "regions; the cheek lacks the two keypoints that only REALY's own table knows."
        )
    return notes
