"""`python -m fitdiff.evaluation.now.bench`: what one image of NoW takes, by stage, on one core.

The scan is a synthetic person's, the prediction another's; both are files, as a benchmark finds them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import igl
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from fitdiff.command import run_command
from fitdiff.evaluation.mesh_files import read_mesh, write_mesh
from fitdiff.evaluation.now.alignment import IBUG, align, crop, procrustes
from fitdiff.evaluation.surface import Surface
from fitdiff.registry import build, config_of

T = TypeVar("T")


@dataclass
class Options:
    """What the command line sets."""

    vertices: int = 100_000  # of the scan, at least
    noise: float = 0.1  # standard deviation of the scan's vertices in mm
    rounds: int = 3  # of which the median is told


class Watch:
    """Seconds of stages by name, (wall, CPU) of each round: they part where other programs want the core, too."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[tuple[float, float]]] = {}

    def __call__(self, stage: str, function: Callable[[], T]) -> T:
        """What the function gives."""
        start = np.array([time.perf_counter(), time.process_time()])
        result = function()
        wall, cpu = np.array([time.perf_counter(), time.process_time()]) - start
        self.seconds.setdefault(stage, []).append((float(wall), float(cpu)))
        return result


def _bench(options: Options, console: Console) -> None:
    if options.rounds < 1 or not options.noise >= 0:
        raise ValueError(f"got rounds={options.rounds} noise={options.noise}; expected rounds >= 1 and noise >= 0")
    torch.set_num_threads(1)
    shape_model = build(config_of("shape_model", "anny_face"), "shape_model")
    faces = shape_model.topology.faces.numpy()
    codes = torch.randn(2, shape_model.n_identity, generator=torch.Generator().manual_seed(0))
    vertices = shape_model(codes)
    landmarks = shape_model.topology.landmarks(vertices)[:, list(IBUG)].double().numpy()
    scanned, predicted = vertices.double().numpy()
    watch, facts = Watch(), {}
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder) / "scan.obj", Path(folder) / "prediction.obj"
        write_mesh(paths[0], *_scan(scanned, faces, options))
        write_mesh(paths[1], predicted, faces)
        for _ in range(options.rounds):
            facts = _one(watch, paths, landmarks)
    console.print(_table(watch, facts))


def _scan(vertices: np.ndarray, faces: np.ndarray, options: Options) -> tuple[np.ndarray, np.ndarray]:
    while len(vertices) < options.vertices:
        vertices, faces = igl.upsample(vertices, faces, 1)
    return vertices + options.noise * np.random.default_rng(0).normal(size=vertices.shape), faces


def _one(watch: Watch, paths: tuple[Path, Path], landmarks: np.ndarray) -> dict[str, Any]:
    """One image, stage by stage; facts about it."""
    scan = watch("read the scan (once a subject)", lambda: read_mesh(paths[0]))
    mesh = watch("read the prediction", lambda: read_mesh(paths[1]))
    points = watch("crop", lambda: crop(scan.vertices, landmarks[0]))
    surface = watch("tree of the prediction", lambda: Surface(mesh.vertices, mesh.faces))
    start = procrustes(landmarks[1], landmarks[0])
    aligned = watch("refine scale, rotation, translation", lambda: align(surface, points, start))
    watch("of that, one search of closest points", lambda: surface.closest(start.inverse(points)))
    return {
        "scan": f"{len(scan.vertices):,} vertices, {len(points):,} in the crop",
        "prediction": f"{len(mesh.faces):,} triangles",
        "refined": f"{aligned.steps} steps, mean distance {aligned.distance.mean():.3f} mm",
    }


def _table(watch: Watch, facts: dict[str, Any]) -> Table:
    title = "; ".join(f"{name}: {fact}" for name, fact in facts.items())
    table = Table("stage", "seconds", "of the CPU", title=title)
    medians = {stage: np.median(seconds, 0) for stage, seconds in watch.seconds.items()}
    whole = sum(seconds for stage, seconds in medians.items() if not stage.startswith("of that"))
    for stage, seconds in {**medians, "all": whole}.items():
        table.add_row(stage, *(f"{value:.3f}" for value in seconds))
    return table


if __name__ == "__main__":
    run_command(_bench, Options, __doc__)
