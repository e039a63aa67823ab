"""What `benchmark=identity` says: a row a photo, distributions side by side, and verification by pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fitdiff.data.shard_file import DataError
from fitdiff.evaluation.benchmark import Context, Evaluation, Table
from fitdiff.evaluation.identity_photos import PersonPhoto, all_pairs, pair_rows, several_of_some
from fitdiff.evaluation.identity_scores import Embeddings, Network, embed_people
from fitdiff.evaluation.portraits import HeldOutPeople
from fitdiff.evaluation.verification import cosines, same_and_different, tar_at, threshold_at

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FARS = (0.1, 0.01, 0.001)
FAR = 0.01
"""At which the table says how many fits are accepted as the person."""

SCENE, FRONTAL, SAME, DIFFERENT = "fit, fitted scene", "fit, frontal", "same person", "different people"
KEYS = {SCENE: "photo_id", FRONTAL: "frontal_to_photo_id", SAME: "same_person", DIFFERENT: "different_people"}
"""In results.json."""

COLOURS = {DIFFERENT: "#d55e00", SAME: "#009e73", SCENE: "#0072b2", FRONTAL: "#000000"}
"""Okabe and Ito's, for the colour-blind."""

Distributions = dict[str, NDArray]
"""What is compared -> cosines; the names of `COLOURS`."""


def evaluation_of(
    asked: Any,
    context: Context,
    photos: Sequence[PersonPhoto],
    failed: Mapping[str, str],
    networks: Sequence[Network],
    embeddings: Mapping[str, Embeddings],
    listed: Sequence[tuple[str, str, bool]] | None,
) -> Evaluation:
    """Everything that is written.

    Args:
        asked: the benchmark's options. photos: that were fitted. failed: others, and why. listed: pairs of the user's.
    """
    own = several_of_some(photos)
    people = None if own else _reference_people(asked, context)
    pairs = listed if listed is not None else list(all_pairs(photos)) if own else []
    rows: list[dict[str, Any]] = [{"name": photo.name} for photo in photos]
    summary: dict[str, float] = {"photos": len(photos), "not_fitted": len(failed)}
    lines, verified, figures, left_out = [], [], {}, 0
    for network in networks:
        prefix = "" if network.mean is not None else f"{network.name}_"
        found = embeddings[network.name]
        reference = None if own or people is None else embed_people(people, asked.reference, network)
        for centred in (False, True) if network.mean is not None else (False,):
            label = f"{network.name}{', centred' if centred else ''}"
            suffix = "_centred" if centred else ""
            scores = distributions(photos, found, reference, network.mean if centred else None)
            for what in (SCENE, FRONTAL):
                for row, value in zip(rows, scores[what], strict=True):
                    row[f"{prefix}{KEYS[what]}{suffix}"] = float(value)
            summary |= _summary(f"{prefix}{{}}{suffix}", scores)
            lines += _lines(label, scores)
            figures[label] = scores
        if pairs:
            line, left_out = _verified(network.name, photos, found, pairs)
            verified += line
    header = ["network", "cosine of a photo with", "mean", "std", "pairs", f"above the threshold of FAR {FAR:.0%}"]
    tables = {"identity": Table(header, lines, title="Identity: fits beside the same person and different people")}
    if verified:
        header = ["network", "compared", "pairs of one person", "of two", *(f"TAR at FAR {far:g}" for far in FARS)]
        tables["verification"] = Table(header, verified, title="Verification by pairs of photos")
    notes = _notes(asked, own, people is not None, networks, failed, left_out)
    return Evaluation(rows, summary, tables, {"distributions": draw(figures)}, notes)


def _reference_people(asked: Any, context: Context) -> HeldOutPeople | None:
    """Synthetic people whose portraits stand for all people; None where the model knows none."""
    try:
        people = HeldOutPeople(context.model, "usual")
    except DataError:
        return None
    for number in context.track(people.missing(asked.reference), "portraits"):
        people.make(number)
    return people


def distributions(
    photos: Sequence[PersonPhoto],
    found: Embeddings,
    reference: tuple[NDArray, Sequence[Any]] | None,
    mean_D: NDArray | None = None,
) -> Distributions:
    """Cosines of fits with their photos, and of photos with photos.

    Args:
        reference: embeddings of photos, and whose they are; None: the photos themselves. mean_D: is subtracted first.
    """
    shift = 0.0 if mean_D is None else mean_D
    embedding, whose = reference or (found.photo, [photo.person for photo in photos])
    same, different = same_and_different(embedding - shift, whose)
    return {
        DIFFERENT: different,
        SAME: same,
        SCENE: cosines(found.fit - shift, found.photo - shift),
        FRONTAL: cosines(found.frontal - shift, found.photo - shift),
    }


