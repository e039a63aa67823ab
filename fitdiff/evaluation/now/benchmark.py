"""`benchmark=now`: fit the photos of NoW or take anybody's predictions, and measure them; or write a submission."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fitdiff.evaluation.benchmark import BenchmarkError, Context, Evaluation, Table
from fitdiff.registry import MISSING, register

if TYPE_CHECKING:
    from fitdiff.evaluation.now.folder import NowFolder
    from fitdiff.evaluation.now.scores import Score, Settings
    from fitdiff.evaluation.photo_meshes import Meshes

UNITS = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
"""Millimetres in the units that predictions may have."""

METHOD = (
    "Predictions are laid over scans by their seven points, then so that the mean squared distance of the cropped "
    "scan's vertices from the mesh is smallest; {size}. Figures are pooled over all vertices of all images."
)


@register("benchmark", "now")
class Now:
    """Whole-face shape error in mm on the NoW challenge (Sanyal et al. 2019), from its published description.

    Each prediction is a neutral mesh of any topology with seven landmarks; see `alignment.IBUG` for which.
    """

    def __init__(
        self,
        *,
        path: str = MISSING,
        predictions: str | None = None,
        metrical: bool = False,
        unit: str = "mm",
        submission: bool = False,
        images: str | None = None,
        workers: int | None = None,
    ) -> None:
        """What is measured.

        Args:
            path: the copy of NoW; its layout is that of `now.folder`.
            predictions: folder of <subject>/<challenge>/<image>.obj|ply with .npy|txt, of any system; null: the
                checkpoint's own fits.
            metrical: whether the predictions' size counts. unit: of them, mm, cm or m; otherwise of no consequence.
            submission: only write the folder that the organisers ask for, of the images of the test set.
            images: the list, below the copy or anywhere; null is `imagepathsvalidation.txt`, of a submission
                `imagepathstest.txt`.
            workers: processes that measure; null is one a core.

        Raises:
            ValueError: no path, an unknown unit, or options that exclude each other.
        """
        if path == MISSING:
            raise ValueError(
                "benchmark=now needs benchmark.path=DIR, a copy of NoW (apply at now.is.tue.mpg.de), and "
                "`python -m fitdiff.evaluation.now.synthetic out=DIR` writes one of synthetic people"
            )
        if unit not in UNITS:
            raise ValueError(f"benchmark.unit={unit!r}: give one of {', '.join(UNITS)}")
        if submission and predictions:
            raise ValueError("benchmark.submission writes fits of the checkpoint: leave benchmark.predictions out")
        if workers is not None and workers < 1:
            raise ValueError(f"benchmark.workers={workers}: give 1 or more, or null for one a core")
        self.path, self.predictions, self.metrical = path, predictions, metrical
        self.millimetres, self.submission, self.images, self.workers = UNITS[unit], submission, images, workers

    def __call__(self, context: Context) -> Evaluation:
        """Measure, or write the submission; see `Benchmark`.

        Raises:
            NowError: the folder lacks something, or a scan is damaged. BenchmarkError: there is nothing to measure.
        """
        return self._submit(context) if self.submission else self._measure(context)

    def _measure(self, context: Context) -> Evaluation:
        from fitdiff.evaluation.now.folder import VALIDATION, NowFolder
        from fitdiff.evaluation.now.scores import Settings, score_all

        folder = NowFolder.open(self.path, self.images or VALIDATION, photos=self.predictions is None)
        predictions, failed = self._given(), dict[str, str]()
        if predictions is None:
            meshes = _fit(context, folder)
            predictions, failed = context.out / "meshes", meshes.failed
        settings = Settings(self.metrical, self.millimetres)
        kept = context.out / "distances"
        # A photo that failed may still have a mesh of an earlier run, with other settings, in the same folder.
        there = replace(folder, items=tuple(item for item in folder.items if item.key not in failed))
        scores, unusable = score_all(there, predictions, kept, settings, self.workers, context.track)
        reasons = {**failed, **unusable}
        missing = {item.key: reasons[item.key] for item in folder.items if item.key in reasons}
        if not scores:
            key, reason = next(iter(missing.items()))
            raise BenchmarkError(f"{predictions}: none of {len(missing)} images has a prediction; of {key}: {reason}")
        return evaluation_of(folder, scores, missing, settings)

    def _given(self) -> Path | None:
        if self.predictions is None:
            return None
        folder = Path(self.predictions).expanduser()
        if not folder.is_dir():
            raise BenchmarkError(f"benchmark.predictions={folder} is no folder")
        return folder

    def _submit(self, context: Context) -> Evaluation:
        from fitdiff.evaluation.now.folder import TEST, NowFolder
        from fitdiff.storage import link_or_copy

        folder = NowFolder.open(self.path, self.images or TEST, scans=False)
        meshes, target = _fit(context, folder), context.out / "submission"
        for suffix in (".obj", ".npy"):
            for key in meshes.failed:  # an earlier run, with other settings, may have had it
                (target / f"{key}{suffix}").unlink(missing_ok=True)
            for key, mesh in meshes.files.items():
                link_or_copy(mesh.with_name(f"{mesh.stem}{suffix}"), target / f"{key}{suffix}")
        rows = [{"name": item.key, "written": float(item.key in meshes.files)} for item in folder.items]
        summary = {"images": float(len(folder.items)), "missing": float(len(meshes.failed))}
        note = (
            f"{target} holds <subject>/<challenge>/<image>.obj, neutral and in mm, and .npy, its seven landmarks, for "
            "the NoW site."
        )
        return Evaluation(rows, summary, _missing_table(meshes.failed), notes=[note, *_missing_note(meshes.failed)])


def _fit(context: Context, folder: NowFolder) -> Meshes:
    """Fits of all photos, each with its seven landmarks beside the mesh."""
    import torch

    from fitdiff.evaluation.mesh_files import read_mesh
    from fitdiff.evaluation.now.alignment import IBUG
    from fitdiff.evaluation.now.folder import write_landmarks

    photos = {item.key: folder.photo(item) for item in folder.items}
    meshes = context.meshes({key: path for key, path in photos.items() if path is not None})
    for mesh in meshes.files.values():
        points = meshes.topology.landmarks(torch.from_numpy(read_mesh(mesh).vertices)[None])[0, list(IBUG)]
        write_landmarks(mesh.with_name(f"{mesh.stem}.npy"), points.numpy())
    return meshes


def evaluation_of(
    folder: NowFolder, scores: Mapping[str, Score], missing: Mapping[str, str], settings: Settings
) -> Evaluation:
    """Rows, pooled figures, the cumulative curve, and what is missing."""
    from fitdiff.evaluation.now.curve import cumulative_figure, cumulative_rows
    from fitdiff.evaluation.now.scores import by_challenge, pooled

    groups = by_challenge(scores)
    figures = {name: pooled(distances) for name, distances in groups.items()}
    counts = Counter(name for key in missing for name in (key.split("/")[1], "all"))
    challenges = [*sorted({item.challenge for item in folder.items}), "all"]
    rows = [_row(item.key, scores.get(item.key)) for item in folder.items]
    header, lines = cumulative_rows(groups)
    tables = {
        "now": Table(
            ["challenge", "median", "mean", "std", "images", "missing"],
            [
                [name, *_cells(figures.get(name)), str(len(groups.get(name, ()))), str(counts[name])]
                for name in challenges
            ],
            title=f"NoW{', metrical' if settings.metrical else ''}: distance in mm",
        ),
        "cumulative": Table(
            header, [[f"{mm:g}", *(f"{share:.2f}" for share in shares)] for mm, *shares in lines],
            title="Scan vertices within a distance, in %",
        ),
        **_missing_table(missing),
    }  # fmt: skip
    summary = {f"{what}_mm": value for what, value in figures["all"].items()}
    summary |= {"images": float(len(scores)), "missing": float(len(missing))}
    summary |= {f"{what}_mm/{name}": v for name in groups if name != "all" for what, v in figures[name].items()}
    notes = [_method(settings), *_missing_note(missing), *_unconverged(scores)]
    return Evaluation(rows, summary, tables, {"cumulative": cumulative_figure(groups)}, notes)


def _cells(figures: Mapping[str, float | None] | None) -> list[str]:
    """Median, mean and std; empty of a challenge that has no score."""
    return [f"{value:.3f}" for value in figures.values()] if figures else [""] * 3


def _row(key: str, score: Score | None) -> dict[str, Any]:
    from fitdiff.evaluation.now.scores import pooled

    figures = pooled([score.distance] if score else [])
    return {
        "name": key,
        **{f"{what}_mm": value for what, value in figures.items()},
        "vertices": len(score.distance) if score else None,
        "scale": score.scale if score else None,
    }


def _method(settings: Settings) -> str:
    metrical = f"their size counts (1 unit is {settings.unit:g} mm)"
    return METHOD.format(size=metrical if settings.metrical else "their size is fitted, too")


def _missing_note(missing: Mapping[str, str]) -> list[str]:
    count = len(missing)
    return [f"{count} image{'s have' if count > 1 else ' has'} no score: see the table `missing`."] if missing else []


def _missing_table(missing: Mapping[str, str]) -> dict[str, Table]:
    rows = [[key, reason] for key, reason in missing.items()]
    return {"missing": Table(["image", "why it has no score"], rows, title="Not scored")} if missing else {}


def _unconverged(scores: Mapping[str, Score]) -> list[str]:
    left = [key for key, score in scores.items() if not score.converged]
    return [f"The alignment of {len(left)} images did not settle: {', '.join(left[:5])}."] if left else []
