"""Where the embedded face lies on another face: carries its landmarks and regions to any mesh.

The embedded face is fitted to the other mean face by point-to-plane ICP over a similarity and its own identity code
(Blanz and Vetter's model as a prior), then bent smoothly onto it (a Laplacian deformation). A landmark goes to the
nearest point of the surface, a region to the vertices nearest to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.sparse import linalg
from scipy.spatial import cKDTree

from fitdiff.shape_model.anny_face import AnnyFace

COMPONENTS = 100
SPARSE = 4
"""The fit looks at every fourth vertex; bending looks at all."""
ROUNDS, SETTLED_MM = 40, 0.05
BENDS = 2
REACH_MM = 25.0
"""Points farther apart than this do not correspond."""
AGREE = 0.5
"""Cosine that the normals of corresponding points reach at least."""
CODE_WEIGHT, POINT_WEIGHT, BEND_STIFFNESS = 0.1, 0.05, 20.0
FEATURES, FEATURE_MM = 20.0, 12.0
"""How much more than smooth skin eyes, nose, mouth and brows count, and how near to landmarks that is."""
START_SHIFTS_MM = (0.0, 30.0, -30.0)
"""Heights at which the fit starts, from the most forward point as the tip of the nose: a bust's may be its chest."""
FOUND_MM = 2.5
"""Mean distance after a fit that needs no other start; the fits of real models reach 0.8 to 2."""
REGION_MM = 8.0
CANDIDATES = 48


@dataclass(frozen=True)
class Surface:
    """Triangles with normals: vertices (V, 3), faces (F, 3), normals (V, 3) of unit length."""

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray

    @classmethod
    def of(cls, vertices: np.ndarray, faces: np.ndarray) -> Surface:
        """With area-weighted vertex normals."""
        a, b, c = (vertices[faces[:, k]] for k in range(3))
        cross = np.repeat(np.cross(b - a, c - a), 3, 0)
        normals = np.stack([np.bincount(faces.ravel(), cross[:, x], len(vertices)) for x in range(3)], 1)
        return cls(vertices, faces, normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12))


@dataclass(frozen=True)
class Correspondence:
    """The embedded face, laid on another one.

    Attributes:
        template: the embedded model. fitted: (M, 3) mm, its vertices on the other face. error: () mm, the mean distance
            of its skin from the other surface before bending: several millimetres mean that it did not find the face.
    """

    template: AnnyFace
    fitted: Surface
    error: float

    def landmarks(self, target: Surface) -> tuple[np.ndarray, np.ndarray]:
        """Vertex ids (68, 3) and weights (68, 3) of the nearest points of the target's surface."""
        topology = self.template.topology
        points = topology.landmarks(torch.from_numpy(self.fitted.vertices)[None])[0].numpy()
        return nearest_points(points, target)

    def regions(self, target: Surface) -> dict[str, np.ndarray]:
        """Region -> (V,) bool: vertices whose nearest vertex of the embedded face, facing alike, is in the region."""
        distance, nearest = cKDTree(self.fitted.vertices).query(target.vertices)
        agree = (self.fitted.normals[nearest] * target.normals).sum(1) > 0
        near = (distance < REGION_MM) & agree
        return {name: near & mask.numpy()[nearest] for name, mask in self.template.topology.regions.items()}


@dataclass(frozen=True)
class _Layer:
    """Vertices of the embedded face (M,) bool that belong on a part of the other face, and that part."""

    mask: np.ndarray
    part: Surface
    tree: cKDTree


