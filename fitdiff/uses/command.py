"""What `sample.py` can be asked for: which overrides ask for which use of a checkpoint."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fitdiff.album.results import SEAL, publish
from fitdiff.faces import FILE, Faces, UseError, find_faces
from fitdiff.uses.sampling import Samples

WAYS = ("keep", "to", "edit", "texture")
"""Overrides that ask for something else than plain samples; one at a time."""

VISIBLE = "visible"
"""`texture=visible`: the part of it that the photo shows."""


SOURCES = ("photo", "face", "to", "texture", "mask")
"""Overrides that name what is read."""

FIT = ("sampler", "guidance", "fitting", "detector", "landmarks")
"""Components of the fit that `texture=visible` begins with."""


def draw_what_is_asked(model: Any, asked: Mapping[str, Any]) -> Samples:
    """Serve the overrides of `SampleConfig`, as plain values.

    Raises:
        UseError: overrides that contradict each other, or something that is missing; the message says what to give.
        PhotoError, CheckpointError, FileNotFoundError: about the files that are named.
    """
    _refuse_contradictions(asked)
    _refuse_numbers(asked, model.schedule.steps)
    nodes = {kind: asked[kind] or model.config[kind] for kind in ("detector", "landmarks")}
    options = {key: asked[key] for key in ("steps", "cfg_scale", "seed", "sampler")}
    way, n = next((way for way in WAYS if asked[way]), "sample"), asked["n"]
    if asked["texture"] == VISIBLE:
        fit = model.fit(asked["photo"], seed=asked["seed"], **{kind: asked[kind] for kind in FIT})
        return model.complete_photo(fit, n=n, **options)
    faces = _faces(model, asked["photo"] or asked["face"], asked["row"], nodes)
    if way == "keep":
        return model.vary(faces, asked["keep"], n, **options)
    if way == "to":
        return model.interpolate(faces, _faces(model, asked["to"], asked["to_row"], nodes, "to_row"), n, **options)
    if way == "edit":
        return model.edit(faces, asked["edit"], n)
    if way == "texture":
        keep = faces is not None and faces.z is not None
        return model.complete(asked["texture"], asked["mask"], faces=faces, keep_shape=keep, n=n, **options)
    faces = faces or Faces()
    samples = model.sample(n, embedding=faces.embedding, **options)
    return samples if faces.photo is None else samples.beside(faces.photo[0])


def results_folder(asked: Mapping[str, Any]) -> Path:
    """Where the results go: `out`, or `outputs/samples/` and what the faces were made from, and how.

    Raises:
        UseError: results there would take the place of what is read, or of a fit.
    """
    folder = Path(asked["out"] or Path("outputs/samples") / name_of(asked))
    for source in SOURCES:
        if asked[source] and asked[source] != VISIBLE and _would_replace(folder, Path(asked[source])):
            raise UseError(f"results in {folder} would take the place of {source}={asked[source]}: give another out=")
    if (folder / SEAL).exists():
        raise UseError(f"{folder} holds a fit, whose z the samples' would replace: give another out=")
    return folder


def name_of(asked: Mapping[str, Any]) -> str:
    """What the faces were made from, and how: `me`, `me-keep-shape`, `me-to-you`, `me-edit`, `me-visible`, `half`."""
    sources = [_name(asked[source]) for source in ("photo", "face") if asked[source]]
    if asked["keep"]:
        sources.append(f"keep-{asked['keep']}")
    if asked["to"]:
        sources.append(f"to-{_name(asked['to'])}")
    if asked["edit"]:
        sources.append("edit")
    if asked["texture"]:
        sources.append(_name(asked["texture"]))
    return "-".join(sources) or "unconditional"


def publish_samples(samples: Samples, folder: Path, avatars: bool) -> Path:
    """Let samples appear whole (`album.results.publish`), and the faces of an earlier, larger draw go."""

    def write(made: Path) -> None:
        samples.save(made, avatars)
        for earlier in folder.glob("[0-9][0-9]*"):
            if earlier.name.isdigit() and any((earlier / name).exists() for name in (FILE, "diffuse.png")):
                shutil.rmtree(earlier)

    return publish(folder, write)


def _refuse_contradictions(asked: Mapping[str, Any]) -> None:
    ways = [way for way in WAYS if asked[way]]
    if len(ways) > 1:
        raise UseError(f"got {' and '.join(ways)} at once: give one of them, and the next for the folder it wrote")
    if asked["photo"] and asked["face"]:
        raise UseError("got photo and face: give photo= for an identity alone, or face= for a fit or a sample of it")
    someone = asked["photo"] or asked["face"]
    if ways and ways[0] in ("keep", "to", "edit") and not someone:
        raise UseError(f"{ways[0]}= needs someone to begin with: give face=outputs/fits/me")
    if asked["texture"] == VISIBLE and not asked["photo"]:
        raise UseError("texture=visible needs the photo that shows it: give photo=me.jpg")
    if asked["mask"] and asked["texture"] in (None, "", VISIBLE):
        raise UseError("mask= says what is known of a texture that is given: give texture=half.png with it")
    if asked["row"] and not someone:
        raise UseError(f"got row={asked['row']} of nothing: give the folder it is a row of, face=outputs/samples/me")
    if asked["to_row"] and not asked["to"]:
        raise UseError(
            f"got to_row={asked['to_row']} of nothing: give the folder it is a row of, to=outputs/samples/you"
        )


def _refuse_numbers(asked: Mapping[str, Any], most_steps: int) -> None:
    if asked["n"] < 1:
        raise UseError(f"got n={asked['n']}: give the number of faces to draw, 1 or more")
    if not 1 <= asked["steps"] <= most_steps:
        raise UseError(f"got steps={asked['steps']}: give 1 to {most_steps}, the steps that the checkpoint learned")
    if not 0 <= asked["seed"] < 1 << 64:
        raise UseError(f"got seed={asked['seed']}: give an integer from 0 to 2^64 - 1")
    for name, value in {"cfg_scale": asked["cfg_scale"], **asked["edit"]}.items():
        if not math.isfinite(value):
            raise UseError(f"got {name}={value}: give a finite number")


def _name(source: str) -> str:
    """Of a file its stem, of a folder its name, of the z in a folder the folder's name."""
    path = Path(os.path.realpath(source))
    path = path.parent if path.name == FILE else path
    return path.name if os.path.isdir(path) else path.stem


def _would_replace(folder: Path, source: Path) -> bool:
    """Whether samples in a folder could take the place of a source: a file, or a folder with z."""
    folder, source = (Path(os.path.realpath(path)) for path in (folder, source))
    if not source.is_relative_to(folder):
        return False
    inside = source.relative_to(folder).parts
    return not inside or inside[0] in (FILE, "samples.png") or inside[0].isdigit()


def _faces(model: Any, source: str | None, row: int, nodes: Mapping[str, Any], key: str = "row") -> Faces | None:
    if not source:
        return None
    faces = find_faces(model, source, nodes)
    n = len(faces.embedding if faces.z is None else faces.z)
    if not 0 <= row < n:
        raise UseError(f"{source}: holds {n} faces; got {key}={row}, expected 0 to {n - 1}")
    return faces[row : row + 1]
