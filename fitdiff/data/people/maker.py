"""Make synthetic people: phenotype -> shape code and maps -> portraits -> identity embeddings. No state, no disk."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fitdiff.alignment.crop import crop, crop_transform
from fitdiff.data.atlas import UvAtlas
from fitdiff.data.people.scenes import sample_backgrounds, sample_scenes
from fitdiff.data.shards import dequantise, quantise
from fitdiff.data.skin import SkinSynthesiser
from fitdiff.shape_model.anny_face import AnnyFace
from fitdiff.shape_model.anny_population import sample_population
from fitdiff.types import FaceMaps, IdentityNetwork, Renderer


class PeopleMaker:
    """Makes any people by index; person i is the same whatever the batch, order or process.

    Args:
        shape_model: the embedded face model (phenotypes are its own).
        identity, renderer: see `types`.
        resolution: side R of the maps. portrait_size: side S of the portraits in pixels.
        views: portraits a person. seed: of the whole population.
    """

    def __init__(
        self,
        shape_model: AnnyFace,
        identity: IdentityNetwork,
        renderer: Renderer,
        resolution: int,
        portrait_size: int,
        views: int,
        seed: int,
    ) -> None:
        self.shape_model, self.identity, self.renderer = shape_model, identity, renderer
        self.portrait_size, self.views, self.seed = portrait_size, views, seed
        self.skin = SkinSynthesiser(UvAtlas.build(shape_model.mean, shape_model.topology, resolution))

    @torch.inference_mode()
    def make(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Samples of n people.

        Returns:
            identity (n, K); maps (n, 9, R, R) uint8 map tensor; and per view (n, views, ...): image (3, S, S) uint8
            sRGB, landmarks (68, 2) NDC, embedding (D,), and the scene flattened as by `Scene.to_tensors`.
        """
        people = sample_population(self.seed, torch.as_tensor(list(indices)))
        identity = self.shape_model.identity_of(people)
        stored_maps = quantise(self.skin(people, self.seed))
        scenes = sample_scenes(self.seed, indices, self.views, self.shape_model.n_expression)
        # Render from the stored, quantised maps: a portrait shows exactly what the sample holds.
        maps = FaceMaps.from_tensor(dequantise(stored_maps)).map(lambda x: x.repeat_interleave(self.views, 0))
        vertices = self.shape_model(identity.repeat_interleave(self.views, 0), scenes.expression)
        rendering = self.renderer(vertices, maps, scenes.camera, scenes.lighting, self.portrait_size)
        background = sample_backgrounds(self.seed, indices, self.views, self.portrait_size)
        image = torch.where(rendering.mask > 0, rendering.image, background)
        transform = crop_transform(self.identity, rendering.landmarks)
        embedding = self.identity(crop(image, transform, self.identity.size)).embedding
        per_view = {
            "image": (image * 255).round().to(torch.uint8),
            "landmarks": rendering.landmarks,
            "embedding": embedding,
            **scenes.to_tensors(),
        }
        n = len(identity)
        return {
            "identity": identity,
            "maps": stored_maps,
            **{key: value.unflatten(0, (n, self.views)) for key, value in per_view.items()},
        }
