"""Fits of people side by side: photo, truth and every method, in the photo's view and frontal in studio light."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fitdiff.avatar.pictures import contact_sheet
from fitdiff.avatar.relight import frontal_camera, studio_lighting
from fitdiff.evaluation.methods import Fit
from fitdiff.evaluation.people import Truth
from fitdiff.types import FaceMaps, composite

CELL = 112
GREY = 0.85


@torch.no_grad()
def photo_rows(
    model: Any, image_B3SS: Tensor, fits: Mapping[str, Fit], truth: Truth | None, chosen: Sequence[int]
) -> list[list[Tensor]]:
    """Two rows a chosen photo: photo, truth, and fits laid over the photo; below, the same faces frontal and neutral.

    Args:
        truth: None for real photos, whose rows lack that column.
    """
    columns: list[tuple[Tensor, Tensor]] = []
    if truth is not None:
        vertices = model.shape_model(truth.identity, truth.scene.expression)
        columns.append(_views(model, vertices, model.shape_model(truth.identity), truth.maps, truth.scene, image_B3SS))
    for fit in fits.values():
        vertices, neutral = model.vertices(fit.z, fit.scene.expression), model.vertices(fit.z)
        columns.append(_views(model, vertices, neutral, model.maps(fit.z), fit.scene, image_B3SS))
    blank = torch.ones_like(image_B3SS[0])
    rows = []
    for i in chosen:
        rows.append([image_B3SS[i], *(seen[i] for seen, _ in columns)])
        rows.append([blank, *(frontal[i] for _, frontal in columns)])
    return rows


def _views(
    model: Any, vertices: Tensor, neutral: Tensor, maps: FaceMaps, scene: Any, image: Tensor
) -> tuple[Tensor, Tensor]:
    """(B, 3, S, S) over the photo, and frontal."""
    size = image.shape[-1]
    seen = model.renderer(vertices, maps, scene.camera, scene.lighting, size)
    lighting = studio_lighting(len(neutral), neutral.device)
    frontal = model.renderer(neutral, maps, frontal_camera(neutral), lighting, size)
    return composite(seen, image), composite(frontal, GREY)


def sheet(rows: list[list[Tensor]], names: Sequence[str], methods: Sequence[str], with_truth: bool) -> np.ndarray:
    """All rows under the methods' names; `names` has one a photo, beside its first row."""
    labels = [label for name in names for label in (name, "")]
    return contact_sheet(rows, rows=labels, columns=["photo", *(["truth"] if with_truth else []), *methods], cell=CELL)
