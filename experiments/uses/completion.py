"""How well half a texture tells the other half: `python -m experiments.uses.completion [run=...] [n=12]`."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor

from experiments.report import markdown_table
from experiments.uses.run import open_run, with_interval
from fitdiff.avatar.pictures import contact_sheet, save_png
from fitdiff.colour import linear_to_srgb, srgb_to_linear
from fitdiff.data.shards import dequantise
from fitdiff.faces import Faces
from fitdiff.model import FitDiff
from fitdiff.storage import write_json
from fitdiff.uses.blending import blend, seam_ratio
from fitdiff.uses.completion import PartialTexture, complete_texture
from fitdiff.uses.visible_texture import seen_texels

SHOWN = 4
"""People in the picture."""


@dataclass
class Options:
    """What the command line sets."""

    run: str = "outputs/fitdiff-laptop"
    n: int = 12  # held-out people
    out: str = "outputs/experiments/uses"


def psnr(ours: Tensor, truth: Tensor, mask: Tensor) -> float:
    """dB over the texels of a mask (R, R) of two pictures (3, R, R) as displayed."""
    return float(-10 * (ours - truth).square()[:, mask].mean().clamp_min(1e-12).log10())


def completed(model: FitDiff, texture: PartialTexture, faces: Faces | None) -> tuple[Tensor, Tensor]:
    """Diffuse albedo as displayed (n, 3, R, R): joined with what is known, and as drawn."""
    samples = complete_texture(model, texture, faces=faces, n=len(texture.known))
    joined, drawn = samples.reflectance(), model.maps(samples.z)
    return linear_to_srgb(joined.diffuse_albedo), linear_to_srgb(drawn.diffuse_albedo)


def methods(model: FitDiff, truth: Tensor, embedding: Tensor, average: Tensor, rebuilt: Tensor, known: Tensor) -> dict[str, Tensor]:  # fmt: skip # noqa: E501
    """By name, the whole diffuse albedo (n, 3, R, R) as displayed, from its part in a mask (R, R)."""
    mask = known.expand(len(truth), 1, *known.shape)
    texture = PartialTexture(srgb_to_linear(truth), mask)
    nobodys, _ = completed(model, texture, None)
    ours, drawn = completed(model, texture, Faces(embedding=embedding))
    mirror = torch.where(known.flip(-1), truth.flip(-1), average)

    def blended(other: Tensor) -> Tensor:
        return torch.stack([blend(t, o, known) for t, o in zip(truth, other.expand_as(truth), strict=True)])

    return {
        "truth": truth,
        "autoencoder of the whole": rebuilt,
        "mean face, pasted": torch.where(known, truth, average),
        "mean face, blended": blended(average),
        "mirrored": torch.where(known, truth, mirror),
        "drawn for the portrait's identity": drawn,
        "the same, pasted": torch.where(known, truth, drawn),
        "the same, blended: `complete`": ours,
        "`complete` without an identity": nobodys,
    }


def table(rows: dict[str, Tensor], truth: Tensor, known: Tensor, face: Tensor) -> tuple[str, dict[str, Any]]:
    """Markdown and figures: dB of the unseen and of the known part of the face, and the seam."""
    record: dict[str, Any] = {}
    lines = []
    for name, values in rows.items():
        pairs = list(zip(values, truth, strict=True))
        exact = bool((values - truth)[..., known].abs().max() < 1e-5)
        record[name] = {
            "unseen": [psnr(ours, theirs, face & ~known) for ours, theirs in pairs],
            "known": [psnr(ours, theirs, known) for ours, theirs in pairs],
            "seam": [seam_ratio(ours, known, face) for ours, _ in pairs],
        }
        unseen, inside, seam = (np.array(column) for column in record[name].values())
        lines.append([
            name,
            "" if name == "truth" else with_interval(unseen, ".1f"),
            "exact" if exact else with_interval(inside, ".1f"),
            with_interval(seam),
        ])  # fmt: skip
    return markdown_table(["", "unseen part, dB", "known part, dB", "seam (truth's is none)"], lines), record


def main() -> None:
    """Print and write the tables and the picture."""
    options = OmegaConf.merge(OmegaConf.structured(Options), OmegaConf.from_cli(sys.argv[1:]))
    model, people = open_run(options.run)
    everyone = people.held_out.gather(range(options.n), ("maps", "identity", "embedding"))
    packed = dequantise(everyone["maps"])
    truth = packed[:, :3] * 0.5 + 0.5
    average = dequantise(people.train.gather(range(500), ("maps",))["maps"]).mean(0)[:3] * 0.5 + 0.5
    with torch.no_grad():
        rebuilt = (model.autoencoder.decode(model.autoencoder.encode(packed))[:, :3] * 0.5 + 0.5).clamp(0, 1)
    size, mean_face = truth.shape[-1], torch.zeros(1, model.latent.length)
    face = seen_texels(model, mean_face, 0.0, size, least_cosine=0.0)[0, 0]
    masks = {
        "left half": face & (torch.arange(size) < size // 2),
        "what a camera at yaw 45 sees": seen_texels(model, mean_face, 45.0, size)[0, 0],
    }
    print(f"Date: {date.today()}; {options.n} held-out people.\n")
    record, strips = {}, []
    for label, known in masks.items():
        start = time.process_time()
        rows = methods(model, truth, everyone["embedding"][:, 0], average, rebuilt, known)
        seconds = (time.process_time() - start) / options.n / 2
        text, record[label] = table(rows, truth, known, face)
        print(f"**{label}** ({known.sum() / face.sum():.0%} of the face), {seconds:.1f} s of CPU each\n\n{text}\n")
        shown = (truth, torch.where(known, truth, torch.ones_like(truth)), rows["mirrored"], rows["the same, blended: `complete`"])  # fmt: skip # noqa: E501
        strips.append([column[:SHOWN] for column in shown])
    out = Path(options.out)
    write_json(out / "completion.json", record)
    sheet = [[column[i] for strip in strips for column in strip] for i in range(min(SHOWN, options.n))]
    columns = ["truth", "known", "mirrored", "completed"] * len(strips)
    save_png(contact_sheet(sheet, columns=columns, cell=160), out / "completion.png")


if __name__ == "__main__":
    main()
