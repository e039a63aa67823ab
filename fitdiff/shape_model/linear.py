"""The module behind every brought shape model: a `FaceBasis` as an `nn.Module` with whitened codes."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor, nn

from fitdiff.shape_model.face_basis import FaceBasis, ModelFileError
from fitdiff.types import Topology

MOST_ACTIONS = 100
"""Actions of a model whose `n_expression` is null: an avatar carries each as a blendshape."""

RANK = 1e-10
"""Directions of the identity basis weaker than this share of the strongest cannot be encoded."""


class LinearFaceModel(nn.Module):
    """vertices = mean + identity + expression, on any mesh. (Blanz and Vetter 1999.)

    Expression weights are in [0, 1] everywhere in this package. An action of the model keeps its name; a statistical
    component, whose weights have both signs, becomes two actions `expression_000` and `expression_000_negative` that
    reach the ends of its range (3 standard deviations) at weight 1.

    Attributes:
        topology: faces, UVs, landmarks and regions.
        expression_names: (E,) names of the actions.
        mean: (V, 3) mm. identity_basis: (K, V, 3) mm a unit of code. expression_basis: (E, V, 3) mm a unit of weight.
        version: digest of the file's identity components.
        file_vertices, n_file_vertices: how meshes of the model's own files become ours, see `FaceBasis`.
    """

    mean: Tensor
    identity_basis: Tensor
    expression_basis: Tensor
    gram_inverse: Tensor

    def __init__(self, basis: FaceBasis, n_identity: int | None = None, n_expression: int | None = None) -> None:
        """Args:
            basis: a complete one: with UVs, all landmarks and regions (`complete.complete`).
            n_identity: components of the identity code, the first ones; None is all.
            n_expression: actions, the first ones; None is all, at most 100.

        Raises:
            ModelFileError: the basis is incomplete.
            ValueError: more components or actions are asked for than there are.
        """
        super().__init__()
        if basis.uv is None or not basis.landmark_weights.any(1).all():
            raise ModelFileError("the face basis lacks UVs or landmarks: pass it through complete() first")
        actions, names = _actions(basis)
        self.n_identity = _number("n_identity", n_identity, len(basis.identity_basis), len(basis.identity_basis))
        self.n_expression = _number("n_expression", n_expression, len(names), min(len(names), MOST_ACTIONS))
        self.expression_names = names[: self.n_expression]
        self.file_vertices = None if basis.file_vertices is None else torch.from_numpy(basis.file_vertices)
        self.n_file_vertices = basis.n_file_vertices
        # Only what is read as it is: the origin, UVs and landmarks that we find round differently between machines.
        self.version = hashlib.sha256(basis.identity_basis.tobytes()).hexdigest()[:16]
        identity = torch.from_numpy(basis.identity_basis[: self.n_identity])
        flat = identity.double().flatten(1)
        for name, tensor in {
            "mean": torch.from_numpy(basis.mean),
            "identity_basis": identity,
            "expression_basis": torch.from_numpy(actions[: self.n_expression]),
            # K x K instead of a second K x 3V matrix: bases need not be orthogonal.
            "gram_inverse": torch.linalg.pinv(flat @ flat.T, hermitian=True, rtol=RANK),
        }.items():
            # Rebuilt from the user's file, whose licence is not ours to hand on with a checkpoint.
            self.register_buffer(name, tensor, persistent=False)
        self.topology = Topology(
            torch.from_numpy(basis.faces),
            torch.from_numpy(basis.uv),
            torch.from_numpy(basis.landmark_vertices),
            torch.from_numpy(basis.landmark_weights),
            {name: torch.from_numpy(mask) for name, mask in basis.regions.items()},
        )

    def forward(self, identity_BK: Tensor, expression_BE: Tensor | None = None) -> Tensor:
        """Vertices of faces. Differentiable in both arguments.

        Args:
            identity_BK: (B, K) whitened code: unit variance per component over the model's people.
            expression_BE: (B, E) weights of the actions in [0, 1] (not enforced); None is neutral.

        Returns:
            (B, V, 3) mm in head space, in the code's dtype.
        """
        vertices = self.mean.to(identity_BK) + torch.einsum(
            "bk,kvx->bvx", identity_BK, self.identity_basis.to(identity_BK)
        )
        if expression_BE is None:
            return vertices
        return vertices + torch.einsum("be,evx->bvx", expression_BE, self.expression_basis.to(expression_BE))

    def encode(self, vertices_BV3: Tensor) -> Tensor:
        """Least-squares identity code (B, K) of neutral faces (B, V, 3) in mm, aligned in position."""
        offset = vertices_BV3 - self.mean.to(vertices_BV3)
        projected = torch.einsum("bvx,kvx->bk", offset, self.identity_basis.to(vertices_BV3))
        return (projected.double() @ self.gram_inverse.to(projected.device)).to(vertices_BV3.dtype)


def _actions(basis: FaceBasis) -> tuple[np.ndarray, tuple[str, ...]]:
    """One action per end of each expression's range that is not 0; the two of a component stand side by side."""
    expression, side = np.nonzero(basis.expression_range[:, ::-1])
    reach = basis.expression_range[expression, 1 - side]
    names = tuple(
        basis.expression_names[e] + ("" if r > 0 else "_negative") for e, r in zip(expression, reach, strict=True)
    )
    return basis.expression_basis[expression] * reach[:, None, None], names


def _number(name: str, wanted: int | None, available: int, default: int) -> int:
    number = default if wanted is None else wanted
    least = min(1, available) if name == "n_identity" else 0
    if not least <= number <= available:
        raise ValueError(
            f"shape_model.{name} is {number}, but this model has {least} to {available}: choose one of these"
        )
    return number
