"""Draw faces from a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fitdiff.alignment.photo import Photo
from fitdiff.avatar import Avatar, expression_offsets, save_glb, save_maps, save_obj
from fitdiff.avatar.pictures import contact_sheet
from fitdiff.avatar.relight import frontal_camera, studio_lighting
from fitdiff.diffusion.sampler import conditioned, sample
from fitdiff.observe import observe
from fitdiff.registry import build
from fitdiff.types import composite

CROP_SIZE = 224
"""Side of the photo's crop from which the identity is read, in pixels."""


@torch.no_grad()
def render_neutral(model: Any, z_BN: Tensor, size: int, background: float = 0.85) -> Tensor:
    """(B, 3, size, size) frontal studio renders of z with a neutral expression, on light grey; sRGB."""
    vertices = model.vertices(z_BN)
    lighting = studio_lighting(len(vertices), vertices.device)
    rendering = model.renderer(vertices, model.maps(z_BN), frontal_camera(vertices), lighting, size)
    return composite(rendering, background)


@dataclass(frozen=True)
class Samples:
    """Faces drawn from a model.

    Attributes:
        model: that drew them. z: (n, N). photo: crop of the photo whose identity they have, (3, S, S), or None.
    """

    model: Any
    z: Tensor
    photo: Tensor | None = None

    def sheet(self, size: int = 256) -> np.ndarray:
        """Contact sheet: each face, frontal and neutral, above its three maps."""
        faces, maps = render_neutral(self.model, self.z, size), self.model.maps(self.z).to_images()
        rows = {"face": list(faces), **{name: list(images) for name, images in maps.items()}}
        if self.photo is not None:
            rows = {"photo": [self.photo], **rows}
        return contact_sheet(list(rows.values()), rows=list(rows), cell=size)

    def save_avatars(self, folder: Path) -> None:
        """Write every face as GLB, OBJ and maps into `folder/00`, `folder/01`, ..."""
        shape_model = self.model.shape_model
        for i, z in enumerate(self.z[:, None]):
            identity, _ = self.model.latent.unpack(z)
            avatar = Avatar(
                shape_model(identity)[0].cpu(),
                shape_model.topology,
                self.model.maps(z).to("cpu"),
                {name: offsets.cpu() for name, offsets in expression_offsets(shape_model, identity).items()},
            )
            target = folder / f"{i:02d}"
            save_glb(avatar, target / "avatar.glb")
            save_obj(avatar, target / "avatar.obj")
            save_maps(avatar.maps, target)


@torch.no_grad()
def sample_faces(
    model: Any,
    n: int,
    photo: Photo | None = None,
    steps: int = 50,
    cfg_scale: float = 1.0,
    seed: int = 0,
    **choices: Mapping[str, Any] | None,
) -> Samples:
    """Draw `n` faces.

    Args:
        photo: condition on the identity in it; None draws without condition.
        steps: of the sampler. cfg_scale: classifier-free guidance, 1 is off. seed: of the noise.
        choices: config nodes that replace the checkpoint's `sampler`, `detector`, `landmarks`.

    Raises:
        PhotoError: the photo has no usable face.
    """
    nodes = {key: choices.get(key) or model.config[key] for key in ("sampler", "detector", "landmarks")}
    embedding, picture = None, None
    if photo is not None:
        parts = (build(nodes[key], key) for key in ("detector", "landmarks"))
        observation, _, _ = observe([photo], model, *parts, CROP_SIZE)
        embedding, picture = observation.features.embedding.expand(n, -1), observation.image[0]
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, model.latent.length, generator=generator).to(model.device)
    predict_eps = conditioned(model.denoiser, embedding, cfg_scale)
    z = sample(predict_eps, build(nodes["sampler"], "sampler"), model.schedule, noise, steps, generator)
    return Samples(model, z, picture)
