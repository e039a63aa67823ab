"""`python -m fitdiff.evaluation.realy.bench`: what one face of REALY takes, by stage, on one core.

The scan is a synthetic person's, of about 26,000 vertices in its four regions, the prediction another's. The sparse
factorisation and the closest points are what bounds it: they are libraries' (SuperLU, libigl), the rest is ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table

from fitdiff.command import run_command
from fitdiff.evaluation.realy import deformation, regions
from fitdiff.evaluation.realy.keypoints import Keypoints
from fitdiff.evaluation.realy.synthetic_scan import make_scan, region_faces
from fitdiff.evaluation.surface import Surface
from fitdiff.registry import build, config_of


@dataclass
class Options:
    """What the command line sets."""

    people: int = 3  # whose scans are measured, one after the other
    finer: int = 1  # subdivisions of the face model in a scan


STAGES = (
    ("regional alignment", regions, "regional_icp"),
    ("deformation", regions, "deform"),
    ("closest points", Surface, "closest"),
    ("elimination order", deformation, "_elimination_order"),
    ("one step of the deformation", deformation.Deformation, "step"),
    ("sparse factorisation", deformation, "splu"),
)
"""What is timed. Later ones run within earlier ones."""


class Watch:
    """Processor seconds and calls by stage: on a busy machine, other processes' time does not count."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys((name for name, *_ in STAGES), 0.0)
        self.calls = dict.fromkeys(self.seconds, 0)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Time the stages within the block."""
        patches = [patch.object(owner, name, self._timed(stage, getattr(owner, name))) for stage, owner, name in STAGES]
        for each in patches:
            each.start()
        try:
            yield
        finally:
            for each in patches:
                each.stop()

    def _timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **keywords: Any) -> Any:
            start = time.process_time()
            try:
                return function(*arguments, **keywords)
            finally:
                self.seconds[stage] += time.process_time() - start
                self.calls[stage] += 1

        return timed


def _bench(options: Options, console: Console) -> None:
    if options.people < 1 or options.finer < 0:
        raise ValueError(f"got people={options.people} finer={options.finer}; expected people >= 1 and finer >= 0")
    torch.set_num_threads(1)
    shape_model = build(config_of("shape_model", "anny_face"), "shape_model")
    topology, generator = shape_model.topology, torch.Generator().manual_seed(0)
    codes = torch.randn(options.people + 1, shape_model.n_identity, generator=generator)
    predicted, *scanned = shape_model(codes).double().numpy()
    keypoints, faces = Keypoints.of_topology(topology), topology.faces.numpy()
    cuts, watch, total, wall = region_faces(topology, shape_model.mean.double().numpy()), Watch(), 0.0, 0.0
    scans = [make_scan(person, cuts, keypoints(person), i, finer=options.finer) for i, person in enumerate(scanned)]
    for scan in scans:
        start, began = time.process_time(), time.perf_counter()
        with watch.watching():
            regions.region_errors(predicted, faces, keypoints(predicted), scan)
        total, wall = total + time.process_time() - start, wall + time.perf_counter() - began
    size = sum(len(mesh.vertices) for mesh in scans[0].regions.values())
    console.print(_table(watch, total, wall, options.people, size, len(faces)))


def _table(watch: Watch, total: float, wall: float, people: int, size: int, n_faces: int) -> Table:
    table = Table(title=f"a face: four regions, {size} scan vertices, a prediction of {n_faces} triangles")
    table.add_column("stage (later ones are parts of earlier ones)")
    for title in ("processor s", "share", "calls"):
        table.add_column(title, justify="right")
    for stage, seconds in watch.seconds.items():
        table.add_row(stage, f"{seconds / people:.2f}", f"{seconds / total:.0%}", f"{watch.calls[stage] / people:.0f}")
    table.add_row("all", f"{total / people:.2f}", "100%", f"(by the clock {wall / people:.1f} s)")
    return table


def main() -> None:
    """Print a table of stages."""
    run_command(_bench, Options, __doc__)


if __name__ == "__main__":
    main()
