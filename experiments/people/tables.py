"""The results as Markdown: what is printed, written to `table.md`, and put into the README."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from experiments.report import markdown_table

KINDS = {
    "stored": "as stored (augmented)",
    "clean": "clean, same scenes",
    "plain": "plain: neutral, distant lamps",
    "texture": "plain, texture only (mean shape)",
    "shape": "plain, shape only (mean skin)",
}
STATISTICS = {
    "auc": ("AUC", ".4f"),
    "eer": ("EER", ".1%"),
    "rank_one": ("rank-1", ".1%"),
    "d_prime": ("d'", ".2f"),
    "false_accepts": ("false accepts at 0.6", ".1%"),
    "false_rejects": ("false rejects at 0.6", ".1%"),
}
RANGE = ("min", "5%", "50%", "95%", "max")


def separation_table(results: dict[str, Any]) -> str:
    """One line a kind of portrait."""
    rows = [
        [KINDS[kind], *(_interval(statistics[key], spec) for key, (_, spec) in STATISTICS.items())]
        for kind, statistics in results.items()
    ]
    return markdown_table(["portraits", *(label for label, _ in STATISTICS.values())], rows)


def _interval(value: Iterable[float], spec: str) -> str:
    middle, low, high = (format(v, spec) for v in value)
    return f"{middle} ({low} to {high})"


def detector_table(results: dict[str, Any]) -> str:
    """Shares found, and of how many portraits."""
    rows = [["all", _share(results["all"]["stored"]), _share(results["all"]["clean"])]]
    rows += [[f"yaw {label}°", _share(r["stored"]), _share(r["clean"])] for label, r in results["yaw"].items()]
    for label, rate in results.get("occluded", {}).items():
        rows.append(["something before the face" if label == "yes" else "nothing before the face", _share(rate), "–"])
    return markdown_table(["", "as stored (augmented)", "clean"], rows)


def _share(rate: dict[str, Any]) -> str:
    return "–" if rate["found"] is None else f"{rate['found']:.2%} of {rate['portraits']}"


def predictability_table(results: dict[str, Any]) -> str:
    """R^2 along the learning curve."""
    sizes = [row["people"] for row in next(iter(results.values()))]
    rows = [
        [name, *(_interval((r["r2"], r["low"], r["high"]), ".2f") for r in curve)] for name, curve in results.items()
    ]
    return markdown_table(["R²", *(f"{n} people" for n in sizes)], rows)


def tone_table(results: dict[str, Any]) -> str:
    """Shares of the classes."""
    return markdown_table(
        [*results["shares"], "smallest"], [[f"{v:.1%}" for v in (*results["shares"].values(), results["smallest"])]]
    )


def coverage_table(results: dict[str, Any]) -> str:
    """Ranges."""
    rows = [
        [name, *(f"{r[key]:.2f}" for key in RANGE), f"{r['rarest_fifth']:.1%}" if "rarest_fifth" in r else "–"]
        for name, r in results.items()
    ]
    return markdown_table(["", *RANGE, "rarest fifth"], rows)


def real_table(results: dict[str, Any]) -> str:
    """Each real face, and the synthetic reference."""
    rows = [
        [name, face["licence"], f"{face['distance']:.3f}", str(face["person"])]
        for name, face in results["faces"].items()
    ]
    held_out = results["held_out"]
    spread = f"{held_out['50%']:.3f} ({held_out['5%']:.3f} to {held_out['95%']:.3f})"
    rows.append(["a held-out synthetic person, median (5% to 95%)", "–", spread, "–"])
    if "between_real_people" in results:
        between = results["between_real_people"]
        spread = f"{between['50%']:.3f} ({between['min']:.3f} to {between['max']:.3f})"
        rows.append(["two of these real people, median (min to max)", "–", spread, "–"])
    return markdown_table(["face", "photo's licence", "distance to the nearest synthetic person", "who"], rows)


def _run_line(run: dict[str, Any]) -> str:
    return (
        f"Command: `{run['command']}`. Date: {run['date']}. Config hash: `{run['hash']}`. {run['n']} people, of whom "
        f"{run['controls']} also clean and by parts; {run['views']} portraits each of {run['portrait']}² pixels, "
        f"{run['size']}² maps, seed {run['seed']}. {run['minutes']:.1f} minutes on {run['cores']} cores."
    )


def all_tables(results: dict[str, Any]) -> str:
    """Everything, under headings, with the facts of the run on top."""
    return "\n\n".join(
        [
            _run_line(results["run"]),
            "### Telling people apart\n\n" + separation_table(results["separation"]),
            "### Detector\n\n" + detector_table(results["detector"]),
            "### What an embedding tells\n\n" + predictability_table(results["predictability"]),
            "### Skin tones (ITA°)\n\n" + tone_table(results["tone"]),
            "### Coverage\n\n" + coverage_table(results["coverage"]),
            f"### Real faces\n\nNearest of {results['real']['people']} synthetic people.\n\n"
            + real_table(results["real"]),
        ]
    )
