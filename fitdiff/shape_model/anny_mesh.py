"""From MakeHuman's closed body to a clean disc: the topology of the embedded face model.

Cut at the eyelid margins and inside the lips, cover the holes (eyeballs, mouth), refine, clip along a smooth surface
through hairline, ears and throat. Everything is one sparse operator on MakeHuman's vertices, so identities and
expressions share it: a lid closes over an eyeball that stays where it is, and gaze turns the eyeball under the lids.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from fitdiff.shape_model import anny_mouth
from fitdiff.shape_model.anny_mouth import MOUTH
from fitdiff.shape_model.makehuman import NOSE_TIP, BaseMesh
from fitdiff.shape_model.surface import (
    QuadMesh,
    clip,
    components,
    edges_of,
    grid_fill,
    mirror_mean,
    mirror_partners,
    subdivide,
    triangulate,
)

SKIN, LEFT_EYE, RIGHT_EYE = range(3)

RIGHT_LID_EDGE = (1068, 1067)
"""An edge of the loop of 28 vertices where the right lids meet the eyeball; the left loop is its mirror image."""
LID_CORNER = 7
"""Position of the outer corner in that loop."""
EYE_REACH = (1.0, 1.45)
"""How much wider and higher than its opening each eyeball is covered: what lids hide, gaze brings out."""
MOUTH_EDGE = (554, 555)
"""An edge of the loop inside the mouth behind the lips, 38 vertices, starting at the middle of the upper lip."""
EYE_COLUMNS = 10

CLIP_DEPTH, CLIP_HEIGHT, CLIP_CURVATURE = -57.0, -25.0, 0.0057
"""The clip keeps z > depth + curvature (y - height)^2, in mm from the point between the eyes: a curve in profile that
passes the hairline, the front of the ears, the jaw angle and the throat, 25 mm behind the chin."""

CLIP_MARGIN = 25.0

LANDMARKS = (
    5402, 5185, 5180, 5206, 735, 5298, 917, 5221, 5225, 11831, 7619, 11903, 7455, 11817, 11792, 11797, 12001,
    255, 224, 222, 223, 228, 7001, 6997, 6996, 6998, 7024, 132, 131, 164, 294, 320, 313, 317, 7076, 7082,
    6759, 0, 54, 63, 6772, 1068, 6847, 6838, 6784, 13355, 7760, 13368,
    3733, 5351, 460, 466, 7219, 11953, 10401, 7239, 7241, 492, 486, 484,
    438, 462, 468, 7221, 7198, 7264, 540, 517,
)  # fmt: skip
"""MakeHuman vertices of the iBUG 68 landmarks, where dlib's detector sees them on renders of many people
(measured on 120 frontal ones: `tests/numerics/test_shape_model_landmarks.py`)."""

LANDMARK_PARTNERS = {
    0: 5239, 1: 5186, 2: 5204, 3: 910, 6: 5295, 7: 5293, 8: 5296, 9: 11899, 10: 11901, 13: 7612, 14: 11815, 15: 11798,
    16: 11848, 18: 232, 20: 233, 23: 7006, 25: 7005, 28: 135, 36: 6770, 38: 57, 43: 6841, 45: 13366,
    50: 450, 52: 7210, 55: 7166, 59: 406,
}  # fmt: skip
"""Landmarks that lie halfway between their vertex and this one."""


@dataclass(frozen=True)
class FaceMesh:
    """Topology of the face model.

    Attributes:
        operator: (V, N) sparse, makes the face's vertices from MakeHuman's.
        faces: (F, 3) int64, counter-clockwise seen from outside.
        labels: (V,) int64 SKIN, LEFT_EYE, RIGHT_EYE or one of `anny_mouth`; on a common margin the smallest of these.
        landmarks: (68, 2) int64 vertices between which each landmark lies halfway, often twice the same.
        mirror: (V,) int64 the vertex that is the mirror image of each; faces map to faces.
    """

    operator: sparse.csr_matrix
    faces: np.ndarray
    labels: np.ndarray
    landmarks: np.ndarray
    mirror: np.ndarray


def build_face_mesh(base: BaseMesh, mean: np.ndarray, subdivisions: int) -> FaceMesh:
    """Build the disc.

    Args:
        base: MakeHuman's body.
        mean: (N, 3) mm, the population's mean of the same vertices, exactly symmetric: decides where to clip.
        subdivisions: Catmull-Clark steps, >= 0.
    """
    skin = _cut(base, mean)
    mesh = _fill(skin, base)
    for _ in range(subdivisions):
        mesh = subdivide(mesh)
    labels = _vertex_labels(mesh)
    mesh = _seat_eyeballs(mesh, labels, base, mean)
    vertices = mesh.operator @ mean
    partner = mirror_partners(vertices)
    vertices = mirror_mean(vertices, partner)
    faces, cut = clip(triangulate(mesh.quads, vertices, partner), clip_level(vertices - eye_midpoint(base, mean)))
    # A vertex that the clip left alone has a single weight of one.
    origin = np.where(np.diff(cut.indptr) == 1, cut.indices[cut.indptr[:-1]], -1)
    # Refinement keeps the old vertices in front, and those are sorted by their id in MakeHuman's body.
    partners = [LANDMARK_PARTNERS.get(i, vertex) for i, vertex in enumerate(LANDMARKS)]
    landmarks = np.searchsorted(np.unique(skin), np.stack([LANDMARKS, partners], 1))
    operator = (cut @ mesh.operator).tocsr()
    mirror = mirror_partners(operator @ mean)
    return FaceMesh(
        operator=((operator + operator[mirror][:, base.mirror]) / 2).tocsr(),
        faces=faces,
        labels=np.where(origin >= 0, labels[origin], SKIN),
        landmarks=_find(landmarks, origin),
        mirror=mirror,
    )


def _find(wanted: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Positions in `values` of the wanted ones, which occur once each."""
    order = np.argsort(values)
    return order[np.searchsorted(values, wanted, sorter=order)]


