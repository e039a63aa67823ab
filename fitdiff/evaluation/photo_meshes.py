"""Photos to neutral meshes: what benchmarks of shape measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fitdiff.album.album import Album
from fitdiff.album.command import FitProgress
from fitdiff.album.results import Entry
from fitdiff.album.sources import Source
from fitdiff.evaluation.benchmark import Context
from fitdiff.evaluation.mesh_files import write_mesh
from fitdiff.faces import FILE
from fitdiff.photo_fit import CHOICES
from fitdiff.types import Topology


@dataclass(frozen=True)
class Meshes:
    """Fitted meshes.

    Attributes:
        files: name -> OBJ: neutral, identity alone, head space in mm, vertices in the order of the topology.
        failed: name -> why the photo has no mesh. topology: of all of them.
    """

    files: dict[str, Path]
    failed: dict[str, str]
    topology: Topology = field(repr=False)


def fit_photos(context: Context, photos: Mapping[str, Path]) -> list[Entry]:
    """Fit photos; each fit's z, report and pictures lie in `out/fits/<name>`. Entries are in the order of the photos.

    A fit that was made from the same photo with the same settings and weights is kept.

    Args:
        photos: name -> photo. Names may be nested (`subject/photo`).
    """
    choices = {kind: context.choices.get(kind) for kind in CHOICES}
    with FitProgress(context.console, len(photos), max(1, context.batch // context.samples)) as progress:
        album = Album(
            context.model, context.out / "fits", batch=context.batch, samples=context.samples, seed=context.seed,
            avatars=False, on_entry=progress.on_entry, on_step=progress.on_step, **choices,
        )  # fmt: skip
        return album.fit_each([Source(name, path) for name, path in photos.items()])


def fit_meshes(context: Context, photos: Mapping[str, Path]) -> Meshes:
    """Fit photos as `fit_photos` does, and write `out/meshes/<name>.obj`."""
    entries = fit_photos(context, photos)
    files = {entry.name: _write(context, entry) for entry in entries if entry.folder}
    failed = {entry.name: entry.error for entry in entries if entry.error is not None}
    return Meshes(files, failed, context.model.shape_model.topology)


@torch.no_grad()
def _write(context: Context, entry: Entry) -> Path:
    """The mesh of a fit, unless it is there and younger than the fit."""
    path = context.out / "meshes" / f"{entry.name}.obj"
    fitted = context.out / "fits" / str(entry.folder)
    if not path.exists() or path.stat().st_mtime_ns < (fitted / FILE).stat().st_mtime_ns:
        model = context.model
        z = model.load_faces(fitted).require_z()
        write_mesh(path, model.vertices(z)[0].cpu().numpy(), model.shape_model.topology.faces.cpu().numpy())
    return path
