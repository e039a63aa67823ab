"""`python -m fitdiff.evaluation.realy.synthetic out=DIR n=4`: a folder in REALY's layout from synthetic people.

Photos, scans cut into the four regions (finer than the face model, other vertices, turned in space, in the benchmark's
unit), keypoints, metrical scales, the face model's template with its 85 keypoints; and two systems' predictions in
DIR/predictions: `truth`, whose error is next to none, and `mean_face`, which any system must beat. The people are held
out: no model of data=people with the same seed saw them.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path

import igl
import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track
from scipy.spatial.transform import Rotation
from torch import Tensor

from fitdiff.command import run_command
from fitdiff.data.people import HELD_OUT_OFFSET
from fitdiff.data.people.maker import PeopleMaker
from fitdiff.data.people.options import CLEAN, Portraits
from fitdiff.evaluation.mesh_files import write_mesh
from fitdiff.evaluation.realy import folder as layout
from fitdiff.evaluation.realy.keypoints import N_KEYPOINTS, Keypoints, read_template
from fitdiff.evaluation.realy.regions import USUAL_UNIT, Scan
from fitdiff.evaluation.realy.synthetic_scan import make_scan, region_faces
from fitdiff.evaluation.surface import Surface
from fitdiff.registry import build, config_of
from fitdiff.storage import link_or_copy, write_atomically, write_json
from fitdiff.types import Topology

TOPOLOGY = "anny_face"
WORN = replace(CLEAN, bust=1.0)
FRONTAL = Portraits(yaw=4, pitch=4, roll=2, wide=0, expressive=0)
SIDE = Portraits(wide=1, widest=50, expressive=0)
MAPS = 256
"""Side of the maps that photos are rendered from."""


@dataclass
class Options:
    """What the command line sets."""

    out: str = "outputs/realy-synthetic"  # folder to write
    n: int = 4  # people
    side: int = 0  # photos from the side of each, besides the frontal one
    size: int = 512  # side of the photos in pixels, even
    finer: int = 1  # subdivisions of the face model in a scan: 26,000 vertices; 2: four times that
    noise: float = 0.0  # standard deviation of a scan's vertices in mm
    seed: int = 0  # of the people


def write_folder(options: Options, console: Console) -> Path:
    """Write the folder; files that are there are replaced, each atomically.

    Raises:
        ValueError: an option is out of range.
    """
    if options.n < 1 or min(options.side, options.finer) < 0 or not options.noise >= 0:
        raise ValueError(f"got {options}; expected n >= 1 and side, finer, noise >= 0")
    out, shape_model = Path(options.out), build(config_of("shape_model", TOPOLOGY), "shape_model")
    identity = build(config_of("identity", "dlib"), "identity")
    renderer = build(config_of("renderer", "torch"), "renderer", topology=shape_model.topology)
    parts = (shape_model, identity, renderer, MAPS, options.size)
    makers = [PeopleMaker(*parts, 1, options.seed, FRONTAL, WORN)]
    makers += [PeopleMaker(*parts, options.side, options.seed, SIDE, WORN)] if options.side else []
    mean, faces = shape_model.mean.double().numpy(), shape_model.topology.faces.numpy()
    keypoints = write_template(out / "data", shape_model.topology, mean)
    regions, scales = region_faces(shape_model.topology, mean), []
    for number in track(range(1, options.n + 1), "synthetic people", console=console):
        made = [maker.make([HELD_OUT_OFFSET + number - 1]) for maker in makers]
        names = _write_photos(out / layout.IMAGE_FOLDER, number, [image for m in made for image in m["image"][0]])
        person = shape_model(made[0]["identity"])[0].double().numpy()
        for system, vertices in (("truth", person), ("mean_face", mean)):
            _write_predictions(out / "predictions" / system, names, vertices, faces)
        scan = make_scan(person, regions, keypoints(person), number, finer=options.finer)
        scales.append(_write_scan(out, number, scan, np.random.default_rng([options.seed, number]), options.noise))
    write_atomically(out / layout.SCALE_FILE, ("\n".join(f"{scale:.6f}" for scale in scales) + "\n").encode())
    write_json(out / layout.SYNTHETIC_FILE, {name: getattr(options, name) for name in Options.__annotations__})
    return out


def write_template(folder: Path, topology: Topology, mean: np.ndarray) -> Keypoints:
    """Write the mean face and the table of its 85 keypoints, as the benchmark has them for its topologies.

    The first 68 are the topology's landmarks. The benchmark tells of its other 17 only where they lie on its own
    topologies; here they are between the nose's tip and each of the 17 landmarks of the jaw, which is on the cheeks.
    """
    faces = topology.faces.numpy()
    landmarks = Keypoints.of_topology(topology)(mean)[:68]
    inner = topology.regions.get("inner_mouth")
    outside = np.arange(len(faces)) if inner is None else np.flatnonzero(~inner.numpy()[faces].any(1))
    points = np.concatenate([landmarks, (landmarks[:17] + landmarks[30]) / 2])
    closest = Surface(mean, faces[outside]).closest(points)
    triangles = outside[closest.triangle]
    corners = (np.ascontiguousarray(mean[faces[triangles, k]]) for k in range(3))
    weights = np.asarray(igl.barycentric_coordinates(closest.points, *corners)).reshape(N_KEYPOINTS, 3)
    table = [[int(triangle), float(b0), float(b1)] for triangle, (b0, b1, _) in zip(triangles, weights, strict=True)]
    mesh = write_mesh(folder / f"{TOPOLOGY}.obj", mean, faces)
    return read_template(mesh, write_atomically(mesh.with_suffix(".txt"), json.dumps(table).encode()))


def _write_photos(folder: Path, number: int, images_3SS: list[Tensor]) -> list[str]:
    """Write a person's photos, the frontal one first, and give their names."""
    names = [str(number), *(f"{number}_{view}" for view in range(1, len(images_3SS)))]
    for name, image in zip(names, images_3SS, strict=True):
        encoded = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(encoded, "PNG")
        write_atomically(folder / f"{name}.png", encoded.getvalue())
    return names