def eye_midpoint(base: BaseMesh, vertices: np.ndarray) -> np.ndarray:
    """Point between the eyeballs' centres (3,) in mm, of all MakeHuman vertices (N, 3)."""
    return np.mean([vertices[base.groups[f"helper-{side}-eye"]].mean(0) for side in "lr"], axis=0)


def clip_level(vertices: np.ndarray) -> np.ndarray:
    """Depth (V,) in mm in front of the clip surface, of vertices (V, 3) relative to the point between the eyes."""
    return vertices[:, 2] - CLIP_DEPTH - CLIP_CURVATURE * (vertices[:, 1] - CLIP_HEIGHT) ** 2


def edge_loop(quads: np.ndarray, start: int, following: int) -> np.ndarray:
    """Closed loop of edges (L,) that goes straight on at every vertex, from one of its edges.

    Raises:
        ValueError: the loop meets a vertex that does not have four edges.
    """
    edges = edges_of(quads)[0]
    loop = [start, following]
    while loop[-1] != start:
        previous, here = loop[-2:]
        around = quads[(quads == here).any(1)]
        beside = np.unique(around[(around == previous).any(1)])
        ahead = np.setdiff1d(edges[(edges == here).any(1)], beside)
        if len(ahead) != 1:
            raise ValueError(f"the edge loop from {start} ends at vertex {here}: {len(ahead)} ways on, expected 1")
        loop.append(int(ahead[0]))
    return np.array(loop[:-1])


def _cut(base: BaseMesh, mean: np.ndarray) -> np.ndarray:
    """Quads (Q, 4) of the face's skin, with holes at eyes and mouth and a generous margin around."""
    near = clip_level(mean - eye_midpoint(base, mean)) > -CLIP_MARGIN
    head = base.quads[near[base.quads].any(1)]
    loops = [loop for loop, _, _ in _holes(base)]
    part = components(head, np.concatenate([np.stack([loop, np.roll(loop, -1)], 1) for loop in loops]))
    return head[part == part[(head == NOSE_TIP).any(1)][0]]


