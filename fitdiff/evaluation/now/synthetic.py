"""`python -m fitdiff.evaluation.now.synthetic out=DIR n=3`: a folder in NoW's layout from synthetic people.

Photos of four challenges, scans as a scanner gives them (finer than the face model, noisy, coloured, turned in space),
picked points; and two systems' predictions in DIR/predictions: `truth`, whose error is the scans' noise, and
`mean_face`, which any system must beat. The people are held out: no model of data=people with the same seed saw them.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import igl
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from scipy.spatial.transform import Rotation
from torch import Tensor

from fitdiff.command import run_command
from fitdiff.data.people import HELD_OUT_OFFSET
from fitdiff.data.people.maker import PeopleMaker
from fitdiff.data.people.options import CLEAN, Augmentation, Portraits
from fitdiff.evaluation.mesh_files import write_mesh
from fitdiff.evaluation.now.alignment import IBUG
from fitdiff.evaluation.now.folder import LANDMARKS, PHOTO_FOLDERS, VALIDATION, write_landmarks
from fitdiff.registry import build, config_of
from fitdiff.storage import link_or_copy, write_atomically

WORN = replace(CLEAN, bust=1.0)
KINDS: dict[str, tuple[Portraits, Augmentation]] = {
    "multiview_neutral": (Portraits(expressive=0, wide=0.5), WORN),
    "multiview_expressions": (Portraits(expressive=1), WORN),
    "multiview_occlusions": (Portraits(expressive=0), replace(WORN, glasses=0.5, hand=0.5, hair_strands=0.5)),
    "selfie": (Portraits(wide=0, narrowest_lens=45, widest_lens=60), WORN),
}
"""How each challenge is photographed."""

MAPS = 256
"""Side of the maps that photos are rendered from."""


@dataclass
class Options:
    """What the command line sets."""

    out: str = "outputs/now-synthetic"  # folder to write
    n: int = 3  # people
    photos: int = 2  # of each person and challenge
    size: int = 512  # side of the photos in pixels, even
    finer: int = 1  # subdivisions of the face model in a scan: 35,000 vertices; 2: 140,000
    noise: float = 0.1  # standard deviation of a scan's vertices in mm
    seed: int = 0  # of the people


@dataclass(frozen=True)
class Person:
    """A head in the scanner: neutral vertices (V, 3) mm in head space, landmarks (7, 3) on them."""

    vertices: NDArray[np.float64]
    landmarks: NDArray[np.float64]


def write_folder(options: Options, console: Console) -> Path:
    """Write the folder; files that are there are replaced, each atomically; the list is written last.

    Raises:
        ValueError: an option is out of range.
    """
    if options.n < 1 or options.photos < 1 or options.finer < 0 or not options.noise >= 0:
        raise ValueError(f"got {options}; expected n, photos >= 1 and finer, noise >= 0")
    out = Path(options.out)
    shape_model = build(config_of("shape_model", "anny_face"), "shape_model")
    identity = build(config_of("identity", "dlib"), "identity")
    renderer = build(config_of("renderer", "torch"), "renderer", topology=shape_model.topology)
    makers = {
        name: PeopleMaker(shape_model, identity, renderer, MAPS, options.size, options.photos, options.seed, *kind)
        for name, kind in KINDS.items()
    }
    faces = shape_model.topology.faces.numpy()
    mean = _person(shape_model, shape_model.mean[None])
    lines: list[str] = []
    for index in track(range(options.n), "synthetic people", console=console):
        subject = f"subject_{index:03d}"
        for challenge, maker in makers.items():
            made = maker.make([HELD_OUT_OFFSET + index])
            keys = [f"{subject}/{challenge}/IMG_{view:04d}" for view in range(options.photos)]
            _write_photos(out / PHOTO_FOLDERS[1], keys, made["image"][0])
            person = _person(shape_model, shape_model(made["identity"]))
            for system, face in (("truth", person), ("mean_face", mean)):
                _write_predictions(out / "predictions" / system, keys, face, faces)
            lines += [f"{key}.jpg" for key in keys]
        _write_scan(out, subject, person, faces, options, index)
    write_atomically(out / VALIDATION, ("\n".join(lines) + "\n").encode())
    return out


def _person(shape_model: object, vertices_1V3: Tensor) -> Person:
    landmarks = shape_model.topology.landmarks(vertices_1V3)[0, list(IBUG)]  # type: ignore[attr-defined]
    return Person(vertices_1V3[0].double().numpy(), landmarks.double().numpy())


def _write_photos(folder: Path, keys: Sequence[str], images_N3SS: Tensor) -> None:
    for key, image in zip(keys, images_N3SS, strict=True):
        encoded = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(encoded, "JPEG", quality=95)
        write_atomically(folder / f"{key}.jpg", encoded.getvalue())


def _write_predictions(folder: Path, keys: Sequence[str], person: Person, faces: NDArray[np.int64]) -> None:
    first, *others = keys
    write_mesh(folder / f"{first}.obj", person.vertices, faces)
    write_landmarks(folder / f"{first}.npy", person.landmarks)
    for key in others:
        for suffix in (".obj", ".npy"):
            link_or_copy(folder / f"{first}{suffix}", folder / f"{key}{suffix}")


def _write_scan(
    out: Path, subject: str, person: Person, faces: NDArray[np.int64], options: Options, index: int
) -> None:
    """A scan of the neutral face somewhere in space, and its points as a person would pick them."""
    generator = np.random.default_rng([options.seed, index])
    turn, shift = Rotation.from_rotvec(generator.normal(size=3) * 0.3), generator.normal(size=3) * 50
    fine, fine_faces = igl.upsample(person.vertices, faces, options.finer)
    scanned = turn.apply(fine + options.noise * generator.normal(size=fine.shape)) + shift
    colours = np.full(fine.shape, 0.5) + 0.4 * np.tanh((fine - fine.mean(0)) / fine.std(0))
    write_mesh(out / "scans" / subject / f"{subject}.obj", scanned, fine_faces, colours)
    folder, suffix = LANDMARKS
    write_picked_points(out / folder / subject / f"{subject}{suffix}", turn.apply(person.landmarks) + shift)


def write_picked_points(path: Path, points: NDArray[np.float64]) -> None:
    """Write points (K, 3) as MeshLab's `.pp`."""
    root = ElementTree.Element("PickedPoints")
    for name, place in enumerate(points):
        axes = {axis: repr(float(value)) for axis, value in zip("xyz", place, strict=True)}
        ElementTree.SubElement(root, "point", {**axes, "active": "1", "name": str(name)})
    write_atomically(path, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _write(options: Options, console: Console) -> None:
    out = write_folder(options, console)
    console.print(f"results: {out}; python evaluate.py benchmark=now benchmark.path={out}")


if __name__ == "__main__":
    run_command(_write, Options, __doc__)
