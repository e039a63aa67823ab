"""Figures of REALY from the errors of photos: rows, summary, tables, chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fitdiff.evaluation.benchmark import Table
from fitdiff.evaluation.realy.folder import by_person
from fitdiff.evaluation.realy.keypoints import REGIONS
from fitdiff.evaluation.realy.published import published_rows

FRONTAL, SIDE = "frontal", "side"
STATISTICS = ("avg", "med", "std")
Errors = Mapping[str, float]


def by_view(errors: Mapping[str, Errors]) -> dict[str, list[Errors]]:
    """Errors of photos by their set, by person: `<id>` is frontal, `<id>_<view>` from the side.

    Photos are measured in whatever order; here they get one, so that sums and pictures are the same at every run.
    """
    sets: dict[str, list[Errors]] = {}
    for name in sorted(errors, key=lambda name: ("_" in name, by_person(name))):
        sets.setdefault(SIDE if "_" in name else FRONTAL, []).append(errors[name])
    return sets


def statistics(photos: Sequence[Errors]) -> dict[str, tuple[float, float, float]]:
    """Mean, median and standard deviation (n - 1; NaN of one photo) over photos, of each region."""
    values = {name: np.array([errors[name] for errors in photos]) for name in REGIONS}
    return {
        name: (float(x.mean()), float(np.median(x)), float(x.std(ddof=1)) if len(x) > 1 else float("nan"))
        for name, x in values.items()
    }


def mean_of_means(photos: Sequence[Errors]) -> float:
    """The benchmark's "all": the mean of the four regions' means."""
    return float(np.mean([mean for mean, *_ in statistics(photos).values()]))


def row(name: str, errors: Errors | None) -> dict[str, Any]:
    """One photo's figures."""
    figures = {f"{region}_mm": errors[region] if errors else None for region in REGIONS}
    return {"name": name, **figures, "all_mm": float(np.mean(list(errors.values()))) if errors else None}


def summary(sets: Mapping[str, Sequence[Errors]]) -> dict[str, float]:
    """Figures of the first set by their bare names, of the other as `<name>/<set>`."""
    figures: dict[str, float] = {}
    for place, (view, photos) in enumerate(sets.items()):
        tail = f"/{view}" if place else ""
        for region, values in statistics(photos).items():
            names = (f"{region}_mm", f"{region}_median_mm", f"{region}_std_mm")
            figures |= {f"{name}{tail}": x for name, x in zip(names, values, strict=True) if np.isfinite(x)}
        figures |= {f"all_mm{tail}": mean_of_means(photos), f"photos{tail}": float(len(photos))}
    return figures


def tables(system: str, sets: Mapping[str, Sequence[Errors]], published: bool) -> dict[str, Table]:
    """Two tables, as the paper has them: nose and mouth; forehead, cheek and the mean of all four means.

    A row a set of photos, beside the published ones.
    """
    rows = [
        [
            f"{system}, {len(photos)} {view}",
            *(f"{x:.3f}" if np.isfinite(x) else "" for values in statistics(photos).values() for x in values),
            f"{mean_of_means(photos):.3f}",
        ]
        for view, photos in sets.items()
    ]
    header = ["method", *(f"{region} {what}" for region in REGIONS for what in STATISTICS), "all avg"]
    others = published_rows() if published else []
    half = 1 + 2 * len(STATISTICS)
    return {
        "nose_mouth": Table(
            header[:half], [r[:half] for r in rows], [r[:half] for r in others], "REALY: error in mm, nose and mouth"
        ),
        "forehead_cheek": Table(
            [header[0], *header[half:]],
            [[r[0], *r[half:]] for r in rows],
            [[r[0], *r[half:]] for r in others],
            "REALY: error in mm, forehead, cheek and the mean of all four means",
        ),
    }


def chart(sets: Mapping[str, Sequence[Errors]]) -> Any:
    """Every photo's error by region, with the mean, as a matplotlib figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    for place, (view, photos) in enumerate(sets.items()):
        colour, shift = f"C{place}", 0.4 * (place - (len(sets) - 1) / 2)
        for i, region in enumerate(REGIONS):
            values = np.array([errors[region] for errors in photos])
            spread = 0.12 * np.sin(2.4 * np.arange(len(values)))  # side by side, the same at every call
            axes.plot(i + shift + spread, values, "o", ms=3, alpha=0.5, color=colour, label=view if not i else None)
            axes.plot([i + shift - 0.16, i + shift + 0.16], [values.mean()] * 2, color=colour, lw=2)
    axes.set(xticks=range(len(REGIONS)), xticklabels=REGIONS, ylabel="error in mm", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, title="photos; line: mean")
    return figure
