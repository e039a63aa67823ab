"""From what was measured on people to the results: plain dicts of numbers, ready for JSON.

Legend of shape suffixes: N people · V portraits of each · K identity code.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from experiments.people.photos import RealFace, nearest_people
from experiments.people.survey import MAP_PARTS, PORTRAITS
from fitdiff.evaluation.predictability import predictability
from fitdiff.evaluation.separation import separation_with_intervals
from fitdiff.evaluation.skin_tone import class_shares, typology_angle
from fitdiff.types import ShapeModel

YAW_EDGES = (0, 10, 20, 30, 45, 90)
CURVE = (8, 4, 2, 1)
"""The learning curve trains on all training people divided by these."""
FEWEST_TRAINED = 10
PHENOTYPES = ("age", "gender", "weight", "muscle", "height", "proportions")
QUANTILES = (0.01, 0.05, 0.5, 0.95, 0.99)


def split(n: int) -> tuple[slice, slice]:
    """People to train on and the fifth that is held out."""
    return slice(0, n - n // 5), slice(n - n // 5, n)


def detector_rates(measured: dict[str, NDArray]) -> dict[str, Any]:
    """Share of portraits whose face is found: by kind, by yaw, and with something in front of the face."""
    found = {kind: measured[f"found_{kind}"] for kind in ("stored", "clean")}
    rates: dict[str, Any] = {"all": {kind: _rate(hits) for kind, hits in found.items()}, "yaw": {}}
    for low, high in itertools.pairwise(YAW_EDGES):
        turned = np.abs(measured["yaw"])
        inside = (turned >= low) & (turned < high)
        rates["yaw"][f"{low} to {high}"] = {k: _rate(hits[inside[: len(hits)]]) for k, hits in found.items()}
    if "occluded" in measured:
        hidden = measured["occluded"].astype(bool)
        rates["occluded"] = {"yes": _rate(found["stored"][hidden]), "no": _rate(found["stored"][~hidden])}
    return rates


def _rate(hits: NDArray) -> dict[str, float | int | None]:
    return {"portraits": int(hits.size), "found": float(hits.mean()) if hits.size else None}


def separations(measured: dict[str, NDArray], n_controls: int, resamples: int) -> dict[str, Any]:
    """Verification statistics of each kind of portrait of the same people, with 95% intervals."""
    return {
        kind: separation_with_intervals(measured[f"embedding_{kind}"][:n_controls], resamples=resamples)
        for kind in PORTRAITS
    }


def shape_targets(identity_NK: NDArray, shape_model: ShapeModel) -> NDArray:
    """(N, K) codes in coordinates whose squared length is the mean squared vertex displacement in mm^2.

    The mean is over the surface: each vertex weighs a third of its triangles' area. With G the codes' Gram matrix under
    those weights and G = L L^T, the coordinates are code L.
    """
    basis = shape_model.identity_basis.double()
    weighted = basis * vertex_areas(shape_model)[None, :, None]
    gram = torch.einsum("kvx,lvx->kl", weighted, basis)
    return identity_NK.astype(np.float64) @ torch.linalg.cholesky(gram).numpy()


def vertex_areas(shape_model: ShapeModel) -> torch.Tensor:
    """(V,) float64 share of the mean face's surface that belongs to each vertex."""
    faces, mean = shape_model.topology.faces, shape_model.mean.double()
    a, b, c = mean[faces].unbind(1)
    area = torch.linalg.cross(b - a, c - a).norm(dim=1) / 6
    total = torch.zeros(len(mean), dtype=area.dtype).index_add(0, faces.flatten(), area.repeat_interleave(3))
    return total / total.sum()


def predictabilities(measured: dict[str, NDArray], shape_model: ShapeModel, resamples: int) -> dict[str, Any]:
    """R^2 of shape and maps from the stored portraits' embeddings, along a learning curve."""
    embedding = measured["embedding_stored"]
    train, test = split(len(embedding))
    sizes = [train.stop // part for part in CURVE if train.stop // part >= FEWEST_TRAINED]
    targets = {"shape": shape_targets(measured["identity"], shape_model)}
    targets |= {name: measured[name].reshape(len(embedding), -1) for name in MAP_PARTS}
    return {
        name: [
            {"people": size, **asdict(predictability(embedding, y, slice(size), test, resamples=resamples))}
            for size in sizes
        ]
        for name, y in targets.items()
    }


def tones(tone_N3: NDArray) -> dict[str, Any]:
    """Shares of the six classes of skin tone, the smallest of them, and the range of ITA."""
    angles = typology_angle(tone_N3)
    shares = class_shares(angles)
    return {"shares": shares, "smallest": min(shares.values()), "ita": quantiles(angles)}


def coverage(measured: dict[str, NDArray], phenotypes: dict[str, NDArray]) -> dict[str, Any]:
    """Range of each phenotype, pose and light; of phenotypes in [0, 1] also the share of the rarest fifth."""
    result: dict[str, Any] = {}
    for name, values in phenotypes.items():
        counts, _ = np.histogram(values, 5, (0, 1))
        result[name] = {**quantiles(values), "rarest_fifth": float(counts.min() / counts.sum())}
    for name in ("yaw", "pitch", "exposure", "contrast"):
        result[name] = quantiles(measured[name])
    return result


def quantiles(values: NDArray) -> dict[str, float]:
    """Least and greatest value, and quantiles between."""
    named = zip(("1%", "5%", "50%", "95%", "99%"), np.quantile(values, QUANTILES), strict=True)
    return {"min": float(values.min()), **{k: float(v) for k, v in named}, "max": float(values.max())}


def real_distances(measured: dict[str, NDArray], faces: list[RealFace]) -> dict[str, Any]:
    """How far real faces, and held-out synthetic ones, are from the nearest of the training people."""
    train, test = split(len(measured["embedding_stored"]))
    people = measured["embedding_stored"][train]
    held_out = nearest_people(measured["embedding_stored"][test][:, 0], people, 1).distance[:, 0]
    result: dict[str, Any] = {"people": len(people), "held_out": quantiles(held_out), "faces": {}}
    if not faces:
        return result
    embedding = np.stack([face.embedding for face in faces])
    nearest = nearest_people(embedding, people, 1)
    for face, distance, person in zip(faces, nearest.distance[:, 0], nearest.person[:, 0], strict=True):
        result["faces"][face.name] = {"licence": face.licence, "distance": float(distance), "person": int(person)}
    result["nearest"] = quantiles(nearest.distance[:, 0])
    if len(faces) > 1:
        result["between_real_people"] = quantiles(pdist(embedding))
    return result
