"""Files of people -> the tensors that training reads: the counterpart of `data.people.maker`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fitdiff.alignment.camera import estimate_focal, estimate_pose_and_expression
from fitdiff.alignment.crop import crop, crop_transform
from fitdiff.alignment.face import find_face, square_crop
from fitdiff.alignment.photo import load_photo
from fitdiff.data.folder.layout import PersonFiles
from fitdiff.data.folder.maps import diffuse_albedo, specular_albedo, stored_normals, to_tangent_space
from fitdiff.data.folder.rules import Rules
from fitdiff.data.folder.scenes import CAMERA, pad_lamps, read_scene
from fitdiff.data.folder.shapes import read_shape
from fitdiff.data.shards import dequantise, quantise
from fitdiff.geometry import project, to_camera_space
from fitdiff.images import read_image
from fitdiff.observe import estimate_lighting
from fitdiff.registry import build, config_of
from fitdiff.types import SCENE_KEYS, Camera, FaceMaps, Scene


@dataclass
class FolderMaker:
    """Converts people by index.

    Attributes:
        people: whom an index counts. rules: how their numbers are meant.
        shape_model, identity, renderer: see `types`.
        resolution: side R of the maps. portrait_size: side S of the portraits. views: portraits a person.
        detector, landmarks: names of the components that find faces where a photo has no camera.
    """

    people: Sequence[PersonFiles]
    rules: Rules
    shape_model: Any
    identity: Any
    renderer: Any
    resolution: int
    portrait_size: int
    views: int
    detector: str
    landmarks: str

    def __post_init__(self) -> None:
        self._finders: tuple[Any, Any] | None = None

    @torch.inference_mode()
    def make(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Samples of n people, with the keys and shapes of `PeopleMaker.make`.

        Scenes have as many lamps as the one with the most; those that a photo lacks are dark.

        Raises:
            ValueError: a file cannot be used; the message names it (`PhotoError` where it is a photo).
        """
        rows = pad_lamps([self._person(self.people[i]) for i in indices])
        return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}

    def _person(self, person: PersonFiles) -> dict[str, Tensor]:
        code, rotation = read_shape(person.shapes[0], self.shape_model, self.rules.align)
        stored = quantise(self._maps(person, code, rotation))
        # Light is estimated with the stored, quantised maps: a scene fits exactly what the sample holds.
        maps = FaceMaps.from_tensor(dequantise(stored))
        photos = [person.photos[i % len(person.photos)] for i in range(self.views)]
        views = {photo: self._view(photo, person.scene_of(photo), code[None], maps) for photo in dict.fromkeys(photos)}
        views = dict(zip(views, pad_lamps(list(views.values())), strict=True))
        per_view = {key: torch.stack([views[photo][key] for photo in photos]) for key in views[photos[0]]}
        return {"identity": code, "maps": stored[0], **per_view}

    def _maps(self, person: PersonFiles, code: Tensor, rotation: Tensor) -> FaceMaps:
        size = self.resolution
        files = {name: read_image(candidates[0]) for name, candidates in person.maps.items()}
        if len(files["normals"].values) != 3:
            raise ValueError(f"{person.maps['normals'][0]}: has one channel, normals need three; is it a height map?")
        normals = stored_normals(files["normals"], self.rules, size)
        if self.rules.normal_space == "object":
            turned = torch.einsum("ij,jrc->irc", rotation, normals)
            normals = to_tangent_space(turned, self.shape_model(code[None])[0], self.shape_model.topology)
        diffuse = diffuse_albedo(files["diffuse"], self.rules, size)
        specular = specular_albedo(files["specular"], self.rules, size)
        return FaceMaps(diffuse[None], specular[None], normals[None])

    def _view(self, photo: Path, scene_file: Path | None, code_1K: Tensor, maps: FaceMaps) -> dict[str, Tensor]:
        """One portrait with its scene, without a batch dimension."""
        given = read_scene(scene_file, self.shape_model.expression_names) if scene_file else {}
        read = self._given_camera if CAMERA[0] in given else self._estimated_camera
        image, scene = read(photo, given, code_1K)
        camera = Camera(*(scene[key][None] for key in CAMERA))
        if "ambient" not in scene:
            scene |= self._light(image, code_1K, scene["expression"][None], maps, camera)
        if "landmarks" not in scene:
            vertices = self.shape_model(code_1K, scene["expression"][None])
            points = self.shape_model.topology.landmarks(vertices)
            scene["landmarks"] = project(to_camera_space(points, camera), camera)[0]
        transform = crop_transform(self.identity, scene["landmarks"][None])
        embedding = self.identity(crop(image, transform, self.identity.size)).embedding[0]
        stored = {key: scene[key] for key in ("landmarks", *SCENE_KEYS)}
        return {"image": (image[0] * 255).round().to(torch.uint8), "embedding": embedding, **stored}

    def _given_camera(self, photo: Path, given: dict[str, Tensor], _: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The whole, square photo; without an expression it is neutral."""
        picture, size = Image.fromarray(load_photo(photo).image), (self.portrait_size,) * 2
        picture = picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)
        image = torch.from_numpy(np.array(picture)).movedim(-1, 0)[None] / 255
        return image, {"expression": torch.zeros(self.shape_model.n_expression), **given}

    def _estimated_camera(
        self, photo: Path, given: dict[str, Tensor], code_1K: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The square round the face; camera and expression from the landmarks on this person's shape."""
        if self._finders is None:
            self._finders = (
                build(config_of("detector", self.detector), "detector"),
                build(config_of("landmarks", self.landmarks), "landmarks"),
            )
        found = square_crop(find_face(load_photo(photo), *self._finders), self.portrait_size)
        neutral = self.shape_model.topology.landmarks(self.shape_model(code_1K))
        focal = estimate_focal(neutral, found.landmarks, found.focal)
        camera, expression = estimate_pose_and_expression(
            self.shape_model, found.landmarks, focal, found.principal_point, code_1K
        )
        pose = {key: getattr(camera, key)[0] for key in CAMERA}
        # Light is in camera axes, which cropping does not turn; landmarks of the uncropped photo would be wrong here.
        light = {key: value for key, value in given.items() if key not in ("expression", "landmarks")}
        return found.image, {**light, **pose, "expression": expression[0], "landmarks": found.landmarks[0]}

    def _light(
        self, image: Tensor, code_1K: Tensor, expression_1E: Tensor, maps: FaceMaps, camera: Camera
    ) -> dict[str, Tensor]:
        """The lamps of `observe.LIGHTS` that best explain the photo, now that its albedo is known."""
        surface = self.renderer.surface(self.shape_model(code_1K, expression_1E), maps, camera, self.portrait_size)
        lighting = estimate_lighting(image, surface.diffuse_albedo, surface.normals, surface.mask)
        light = {key: value[0] for key, value in Scene(camera, lighting, expression_1E).to_tensors().items()}
        lamps = len(light["directions"])
        absent = {"proximity": torch.zeros(lamps), "harmonics": torch.zeros(8, 3)}
        return {key: light.get(key, absent.get(key)) for key in SCENE_KEYS if key not in (*CAMERA, "expression")}
