"""What `sample.py` can be asked for: which overrides ask for which use of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fitdiff.faces import Faces, UseError, find_faces
from fitdiff.uses.sampling import Samples

WAYS = ("keep", "to", "edit", "texture")
"""Overrides that ask for something else than plain samples; one at a time."""

VISIBLE = "visible"
"""`texture=visible`: the part of it that the photo shows."""


def draw_what_is_asked(model: Any, asked: Mapping[str, Any]) -> Samples:
    """Serve the overrides of `SampleConfig`, as plain values.

    Raises:
        UseError: overrides that contradict each other, or something that is missing; the message says what to give.
        PhotoError, CheckpointError, FileNotFoundError: about the files that are named.
    """
    ways = [way for way in WAYS if asked[way]]
    if len(ways) > 1:
        raise UseError(f"got {' and '.join(ways)} at once: give one of them, and the next for the folder it wrote")
    if asked["n"] < 1:
        raise UseError(f"got n={asked['n']}: give the number of faces to draw, 1 or more")
    if asked["photo"] and asked["face"]:
        raise UseError("got photo and face: give photo= for an identity alone, or face= for a fit or a sample of it")
    nodes = {kind: asked[kind] or model.config[kind] for kind in ("detector", "landmarks")}
    options = {key: asked[key] for key in ("steps", "cfg_scale", "seed", "sampler")}
    way, n = (ways or ["sample"])[0], asked["n"]
    faces = _faces(model, asked["photo"] or asked["face"], asked["row"], nodes)
    if way in ("keep", "to", "edit") and faces is None:
        raise UseError(f"{way}= needs someone to begin with: give face=outputs/fits/me")
    if way == "keep":
        return model.vary(faces, asked["keep"], n, **options)
    if way == "to":
        return model.interpolate(faces, _faces(model, asked["to"], 0, nodes), n, **options)
    if way == "edit":
        return model.edit(faces, asked["edit"], n)
    if asked["texture"] == VISIBLE:
        if not asked["photo"]:
            raise UseError("texture=visible needs the photo that shows it: give photo=me.jpg")
        fit = model.fit(asked["photo"], seed=asked["seed"], detector=asked["detector"], landmarks=asked["landmarks"])
        return model.complete_photo(fit, n=n, **options)
    if way == "texture":
        return model.complete(asked["texture"], asked["mask"], faces=faces, n=n, **options)
    faces = faces or Faces()
    samples = model.sample(n, embedding=faces.embedding, **options)
    return samples if faces.photo is None else samples.beside(faces.photo[0])


def name_of(asked: Mapping[str, Any]) -> str:
    """Of the result folder: what the faces were made from."""
    source = asked["photo"] or asked["face"] or asked["texture"]
    return Path(source).stem if source else "unconditional"


def _faces(model: Any, source: str | None, row: int, nodes: Mapping[str, Any]) -> Faces | None:
    if not source:
        return None
    faces = find_faces(model, source, nodes)
    n = len(faces.embedding if faces.z is None else faces.z)
    if not 0 <= row < n:
        raise UseError(f"{source}: holds {n} faces; got row={row}, expected 0 to {n - 1}")
    return faces[row : row + 1]
