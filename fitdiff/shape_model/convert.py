"""Convert any supported model: `python -m fitdiff.shape_model.convert shape_model=flame path=FILE out=model.npz`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from omegaconf import MISSING

from fitdiff.command import run_command
from fitdiff.shape_model import bfm, flame, gnm, hifi3d, ict_facekit, pca_npz
from fitdiff.shape_model.complete import complete
from fitdiff.shape_model.face_basis import ModelFileError, save
from fitdiff.shape_model.model_files import read_landmarks

READERS = {module.SOURCE.key: module.read for module in (bfm, flame, gnm, hifi3d, ict_facekit, pca_npz)}


def convert(shape_model: str, path: str, out: str, landmarks: str | None = None) -> str:
    """Write a complete `pca_npz`; returns a line that says what it holds.

    Raises:
        ModelFileError: unknown source, or a file that cannot be read.
    """
    if shape_model not in READERS:
        raise ModelFileError(f"shape_model={shape_model} is unknown; expected one of {', '.join(sorted(READERS))}")
    basis, corner_uv = READERS[shape_model](path)
    if landmarks is not None:
        vertices, weights = read_landmarks(pca_npz.SOURCE.find(landmarks))
        basis = replace(basis, landmark_vertices=vertices, landmark_weights=weights)
    basis = complete(basis, corner_uv)
    written = save(basis, out)
    return (
        f"{written}: {len(basis.mean)} vertices, {len(basis.faces)} triangles, {len(basis.identity_basis)} identity "
        f"and {len(basis.expression_basis)} expression components of {basis.source}; licence: {basis.licence}"
    )


@dataclass
class Options:
    """What the command line sets."""

    shape_model: str = MISSING  # flame, bfm, ict_facekit, gnm, hifi3d or pca_npz
    path: str = MISSING  # file or folder of the model, as published
    out: str = MISSING  # npz to write
    landmarks: str | None = None  # text file instead of those found: 68 lines `id` or `id weight id weight id weight`


def main() -> None:
    """Convert what the command line names."""
    run_command(lambda o, console: console.print(convert(o.shape_model, o.path, o.out, o.landmarks)), Options, __doc__)


if __name__ == "__main__":
    main()
