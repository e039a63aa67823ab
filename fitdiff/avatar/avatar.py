"""The result of a fit: one person's face as geometry and reflectance, free of camera and light."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fitdiff.types import FaceMaps, ShapeModel, Topology


@dataclass(frozen=True, eq=False)
class Avatar:
    """One relightable face.

    Attributes:
        vertices: (V, 3) mm, head space; usually with the neutral expression.
        topology: of the mesh; V must agree.
        maps: reflectance, a batch of one.
        expressions: name -> (V, 3) mm, what an expression of weight 1 adds to `vertices`: the avatar's blendshapes.
        shininess: Blinn-Phong exponent of the skin: that of the renderer that the maps were fitted with.
        provenance: facts that travel with the exported files, such as ``{"licence": "CC0-1.0", "photo": "me.jpg"}``.

    Raises:
        ValueError: a shape disagrees with the topology, a triangle or landmark names a vertex that is not there, or the
            maps are not a batch of one.
    """

    vertices: Tensor
    topology: Topology
    maps: FaceMaps
    expressions: dict[str, Tensor] = field(default_factory=dict)
    shininess: float = 30.0
    provenance: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expected = (self.topology.uv.shape[0], 3)
        for name, value in {"vertices": self.vertices, **self.expressions}.items():
            if value.shape != expected:
                raise ValueError(f"avatar: {name} is {tuple(value.shape)}, the topology needs {expected}")
        # Compiled renderers read where these ids point, without a look.
        for name, ids in (("faces", self.topology.faces), ("landmarks", self.topology.landmark_vertices)):
            if ids.numel() and not 0 <= ids.min() <= ids.max() < expected[0]:
                raise ValueError(
                    f"avatar: {name} name vertices {ids.min()} to {ids.max()}, expected 0 to {expected[0] - 1}"
                )
        shape = self.maps.diffuse_albedo.shape
        if len(shape) != 4 or shape[0] != 1:
            raise ValueError(
                f"avatar: maps are {tuple(shape)}, expected (1, 3, R, R): index one person, as in maps[:1]"
            )


def expression_offsets(shape_model: ShapeModel, identity_1K: Tensor) -> dict[str, Tensor]:
    """Blendshapes of a person for `Avatar.expressions`: each expression at weight 1, minus the neutral face.

    Args:
        shape_model: gives the expressions and their names.
        identity_1K: (1, K) whitened identity code; its dtype and device are kept.

    Returns:
        name -> (V, 3) mm.
    """
    one_hot = torch.eye(shape_model.n_expression, dtype=identity_1K.dtype, device=identity_1K.device)
    with torch.no_grad():
        offsets = shape_model(identity_1K.expand(len(one_hot), -1), one_hot) - shape_model(identity_1K)
    return dict(zip(shape_model.expression_names, offsets, strict=True))
