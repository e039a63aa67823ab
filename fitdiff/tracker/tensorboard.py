"""TensorBoard: `tensorboard --logdir outputs` compares all runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fitdiff.registry import register
from fitdiff.tracker.base import Artifact, Status, TrackedRun, Tracker, columns
from fitdiff.tracker.several import require


@register("tracker", "tensorboard")
class TensorBoardTracker(Tracker):
    """Event files in `<run>/tensorboard/<identifier>`, one a session. Config, tables and artifacts are texts."""

    def __init__(self) -> None:
        require("tensorboard", "tensorboard")
        self.writer: Any = None
        self._folder = Path()

    def start(self, run: TrackedRun) -> None:
        """Open a new event file beside those of earlier sessions."""
        from torch.utils.tensorboard import SummaryWriter

        self._folder = run.folder / "tensorboard" / run.identifier
        self._logged = self._read()
        self.writer = SummaryWriter(str(self._folder))
        about = {"group": run.compared_with, "tags": list(run.tags), "job_type": run.job_type, **run.settings}
        self._text("config", f"```json\n{json.dumps(about, indent=1, default=str)}\n```")

    def logged(self) -> dict[str, int]:
        """From the event files of earlier sessions; a half record at an end is left out."""
        return self._logged

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Log scalars at a step."""
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def log_images(self, images: Mapping[str, np.ndarray], step: int) -> None:
        """Log pictures at a step."""
        for name, image in images.items():
            self.writer.add_image(name, image, step, dataformats="HWC")
        self.writer.flush()

    def log_mesh(self, name: str, path: Path, step: int) -> None:
        """Log vertices, triangles and each vertex's base colour for the mesh plug-in, which knows no textures."""
        import trimesh

        mesh = trimesh.load(path, force="mesh", process=False)
        look = mesh.visual if mesh.visual.kind != "texture" else mesh.visual.to_color()
        colours = look.vertex_colors[:, :3]
        vertices = np.asarray(mesh.vertices, np.float32)
        self.writer.add_mesh(
            name, vertices[None], colors=np.asarray(colours)[None], faces=mesh.faces[None], global_step=step
        )
        self.writer.flush()

    def log_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log a table as Markdown."""
        header = columns(rows)
        lines = [header, ["---"] * len(header), *([row.get(key, "") for key in header] for row in rows)]
        self._text(name, "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines))

    def log_artifact(self, artifact: Artifact, uses: Sequence[Artifact] = ()) -> None:
        """Log what the artifact is, and its lineage, as JSON."""
        self._text(
            f"artifacts/{artifact.name}", f"```json\n{json.dumps(artifact.describe(uses), indent=1, default=str)}\n```"
        )

    def use_artifact(self, artifact: Artifact) -> None:
        """Log the name of what is used."""
        self._text(f"uses/{artifact.name}", f"{artifact.kind} {artifact.name}")

    def finish(self, status: Status = "finished") -> None:
        """Flush and close."""
        self.writer.close()

    def _text(self, name: str, text: str) -> None:
        self.writer.add_text(name, text, 0)
        self.writer.flush()

    def _read(self) -> dict[str, int]:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        if not self._folder.exists():
            return {}
        events = EventAccumulator(str(self._folder), {"scalars": 1, "images": 1, "tensors": 1}).Reload()
        tags = events.Tags()
        newest = {name: events.Scalars(name)[-1].step for name in tags["scalars"]}
        return newest | {name: events.Images(name)[-1].step for name in tags["images"]}