def _write_predictions(folder: Path, names: list[str], vertices: np.ndarray, faces: np.ndarray) -> None:
    first = write_mesh(folder / f"{names[0]}.obj", vertices, faces)
    for name in names[1:]:
        link_or_copy(first, folder / f"{name}.obj")


def _write_scan(out: Path, number: int, scan: Scan, generator: np.random.Generator, noise: float) -> float:
    """Write a scan somewhere in space and in a unit of its own; returns its mm per unit."""
    mm_per_unit = USUAL_UNIT * float(np.exp(generator.normal(0, 0.08)))
    turn, shift = Rotation.from_rotvec(generator.normal(0, 0.2, 3)), generator.normal(0, 2, 3)

    def place(points: np.ndarray) -> np.ndarray:
        return turn.apply(points * scan.mm_per_unit / mm_per_unit) + shift

    for name, mesh in scan.regions.items():
        vertices = place(mesh.vertices) + generator.normal(0, noise / mm_per_unit, mesh.vertices.shape)
        write_mesh(out / layout.SCAN_FOLDER / str(number) / f"{name}.obj", vertices, mesh.faces)
    write_mesh(out / layout.KEYPOINT_FOLDER / f"{number}.obj", place(scan.keypoints), np.empty((0, 3), np.int64))
    return mm_per_unit


def _write(options: Options, console: Console) -> None:
    out = write_folder(options, console)
    console.print(
        f"results: {out}; python evaluate.py benchmark=realy benchmark.path={out} "
        f"benchmark.predictions={out}/predictions/mean_face benchmark.topology={TOPOLOGY}"
    )


def main() -> None:
    """Write the folder that the command line asks for."""
    run_command(_write, Options, __doc__)


if __name__ == "__main__":
    main()