def _summary(name: str, scores: Distributions) -> dict[str, float]:
    summary = {}
    for what, key in KEYS.items():
        if len(scores[what]):
            summary[name.format(key)] = float(scores[what].mean())
            summary[f"{name.format(key)}_std"] = float(scores[what].std(ddof=1)) if len(scores[what]) > 1 else None
        accepted = tar_at(scores[what], scores[DIFFERENT], FAR)
        if what in (SCENE, FRONTAL) and accepted is not None:
            summary[f"{name.format(key)}_accepted"] = accepted
    return summary


def _lines(label: str, scores: Distributions) -> list[list[str]]:
    threshold = threshold_at(scores[DIFFERENT], FAR)
    lines = []
    for what, values in scores.items():
        spread = f"{values.std(ddof=1):.3f}" if len(values) > 1 else "–"
        above = "–" if threshold is None or not len(values) else f"{(values > threshold).mean():.0%}"
        lines.append([label, what, f"{values.mean():.3f}" if len(values) else "–", spread, str(len(values)), above])
    return lines


def _verified(
    name: str, photos: Sequence[PersonPhoto], found: Embeddings, pairs: Sequence[tuple[str, str, bool]]
) -> tuple[list[list[str]], int]:
    """Rows of the table of verification: by photos alone, and with each pair's first photo replaced by its fit."""
    index, same, left_out = pair_rows(pairs, {photo.name: row for row, photo in enumerate(photos)})
    if not index:
        return [], left_out
    first, second = np.array(index).T
    genuine = np.array(same)
    lines = []
    compared = {"photo and photo": found.photo, "fit and photo": found.fit, "frontal fit and photo": found.frontal}
    for what, embedding in compared.items():
        score = cosines(embedding[first], found.photo[second])
        shares = [tar_at(score[genuine], score[~genuine], far) for far in FARS]
        cells = ["–" if share is None else f"{share:.3f}" for share in shares]
        lines.append([name, what, str(genuine.sum()), str((~genuine).sum()), *cells])
    return lines, left_out


def draw(panels: Mapping[str, Distributions]) -> Figure:
    """A panel a network: densities of the two distributions, and the fits in them, with a tick for each fit."""
    from matplotlib.figure import Figure

    figure = Figure((7.5, 2.6 * len(panels)), layout="constrained")
    for axis, (label, scores) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels.items(), strict=True):
        everything = np.concatenate(list(scores.values()))
        bins = np.linspace(everything.min(), everything.max(), 41)
        for what in (DIFFERENT, SAME):
            if len(scores[what]):
                axis.hist(scores[what], bins, density=True, color=COLOURS[what], alpha=0.45, label=f"{what} (photos)")
        top = axis.get_ylim()[1]
        for height, what, style in ((-0.07, SCENE, "-"), (-0.16, FRONTAL, "--")):
            values = scores[what]
            axis.plot(values, np.full(len(values), height * top), "|", markersize=9, color=COLOURS[what], alpha=0.8)
            label_of_fit = f"{what}, with its photo: mean {values.mean():.2f}"
            axis.axvline(values.mean(), color=COLOURS[what], linewidth=1.6, linestyle=style, label=label_of_fit)
        axis.set_ylim(-0.22 * top, 1.05 * top)
        axis.set_yticks([])
        axis.set_title(label, fontsize=10, loc="left")
        axis.set_xlabel("cosine similarity", fontsize=9)
        axis.legend(fontsize=8, loc="upper left", frameon=False)
    return figure


def _notes(
    asked: Any, own: bool, synthetic: bool, networks: Sequence[Network], failed: Mapping[str, str], left_out: int
) -> list[str]:
    guide = networks[0].name
    notes = [f"{guide} guided the fits, so its cosines with them are optimised directly and say little by themselves."]
    if len(networks) == 1:
        notes.append(
            "No held-out network judged: of the networks here only dlib's weights come in a package. With weights of "
            "your own, add benchmark.judge=facenet or benchmark.judge=arcface."
        )
    if own:
        notes.append("Distributions of the same person and of different people: all pairs of the given photos.")
    elif synthetic:
        notes.append(
            f"Distributions: two portraits each of {asked.reference} synthetic people, as no person has several of the "
            "photos. How well they stand for real people is measured in experiments/people."
        )
    else:
        notes.append("Distributions: of different people alone, the given photos; no person has several of them.")
    if left_out:
        notes.append(f"{left_out} pairs are left out: one of their photos could not be fitted.")
    return notes + [f"Not fitted: {name}: {reason}" for name, reason in failed.items()]
