"""Make synthetic people: phenotype -> shape code and maps -> portraits -> identity embeddings. No state, no disk.

Legend of shape suffixes: n people · N = n * views portraits, ordered person by person · S side of a portrait.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as nnf
from torch import Tensor

from fitdiff.alignment.crop import crop, crop_transform
from fitdiff.colour import srgb_to_linear
from fitdiff.data.atlas import UvAtlas
from fitdiff.data.people.augment import photograph
from fitdiff.data.people.backgrounds import sample_backgrounds
from fitdiff.data.people.bust import Bust, Wearer
from fitdiff.data.people.occluders import Cover, Sitter, Worn, add_occluders
from fitdiff.data.people.options import STANDARD_AUGMENTATION, STANDARD_PORTRAITS, Augmentation, Portraits
from fitdiff.data.people.scenes import sample_scenes
from fitdiff.data.people.views import MOST_VIEWS, Views
from fitdiff.data.shards import dequantise, quantise
from fitdiff.data.skin import SkinSynthesiser
from fitdiff.data.skin_look import sample_look
from fitdiff.renderer.torch_renderer import TorchRenderer
from fitdiff.shape_model.anny_face import AnnyFace
from fitdiff.shape_model.anny_population import sample_population
from fitdiff.types import FaceMaps, IdentityNetwork, Renderer, Rendering, Scene

FEWEST_PORTRAITS = 8
"""Smaller batches are filled up: products of few rows round differently than those of many."""


class PeopleMaker:
    """Makes any people by index; person i is the same whatever the batch, order or process.

    Everything but the drawing of phenotypes runs batched on the maker's device. It works on copies of the modules, so
    that the caller's stay where they are.

    Args:
        shape_model: the embedded face model (phenotypes are its own).
        identity, renderer: see `types`.
        resolution: side R of the maps. portrait_size: side S of the portraits in pixels.
        views: portraits a person. seed: of the whole population.
        portraits, augmentation: see `options`. device: "cpu", "cuda", ...
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
        portraits: Portraits = STANDARD_PORTRAITS,
        augmentation: Augmentation = STANDARD_AUGMENTATION,
        device: torch.device | str = "cpu",
    ) -> None:
        parts = (shape_model, identity, renderer)
        self.shape_model, self.identity, self.renderer = (copy.deepcopy(part).to(device) for part in parts)
        if not 1 <= views <= MOST_VIEWS:
            raise ValueError(f"got views={views}; expected 1 to {MOST_VIEWS}")
        if portrait_size < 32 or portrait_size % 2:
            raise ValueError(f"got portrait_size={portrait_size}; expected an even number of pixels, 32 or more")
        self.resolution, self.portrait_size, self.views, self.seed = resolution, portrait_size, views, seed
        self.portraits, self.augmentation, self.device = portraits, augmentation, torch.device(device)
        atlas = UvAtlas.build(shape_model.mean.cpu(), shape_model.topology, resolution)
        self.skin = SkinSynthesiser(atlas).to(device)
        self.bust = Bust(shape_model.topology, shape_model.mean.cpu()).to(device)
        self.bust_renderer = TorchRenderer(self.bust.topology, shininess=renderer.shininess).to(device)
        self.cheek = _cheek(atlas).to(device)
        self.cover = Cover(atlas).to(device)

    @torch.inference_mode()
    def make(self, indices: Sequence[int], lap: Callable[[str], None] = lambda part: None) -> dict[str, Tensor]:
        """Samples of n people.

        Args:
            indices: non-negative. lap: called after each part with its name, for those who measure.

        Returns:
            On the maker's device: identity (n, K); maps (n, 9, R, R) uint8 map tensor; and per view (n, views, ...):
            image (3, S, S) uint8 sRGB as photographed, landmarks (68, 2) NDC, occluded () uint8 1 where something
            covers part of the face, embedding (D,) of the image, and the scene flattened as by `Scene.to_tensors`.
        """
        n, fewest = len(indices), -(-FEWEST_PORTRAITS // self.views)
        samples = self._make([*indices, *[indices[0]] * (fewest - n)], lap)
        return {key: value[:n] for key, value in samples.items()}

    def _make(self, indices: Sequence[int], lap: Callable[[str], None]) -> dict[str, Tensor]:
        people = sample_population(self.seed, torch.as_tensor(indices)).to(self.device)
        identity = self.shape_model.identity_of(people)
        lap("shape")
        stored_maps = quantise(self.skin(people, self.seed))
        lap("skin")
        views = Views.of(self.seed, indices, self.views, self.device)
        scenes = sample_scenes(views, self.portraits, self.shape_model.expression_names)
        vertices = self.shape_model(identity.repeat_interleave(self.views, 0), scenes.expression)
        # Render from the stored, quantised maps: a portrait shows exactly what the sample holds.
        maps = FaceMaps.from_tensor(dequantise(stored_maps)).map(lambda x: x.repeat_interleave(self.views, 0))
        lap("scene")
        worn = Worn.draw(views, self.augmentation)
        covered = self.cover(maps, views, worn.cover)
        rendering = self.renderer(vertices, covered, scenes.camera, scenes.lighting, self.portrait_size)
        lap("render")
        hairline = sample_look(people, self.seed).hair.hairline
        wearer = Wearer.of(people, hairline).map(lambda x: x.to(self.device).repeat_interleave(self.views, 0))
        behind = self._behind(views, wearer, scenes, vertices, maps)
        linear = torch.lerp(behind, srgb_to_linear(rendering.image), feathered(rendering.mask))
        lap("bust and background")
        landmarks = self.shape_model.topology.landmarks(vertices)
        skin = maps.diffuse_albedo[..., self.cheek].mean(-1)
        sitter = Sitter(scenes.camera, scenes.lighting, landmarks, skin, wearer.hair)
        linear = add_occluders(linear, views, worn, sitter)
        image = photograph(linear, views, self.augmentation)
        lap("occluders and camera")
        embedding = self.embed(image, rendering)
        lap("embedding")
        per_view = {
            "image": image,
            "landmarks": rendering.landmarks,
            "occluded": worn.any().to(torch.uint8),
            "embedding": embedding,
            **scenes.to_tensors(),
        }
        split = {key: value.unflatten(0, (len(identity), self.views)) for key, value in per_view.items()}
        return {"identity": identity, "maps": stored_maps, **split}

    def embed(self, image: Tensor, rendering: Rendering) -> Tensor:
        """Embeddings (N, D) of stored portraits (N, 3, S, S) uint8, cropped by their true landmarks."""
        transform = crop_transform(self.identity, rendering.landmarks)
        return self.identity(crop(image.float() / 255, transform, self.identity.size)).embedding

    def _behind(self, views: Views, wearer: Wearer, scenes: Scene, vertices: Tensor, maps: FaceMaps) -> Tensor:
        """(N, 3, S, S) linear light of what is behind the face, drawn at half the size, as if out of focus."""
        size = self.portrait_size // 2
        picture = sample_backgrounds(views, size)
        rows = (views.of_person.draws("bust").uniform() < self.augmentation.bust).nonzero()[:, 0]
        if len(rows):
            vertices, maps = self.bust(views[rows], vertices[rows], maps[rows], wearer[rows])
            bust = self.bust_renderer(vertices, maps, scenes.camera[rows], scenes.lighting[rows], size)
            opacity, colour = (
                nnf.avg_pool2d(x, 3, 1, 1, count_include_pad=False) for x in (bust.mask, srgb_to_linear(bust.image))
            )
            colour = colour / opacity.clamp_min(1 / 9)
            picture[rows] = torch.lerp(picture[rows], colour, opacity)
        return nnf.interpolate(picture, scale_factor=2, mode="bilinear", align_corners=False)


def feathered(mask_N1SS: Tensor) -> Tensor:
    """Opacity of the face: 0 outside of the mask, rising to 1 over about S / 100 pixels inside, for a clean outline."""
    radius = max(1, round(mask_N1SS.shape[-1] / 100))
    mean = nnf.avg_pool2d(mask_N1SS, 2 * radius + 1, 1, radius, count_include_pad=False)
    return (2 * mean - 1).clamp_min(0) * mask_N1SS


def _cheek(atlas: UvAtlas) -> Tensor:
    """(R, R) bool, texels below the eyes and beside the nose: where skin shows its colour."""
    x, y, _ = atlas.position
    return (x.abs() > 25) & (x.abs() < 50) & (y > -25) & (y < 5)