def correspond(skin: Surface, eyes: Surface | None = None) -> Correspondence:
    """Lay the embedded face on a face in mm in head-space axes, anywhere.

    Args:
        skin: the skin alone; its outside is the side of its normals. eyes: the eyeballs, if they are known.

    Returns:
        The best of a few starts.
    """
    template = AnnyFace()
    masks = {name: mask.numpy() for name, mask in template.topology.regions.items()}
    layers = [_Layer(masks["skin"] | masks["lips"], skin, cKDTree(skin.vertices))]
    if eyes is not None:
        layers.append(_Layer(masks["eyes"], eyes, cKDTree(eyes.vertices)))
    fits = []
    for shift in START_SHIFTS_MM:
        fits.append(_fit(template, layers, shift))
        if fits[-1][1] < FOUND_MM:
            break
    vertices, error = min(fits, key=lambda fit: fit[1])
    faces = template.topology.faces.numpy()
    for _ in range(BENDS):
        vertices = _bend(Surface.of(vertices, faces), layers)
    return Correspondence(template, Surface.of(vertices, faces), error)


def nearest_points(points: np.ndarray, target: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Nearest surface points of (N, 3) points among the triangles whose centroids are closest.

    Returns:
        Vertex ids (N, 3) and barycentric weights (N, 3), each row summing to 1.
    """
    centroids = target.vertices[target.faces].mean(1)
    _, near = cKDTree(centroids).query(points, min(CANDIDATES, len(centroids)))
    weights = _barycentric(points[:, None], *(target.vertices[target.faces[near, k]] for k in range(3)))
    corners = target.vertices[target.faces[near]]
    distance = np.linalg.norm(points[:, None] - (weights[..., None] * corners).sum(2), axis=-1)
    best = distance.argmin(1)
    rows = np.arange(len(points))
    return target.faces[near[rows, best]], weights[rows, best]


def _barycentric(p: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Weights (..., 3) of the point of triangle abc that is nearest to p."""
    ends = np.stack([a, b, c], -2)
    inside = _plane_weights(p, a, b, c)
    edges = []
    for i, j in ((0, 1), (1, 2), (2, 0)):
        start, along = ends[..., i, :], ends[..., j, :] - ends[..., i, :]
        t = np.clip(((p - start) * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-30), 0, 1)
        weight = np.zeros((*t.shape, 3))
        weight[..., i], weight[..., j] = 1 - t, t
        edges.append(weight)
    edges = np.stack(edges, -2)
    gap = np.linalg.norm(p[..., None, :] - edges @ ends, axis=-1)
    nearest = np.take_along_axis(edges, gap.argmin(-1)[..., None, None], -2)[..., 0, :]
    return np.where((inside >= 0).all(-1, keepdims=True), inside, nearest)


def _plane_weights(p: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Barycentric coordinates (..., 3) of the projection of p onto the plane of abc; -1 where abc is degenerate."""
    normal = np.cross(b - a, c - a)
    area = (normal**2).sum(-1)
    v = (np.cross(p - a, c - a) * normal).sum(-1)
    w = (np.cross(b - a, p - a) * normal).sum(-1)
    safe = np.where(area > 0, area, 1)
    weights = np.stack([1 - (v + w) / safe, v / safe, w / safe], -1)
    return np.where((area > 0)[..., None], weights, -1.0)


def _fit(template: AnnyFace, layers: list[_Layer], shift: float) -> tuple[np.ndarray, float]:
    """Vertices (M, 3) of the embedded model after ICP over similarity and code, and the mean distance in mm."""
    mean = template.mean.double().numpy()
    basis = template.identity_basis[:COMPONENTS].double().numpy()
    faces = template.topology.faces.numpy()
    marks = template.topology.landmarks(template.mean[None])[0, 17:].double().numpy()
    weights = 1 + FEATURES * np.exp(-((cKDTree(marks).query(mean)[0] / FEATURE_MM) ** 2))
    skin = layers[0]
    some = np.arange(len(mean)) % SPARSE == 0
    tip = skin.part.vertices[skin.part.vertices[:, 2].argmax()] + [0, shift, 0]
    linear, offset = np.eye(3), tip - mean[mean[:, 2].argmax()]
    code = np.zeros(len(basis))
    posed = mean + offset
    for _ in range(ROUNDS):
        ids, points, normals = _pairs(Surface.of(posed, faces), layers, some)
        if len(ids) < 100:
            return posed, np.inf
        step = _step(posed[ids], points, normals, basis[:, ids] @ linear.T, code, weights[ids])
        turn, move, grow, code = step[:3], step[3:6], step[6], code + step[7:]
        centre = posed[ids].mean(0)
        change = _rotation(turn) * np.exp(grow)
        linear, offset = change @ linear, change @ (offset - centre) + centre + move
        before, posed = posed, (mean + np.tensordot(code, basis, 1)) @ linear.T + offset
        if np.abs(posed - before).max() < SETTLED_MM:
            break
    distance = skin.tree.query(posed[skin.mask])[0]
    return posed, float(np.minimum(distance, REACH_MM).mean())


def _pairs(source: Surface, layers: list[_Layer], among: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids (N,) of vertices with a counterpart, and the counterparts' points and normals (N, 3)."""
    found = []
    for layer in layers:
        ids = np.flatnonzero(layer.mask & among)
        distance, nearest = layer.tree.query(source.vertices[ids])
        normals = layer.part.normals[nearest]
        keep = (distance < REACH_MM) & ((source.normals[ids] * normals).sum(1) > AGREE)
        found.append((ids[keep], layer.part.vertices[nearest[keep]], normals[keep]))
    ids, points, normals = (np.concatenate(column) for column in zip(*found, strict=True))
    return ids, points, normals


def _step(
    source: np.ndarray,
    points: np.ndarray,
    normals: np.ndarray,
    basis: np.ndarray,
    code: np.ndarray,
    weights: np.ndarray,
) -> np.ndarray:
    """Gauss-Newton step of turn (3), move (3), log scale (1) and code (K): point to plane, a little point to point."""
    offset = source - source.mean(0)
    gap = points - source
    # A turn about axis e moves a point at x by e x x.
    turns = np.cross(np.eye(3)[:, None], offset).transpose(1, 2, 0)
    moves = np.broadcast_to(np.eye(3), (len(source), 3, 3))
    jacobian = np.concatenate([turns, moves, offset[:, :, None], basis.transpose(1, 2, 0)], 2)
    plane = np.einsum("nx,nxp->np", normals, jacobian)
    spread = jacobian.reshape(-1, jacobian.shape[2])
    plane_w, spread_w = plane * weights[:, None], spread * POINT_WEIGHT * np.repeat(weights, 3)[:, None]
    hessian = plane_w.T @ plane + spread_w.T @ spread
    gradient = plane_w.T @ (normals * gap).sum(1) + spread_w.T @ gap.ravel()
    prior = CODE_WEIGHT * weights.sum() / len(code) * np.r_[np.zeros(7), np.ones(len(code))]
    return np.linalg.solve(hessian + np.diag(prior), gradient - prior * np.r_[np.zeros(7), code])


def _rotation(turn: np.ndarray) -> np.ndarray:
    """Rotation matrix of an axis-angle vector. (Rodrigues.)"""
    angle = max(float(np.linalg.norm(turn)), 1e-12)
    x, y, z = turn / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _bend(source: Surface, layers: list[_Layer]) -> np.ndarray:
    """Move the vertices onto the other face's tangent planes by a smooth field of displacements."""
    n = len(source.vertices)
    ids, points, normals = _pairs(source, layers, np.ones(n, bool))
    sides = np.concatenate([source.faces[:, [0, 1]], source.faces[:, [1, 2]], source.faces[:, [2, 0]]])
    adjacency = sparse.csr_matrix((np.ones(len(sides)), (sides[:, 0], sides[:, 1])), (n, n))
    adjacency = adjacency.maximum(adjacency.T)
    laplacian = sparse.diags(np.asarray(adjacency.sum(1)).ravel()) - adjacency
    chosen = np.bincount(ids, minlength=n).astype(float)
    wanted = np.zeros((n, 3))
    wanted[ids] = ((points - source.vertices[ids]) * normals).sum(1, keepdims=True) * normals
    system = sparse.diags(chosen + 1e-6) + BEND_STIFFNESS * laplacian
    solve = linalg.factorized(system.tocsc())
    return source.vertices + np.stack([solve(column) for column in wanted.T], 1)
