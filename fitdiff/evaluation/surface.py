"""Closest points on a triangle mesh: exact, in float64, by libigl's tree of axis-aligned boxes."""

from __future__ import annotations

from dataclasses import dataclass

import igl
import numpy as np


@dataclass(frozen=True)
class Closest:
    """What is nearest to N points.

    Attributes:
        points: (N, 3) float64, on the surface, in the mesh's unit.
        distance: (N,) float64 >= 0, in the mesh's unit. triangle: (N,) int64, the row of the faces that it lies on.
    """

    points: np.ndarray
    distance: np.ndarray
    triangle: np.ndarray


class Surface:
    """A triangle mesh that answers for closest points. It need be neither closed nor connected.

    A triangle without area counts as the segment or the point that it is. Vertices of no triangle count for nothing.
    """

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        """Build the tree.

        Args:
            vertices: (V, 3) finite numbers, in any unit. faces: (F, 3) vertex numbers, F > 0.

        Raises:
            ValueError: other shapes, a face of vertices that do not exist, or a vertex of a face that is not finite.
        """
        self.vertices = np.ascontiguousarray(vertices, dtype=np.float64)
        self.faces = np.ascontiguousarray(faces, dtype=np.int64)
        if self.vertices.ndim != 2 or self.vertices.shape[1] != 3:
            raise ValueError(f"vertices are {self.vertices.shape}, expected (V, 3)")
        if self.faces.ndim != 2 or self.faces.shape[1] != 3 or not len(self.faces):
            raise ValueError(f"faces are {self.faces.shape}, expected (F, 3) with F > 0")
        if self.faces.min() < 0 or self.faces.max() >= len(self.vertices):
            raise ValueError(
                f"faces name vertices {self.faces.min()} to {self.faces.max()}, there are 0 to {len(self.vertices) - 1}"
            )
        if not np.isfinite(self.vertices[self.faces]).all():
            raise ValueError("a vertex of a face is not finite: the mesh is damaged")
        self._tree = igl.AABB()
        self._tree.init(self.vertices, self.faces)

    def closest(self, points: np.ndarray) -> Closest:
        """The nearest point of the surface to each of (N, 3) finite points, in the mesh's unit.

        Raises:
            ValueError: other shapes, or a point that is not finite.
        """
        points = np.ascontiguousarray(points, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
            raise ValueError(f"points are {points.shape}, expected (N, 3) finite numbers")
        if not len(points):
            return Closest(np.empty((0, 3)), np.empty(0), np.empty(0, np.int64))
        squared, triangle, closest = self._tree.squared_distance(self.vertices, self.faces, points)
        return Closest(closest, np.sqrt(squared), triangle)
