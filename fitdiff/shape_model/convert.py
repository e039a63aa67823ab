"""`python -m fitdiff.shape_model.convert from=flame path=FILE out=model.npz`: any supported model into `pca_npz`.

Settings: `from` (flame, bfm, ict_facekit, gnm, hifi3d, pca_npz), `path`, `out`, and if wanted `landmarks`, a text file
of 68 vertex ids of the original mesh (or `id weight id weight id weight` a line) instead of those found.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from fitdiff.shape_model import bfm, flame, gnm, hifi3d, ict_facekit, pca_npz
from fitdiff.shape_model.complete import complete
from fitdiff.shape_model.face_basis import ModelFileError, save
from fitdiff.shape_model.model_files import read_landmarks

READERS = {module.SOURCE.key: module.read for module in (bfm, flame, gnm, hifi3d, ict_facekit, pca_npz)}
SETTINGS = ("from", "path", "out", "landmarks")


def convert(source: str, path: str, out: str, landmarks: str | None = None) -> str:
    """Write a complete `pca_npz`; returns a line that says what it holds.

    Raises:
        ModelFileError: unknown source, or a file that cannot be read.
    """
    if source not in READERS:
        raise ModelFileError(f"from={source} is unknown; expected one of {', '.join(sorted(READERS))}")
    basis, corner_uv = READERS[source](path)
    if landmarks is not None:
        vertices, weights = read_landmarks(pca_npz.SOURCE.find(landmarks))
        basis = replace(basis, landmark_vertices=vertices, landmark_weights=weights)
    basis = complete(basis, corner_uv)
    written = save(basis, out)
    return (
        f"{written}: {len(basis.mean)} vertices, {len(basis.faces)} triangles, {len(basis.identity_basis)} identity "
        f"and {len(basis.expression_basis)} expression components of {basis.source}; licence: {basis.licence}"
    )


def main(arguments: list[str]) -> int:
    """Command line; errors are one line."""
    settings = dict(argument.partition("=")[::2] for argument in arguments)
    if set(settings) - set(SETTINGS) or {"from", "path", "out"} - set(settings):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(convert(settings["from"], settings["path"], settings["out"], settings.get("landmarks")))
    except ModelFileError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
