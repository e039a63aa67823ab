"""`benchmark=realy`: fit the photos of REALY, or take anybody's meshes, and measure nose, mouth, forehead and cheek."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fitdiff.evaluation.benchmark import BenchmarkError, Context, Evaluation, Table
from fitdiff.registry import MISSING, register

if TYPE_CHECKING:
    from fitdiff.evaluation.realy.folder import RealyFolder
    from fitdiff.evaluation.realy.measure import Measured, Template

MESH_SUFFIXES = (".obj", ".ply")


@register("benchmark", "realy")
class Realy:
    """Error of four regions of the face in mm on REALY (Chai et al. 2022); the protocol is told in `realy.regions`."""

    def __init__(
        self,
        *,
        path: str = MISSING,
        predictions: str | None = None,
        topology: str | None = None,
        images: str | None = None,
        workers: int | None = None,
    ) -> None:
        """What is measured.

        Args:
            path: the copy of REALY, or of its public code with the data in it: REALY_HIFI3D_keypoints,
                REALY_scan_region, REALY_image and metrical_scale.txt, here or in `data`.
            predictions: folder of <id>[_<view>].obj|ply of any system, vertices in the order of the template; null: the
                checkpoint's own fits.
            topology: whose 85 keypoints: <topology>.obj and .txt of the copy, or the path of such an .obj. Needed for
                predictions; of the checkpoint's fits null is the shape model's own 68.
            images: folder of the photos to fit, below the copy or anywhere; null is REALY_image.
            workers: processes that measure; null is one a core.

        Raises:
            ValueError: no path, predictions without a topology, or no worker.
        """
        if path == MISSING:
            raise ValueError(
                "benchmark=realy needs benchmark.path=DIR, a copy of REALY; its authors give it out (realy3dface.com), "
                "and `python -m fitdiff.evaluation.realy.synthetic out=DIR` writes one of synthetic people"
            )
        if predictions is not None and topology is None:
            raise ValueError("benchmark.predictions needs benchmark.topology, such as FLAME: where the keypoints are")
        if workers is not None and workers < 1:
            raise ValueError(f"benchmark.workers={workers}: give 1 or more, or null for one a core")
        self.path, self.predictions, self.topology = path, predictions, topology
        self.images, self.workers = images, workers

    def __call__(self, context: Context) -> Evaluation:
        """Measure; see `Benchmark`.

        Raises:
            FolderError: the copy lacks something. BenchmarkError: no prediction can be measured.
        """
        from fitdiff.evaluation.realy.folder import RealyFolder
        from fitdiff.evaluation.realy.measure import measure_all

        folder = RealyFolder.open(self.path)
        system, predictions, template, failed = (
            self._given(folder) if self.predictions else self._fitted(folder, context)
        )
        found = measure_all(folder, predictions, template, context.out / "errors", self.workers)
        measured = {one.name: one for one in context.track(found, "photos", len(predictions))}
        if not any(one.errors for one in measured.values()):
            reasons = [*failed.values(), *(one.fault for one in measured.values())]
            raise BenchmarkError(f"no face could be measured; the first: {reasons[0]}")
        return _evaluation(folder, system, template, measured, failed)

    def _given(self, folder: RealyFolder) -> tuple[str, dict[str, Path], Template, dict[str, str]]:
        """Name, meshes and template of another system's predictions."""
        from fitdiff.evaluation.realy.measure import Template

        path = Path(str(self.predictions)).expanduser()
        if not path.is_dir():
            raise BenchmarkError(f"benchmark.predictions={path} is no folder")
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in MESH_SUFFIXES)
        predictions = folder.named(files, path, "meshes")
        return path.name, predictions, Template(folder.template(str(self.topology))), {}

    def _fitted(self, folder: RealyFolder, context: Context) -> tuple[str, dict[str, Path], Template, dict[str, str]]:
        """Name, meshes and template of the checkpoint's fits, and what could not be fitted."""
        from fitdiff.evaluation.realy.keypoints import Keypoints
        from fitdiff.evaluation.realy.measure import Template

        photos = folder.photos(self.images)
        keypoints = folder.template(self.topology) if self.topology else None
        topology = context.model.shape_model.topology
        if keypoints and keypoints.n_vertices != len(topology.uv):
            raise BenchmarkError(
                f"benchmark.topology={self.topology} has {keypoints.n_vertices} vertices, the checkpoint's shape model "
                f"{len(topology.uv)}; leave it out to use that model's own landmarks"
            )
        meshes = context.meshes(photos)
        hidden = topology.regions.get("inner_mouth")
        template = Template(
            keypoints or Keypoints.of_topology(topology), None if hidden is None else hidden.cpu().numpy()
        )
        return "fitdiff", meshes.files, template, meshes.failed


def _evaluation(
    folder: RealyFolder, system: str, template: Template, measured: Mapping[str, Measured], failed: Mapping[str, str]
) -> Evaluation:
    from fitdiff.evaluation.realy import tables
    from fitdiff.evaluation.realy.folder import by_person, person_of

    errors = {name: one.errors for name, one in measured.items() if one.errors}
    missing = {**failed, **{name: one.fault for name, one in measured.items() if not one.errors}}
    without = sorted(set(folder.scans) - {person_of(name) for name in (*errors, *missing)})
    missing |= {str(person): "no photo or prediction" for person in without}
    sets = tables.by_view(errors)
    names = sorted({*measured, *failed}, key=by_person)
    lost = [[name, missing[name]] for name in sorted(missing, key=by_person)]
    return Evaluation(
        rows=[tables.row(name, errors.get(name)) for name in names],
        summary={**tables.summary(sets), "missing": float(len(missing))},
        tables=tables.tables(system, sets, published=not folder.synthetic)
        | ({"missing": Table(["photo", "why it has no figure"], lost, title="Not measured")} if lost else {}),
        pictures={"regions": tables.chart(sets)},
        notes=_notes(folder, template, len(lost)),
    )


def _notes(folder: RealyFolder, template: Template, lost: int) -> list[str]:
    """What a reader of the figures must know."""
    from fitdiff.evaluation.realy.published import PUBLISHED_NOTE

    unknown = template.keypoints.unknown
    notes = [PUBLISHED_NOTE]
    if folder.synthetic:
        notes = [
            "The scans are synthetic people's: not to be compared with published figures, which are of real scans."
        ]
    if unknown:
        notes.append(
            f"The topology has no keypoints {unknown} (from 0); regions are aligned without them: of the nose's 11 "
            "keypoints 2 (70, 71), of the cheek's 27 another 2 (76, 77). benchmark.topology gives all 85."
        )
    if template.hidden is not None:
        notes.append("Triangles inside of the mouth are left out of the fitted meshes.")
    if lost:
        notes.append(
            f"{lost} faces have no figure: see the table `missing`. They are left out, which flatters a method."
        )
    return notes
