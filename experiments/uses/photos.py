"""Are several photos of a person better than the best one? `python -m experiments.uses.photos [run=...] [n=8]`.

Held-out people are photographed anew, `MOST` times each and once more for the judge. Every photo is fitted alone; then
the first two and all together, with one z for all and a scene for each. Everything but the pixels is unknown. "Best
single" is the photo's fit with the least G, which needs no truth to be chosen.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor

from experiments.fitting.presets import Preset, compose_preset
from experiments.report import markdown_table
from experiments.uses.run import open_run, with_interval
from fitdiff.alignment.face import DetectedFace, find_face
from fitdiff.alignment.photo import Photo, PhotoError
from fitdiff.data.people import HELD_OUT_OFFSET, People
from fitdiff.data.people.maker import PeopleMaker
from fitdiff.data.shards import dequantise
from fitdiff.evaluation.metrics import identity_cosine, map_psnr, shape_error
from fitdiff.model import FitDiff
from fitdiff.photo_fit import fit_faces, render_embedding
from fitdiff.registry import build
from fitdiff.storage import write_json
from fitdiff.types import SCENE_KEYS, FaceMaps, Scene

MOST = 4
"""Photos of a person that are fitted; the next one is the judge's."""


@dataclass
class Options:
    """What the command line sets."""

    run: str = "outputs/fitdiff-laptop"
    n: int = 8  # held-out people
    preset: str = ""  # overrides of fit.py; empty is its default
    out: str = "outputs/experiments/uses"


def photograph(model: FitDiff, people: People, n: int) -> dict[str, Tensor]:
    """The first held-out people with `MOST + 1` portraits each: the stored views are the first of these."""
    maker = people.maker
    parts = (maker.shape_model, maker.identity, maker.renderer)
    again = PeopleMaker(*parts, maker.resolution, 224, MOST + 1, maker.seed, maker.portraits, maker.augmentation)
    return again.make(range(HELD_OUT_OFFSET, HELD_OUT_OFFSET + n))


def find_all(model: FitDiff, images_V3SS: Tensor) -> list[DetectedFace] | None:
    """The face in each photo; None if one has none."""
    detector, landmarks = (build(model.config[kind], kind) for kind in ("detector", "landmarks"))
    try:
        return [find_face(Photo(image.permute(1, 2, 0).numpy()), detector, landmarks) for image in images_V3SS]
    except PhotoError:
        return None


@torch.no_grad()
def score(model: FitDiff, person: dict[str, Tensor], z_1N: Tensor) -> dict[str, float]:
    """Against the truth, and in the judge's photo."""
    judge = {key: person[key][MOST : MOST + 1] for key in ("image", "embedding", *SCENE_KEYS)}
    scene, photo = Scene.from_tensors(judge), judge["image"].float() / 255
    novel = render_embedding(model, z_1N, scene.camera, scene.lighting, scene.expression, photo.shape[-1], photo)
    truth = FaceMaps.from_tensor(dequantise(person["maps"][None]))
    return {
        "novel ID, centred": identity_cosine(novel, judge["embedding"], model.embedding_mean).item(),
        "shape, mm": shape_error(model.vertices(z_1N), model.shape_model(person["identity"][None])).item(),
        "diffuse, dB": map_psnr(model.maps(z_1N), truth)["diffuse"].item(),
    }


def fit_in_all_ways(model: FitDiff, faces: list[DetectedFace], preset: Preset) -> dict[str, Tensor]:
    """z (1, N) by way; the single fits under `single 1` and so on."""
    nodes = {"guidance": preset.guidance, "fitting": preset.fitting, "sampler": preset.sampler}
    singles = fit_faces(model, faces, **nodes)
    last = [float(fit.result.history[-1]["G"]) for fit in singles]
    together = {k: fit_faces(model, faces[:k], shared=True, **nodes)[0].result.z for k in (2, MOST)}
    return {
        **{f"single {i + 1}": fit.result.z for i, fit in enumerate(singles)},
        "best single of 2": singles[int(np.argmin(last[:2]))].result.z,
        f"best single of {MOST}": singles[int(np.argmin(last))].result.z,
        **{f"{k} photos, one z": z for k, z in together.items()},
    }


def main() -> None:
    """Print and write the table."""
    options = OmegaConf.merge(OmegaConf.structured(Options), OmegaConf.from_cli(sys.argv[1:]))
    model, people = open_run(options.run)
    preset = compose_preset(options.preset)
    everyone = photograph(model, people, options.n)
    rows: list[dict[str, dict[str, float]]] = []
    start = time.process_time()
    for i in range(options.n):
        person = {key: value[i] for key, value in everyone.items()}
        if (faces := find_all(model, person["image"][:MOST])) is not None:
            rows.append({way: score(model, person, z) for way, z in fit_in_all_ways(model, faces, preset).items()})
    figures = {way: {key: np.array([row[way][key] for row in rows]) for key in rows[0][way]} for way in rows[0]}
    singles = [figures.pop(f"single {i + 1}") for i in range(MOST)]
    figures = {"single, mean": {key: np.mean([s[key] for s in singles], 0) for key in singles[0]}, **figures}
    specs = {"novel ID, centred": ".3f", "shape, mm": ".2f", "diffuse, dB": ".1f"}
    table = [[way, *(with_interval(v[key], spec) for key, spec in specs.items())] for way, v in figures.items()]
    gains = [
        [
            f"{k} photos less best single of {k}",
            *(
                with_interval(figures[f"{k} photos, one z"][key] - figures[f"best single of {k}"][key], "+" + spec)
                for key, spec in specs.items()
            ),
        ]
        for k in (2, MOST)
    ]
    print(
        f"Date: {date.today()}; {len(rows)} of {options.n} held-out people (in the others a photo had no face that was "
        f"found), {options.preset or 'the default preset'}, {time.process_time() - start:.0f} s of CPU.\n"
    )
    print(markdown_table(["", *specs], [*table, *gains]))
    write_json(
        Path(options.out) / "photos.json", {w: {k: v.tolist() for k, v in m.items()} for w, m in figures.items()}
    )


if __name__ == "__main__":
    main()
