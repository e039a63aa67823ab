"""The pictures of docs/uses.md: `python -m experiments.uses.pictures [run=...] [out=...]`."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage.data
import torch
from omegaconf import OmegaConf
from PIL import Image

from experiments.fitting.presets import compose_preset
from fitdiff.alignment.photo import Photo
from fitdiff.avatar.pictures import contact_sheet
from fitdiff.colour import linear_to_srgb
from fitdiff.faces import Faces
from fitdiff.model import FitDiff
from fitdiff.storage import write_atomically
from fitdiff.uses.sampling import Samples, render_neutral
from fitdiff.uses.visible_texture import fitted_square, visible_texture

CELL = 176
SCALES = (1.0, 2.0, 4.0)


@dataclass
class Options:
    """What the command line sets."""

    run: str = "outputs/fitdiff-laptop"
    n: int = 7  # faces a row
    out: str = "experiments/uses/pictures"


def save_jpeg(sheet: np.ndarray, path: Path) -> Path:
    """Write a sheet for the docs, small."""
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "JPEG", quality=88)
    return write_atomically(path, buffer.getvalue())


def faces_of(samples: Samples) -> list:
    """Frontal renders."""
    return list(render_neutral(samples.model, samples.z, 2 * CELL, expression_BE=samples.expression))


def strip(samples: Samples) -> np.ndarray:
    """The faces above their diffuse albedo."""
    diffuse = list(samples.reflectance().to_images()["diffuse"])
    return contact_sheet([faces_of(samples), diffuse], columns=samples.captions, cell=CELL)


def completed_photo(model: FitDiff, photo: Photo) -> np.ndarray:
    """A photo, its fit, what it shows of the texture, and the face with that texture completed."""
    preset = compose_preset("")  # as `sample.py texture=visible`
    fit = model.fit(photo, guidance=preset.guidance, fitting=preset.fitting, sampler=preset.sampler)
    completed = model.complete_photo(fit)
    resolution, z = int(model.config["resolution"]), fit.result.z
    square = fitted_square(fit, max(fit.observation.image.shape[-1], 2 * resolution))
    seen = visible_texture(model, square, z, fit.result.scene, resolution)
    row = {
        "photo": fit.observation.image[0],
        "fit, frontal": render_neutral(model, z, 2 * CELL)[0],
        "its albedo": model.maps(z).to_images()["diffuse"][0],
        "seen in the photo": torch.where(seen.known[0], linear_to_srgb(seen.diffuse_albedo[0]), 1.0),
        "completed": completed.reflectance().to_images()["diffuse"][0],
        "the face with it": render_neutral(model, completed.z, 2 * CELL, maps=completed.maps)[0],
    }
    return contact_sheet([list(row.values())], columns=list(row), cell=CELL)


def main() -> None:
    """Draw and write them all."""
    options = OmegaConf.merge(OmegaConf.structured(Options), OmegaConf.from_cli(sys.argv[1:]))
    model, out, n = FitDiff.load(Path(options.run) / "model"), Path(options.out), options.n
    photo = Photo(skimage.data.astronaut())
    save_jpeg(completed_photo(model, photo), out / "visible.jpg")
    someone = model.embed(photo)
    rows = [faces_of(model.sample(n - 1, embedding=someone.embedding, cfg_scale=scale)) for scale in SCALES]
    sheet = [[someone.photo[0], *row] for row in rows]
    save_jpeg(contact_sheet(sheet, rows=[f"{scale:g}" for scale in SCALES], cell=CELL), out / "guidance_scales.jpg")
    crowd = model.sample(3)
    first, second, third = (Faces(crowd.z[i : i + 1]) for i in range(3))
    save_jpeg(strip(model.vary(second, "shape", n - 1)), out / "keep_shape.jpg")
    save_jpeg(strip(model.vary(second, "reflectance", n - 1)), out / "keep_reflectance.jpg")
    save_jpeg(strip(model.interpolate(third, first, n)), out / "walk.jpg")
    changes = ({"shape_0": 3.0}, {"shape_1": 3.0}, {"jawOpen": 0.7}, {"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0})
    edits = [faces_of(model.edit(second, change, n)) for change in changes]
    names = ["shape_0 +3", "shape_1 +3", "jawOpen 0.7", "mouthSmile 1"]
    save_jpeg(contact_sheet(edits, rows=names, cell=CELL), out / "edit.jpg")


if __name__ == "__main__":
    main()