def _holes(base: BaseMesh) -> list[tuple[np.ndarray, int, int]]:
    """Each hole as (loop that starts at a corner of its grid, columns, label)."""
    lid = edge_loop(base.quads, *RIGHT_LID_EDGE)
    rows = len(lid) // 2 - EYE_COLUMNS
    lid = np.roll(lid, rows // 2 - LID_CORNER)
    mouth = np.roll(edge_loop(base.quads, *MOUTH_EDGE), anny_mouth.COLUMNS // 2)
    return [
        (lid, rows, RIGHT_EYE),
        (base.mirror[lid], rows, LEFT_EYE),
        (mouth, anny_mouth.COLUMNS, MOUTH),
    ]


def _fill(skin: np.ndarray, base: BaseMesh) -> QuadMesh:
    """Cover the holes with grids; their rims are creases."""
    source = np.unique(skin)
    n = len(source)
    operators = [sparse.identity(len(base.vertices), format="csr")[source]]
    quads, labels, creases = [np.searchsorted(source, skin)], [np.full(len(skin), SKIN)], []
    for loop, columns, label in _holes(base):
        ring = np.searchsorted(source, loop)
        if label == MOUTH:
            patch, inner, marks = anny_mouth.mouth_patch(base, loop)
        else:
            patch, weights = grid_fill(np.arange(len(loop)), columns)
            inner, marks = weights @ operators[0][ring], np.full(len(patch), label)
        patch = np.where(patch < 0, n - 1 - patch, ring[np.maximum(patch, 0)])
        patch = patch if _follows(patch, quads[0]) else patch[:, ::-1]
        n += inner.shape[0]
        operators.append(inner)
        quads.append(patch)
        labels.append(marks)
        creases.append(np.stack([ring, np.roll(ring, -1)], 1))
    return QuadMesh(
        sparse.vstack(operators).tocsr(), np.concatenate(quads), np.concatenate(labels), np.concatenate(creases)
    )


def _follows(patch: np.ndarray, skin: np.ndarray) -> bool:
    """Whether a patch is oriented like the skin: shared edges must run in opposite directions."""
    sides = [set(map(tuple, np.stack([q, np.roll(q, -1, 1)], -1).reshape(-1, 2).tolist())) for q in (patch, skin)]
    return not sides[0] & sides[1]


def _vertex_labels(mesh: QuadMesh) -> np.ndarray:
    """Label (V,) of each vertex: that of the quads around it, or SKIN where they differ."""
    low = np.full(mesh.operator.shape[0], MOUTH + 1)
    np.minimum.at(low, mesh.quads, mesh.labels[:, None])
    return low


def _seat_eyeballs(mesh: QuadMesh, labels: np.ndarray, base: BaseMesh, mean: np.ndarray) -> QuadMesh:
    """Put the eyes' vertices onto MakeHuman's eyeballs and make them follow these instead of the lids.

    MakeHuman's neutral eyeball is a sphere. A point on it is written as the smallest affine combination of the
    eyeball's vertices, which reproduces every affine motion of the eyeball: people's eyes, and gaze.
    """
    operator = mesh.operator.tolil()
    for label, side in ((LEFT_EYE, "l"), (RIGHT_EYE, "r")):
        select = np.flatnonzero(labels == label)
        ball = base.groups[f"helper-{side}-eye"]
        points = _onto_sphere(base.vertices[ball], mean[ball], mesh.operator[select] @ mean)
        weights = _homogeneous(points) @ np.linalg.pinv(_homogeneous(base.vertices[ball]))
        row, column = np.meshgrid(select, ball, indexing="ij")
        operator[select] = sparse.csr_matrix((weights.ravel(), (row.ravel(), column.ravel())), operator.shape)[select]
    return QuadMesh(operator.tocsr(), mesh.quads, mesh.labels, mesh.creases)


def _onto_sphere(sphere: np.ndarray, ball: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (P, 3) near a deformed eyeball -> in about that direction on the undeformed sphere, under the lids too."""
    undo = np.linalg.lstsq(_homogeneous(ball), sphere, rcond=None)[0]
    centre = sphere.mean(0)
    x, y, z = (_homogeneous(points) @ undo - centre).T
    angles = np.stack([np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))])
    middle = (angles.max(1, keepdims=True) + angles.min(1, keepdims=True)) / 2
    longitude, latitude = middle + (angles - middle) * np.array(EYE_REACH)[:, None]
    direction = [np.sin(longitude) * np.cos(latitude), np.sin(latitude), np.cos(longitude) * np.cos(latitude)]
    return centre + np.linalg.norm(sphere - centre, axis=1).mean() * np.stack(direction, 1)


def _homogeneous(points: np.ndarray) -> np.ndarray:
    return np.concatenate([points, np.ones((len(points), 1))], 1)
