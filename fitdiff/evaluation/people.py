"""Synthetic people whose truth is known: their portraits as problems of fitting, and scores against the truth.

The judge of identity is the network that guides the fit unless another is given: a fit can please it without looking
like the person, and only a second network would tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fitdiff.alignment.crop import crop, crop_transform
from fitdiff.alignment.face import DetectedFace, find_face
from fitdiff.alignment.photo import Photo, PhotoError
from fitdiff.avatar.relight import frontal_camera, studio_lighting
from fitdiff.colour import srgb_to_linear
from fitdiff.data.shards import dequantise
from fitdiff.evaluation.metrics import identity_cosine, landmark_error, light_error, map_psnr, vertex_distance
from fitdiff.evaluation.skin_tone import typology_error
from fitdiff.evaluation.texels import FACE_REGIONS, TONE_REGIONS, Texels
from fitdiff.fitting import FitProblem, observed_features
from fitdiff.geometry import project, to_camera_space
from fitdiff.observe import first_scene, observe_faces
from fitdiff.types import (
    SCENE_KEYS,
    Camera,
    FaceMaps,
    GuidanceTerm,
    IdentityNetwork,
    Lighting,
    Observation,
    Scene,
    TensorRecord,
    composite,
)

PHOTO, NOVEL = 0, 1
"""Views of a person: the one that is fitted, and one that no method sees."""

KEYS = ("identity", "maps", "image", "landmarks", *SCENE_KEYS)
"""What of `PeopleMaker.make` is needed here."""

STUDIO_SIZE = 224
WHITE = 0.25
"""Albedo of the surface that shows received light: up to four times the usual light stays below the display's white."""


@dataclass(frozen=True)
class Truth(TensorRecord):
    """All about B people in front of a camera.

    Attributes:
        identity: (B, K). maps: as stored. scene, landmarks: of the photo that is fitted, in its observation's frame.
        novel_image: (B, 3, S, S) sRGB of the other portrait. novel_scene, novel_landmarks: of it.
    """

    identity: Tensor
    maps: FaceMaps
    scene: Scene
    landmarks: Tensor
    novel_image: Tensor
    novel_scene: Scene
    novel_landmarks: Tensor

    @classmethod
    def of(cls, people: Mapping[str, Tensor], square_B3: Tensor | None = None) -> Truth:
        """From tensors of `PeopleMaker.make`, two views a person.

        Args:
            square_B3: left, top and side in pixels of what was cut out of the first portrait; None is all of it.
        """
        photo, novel = ({key: people[key][:, view] for key in KEYS[2:]} for view in (PHOTO, NOVEL))
        scene, landmarks = Scene.from_tensors(photo), photo["landmarks"]
        if square_B3 is not None:
            scale, shift = frame_of(square_B3.to(landmarks), photo["image"].shape[-1])
            scene = replace(scene, camera=cut_camera(scene.camera, scale, shift))
            landmarks = landmarks * scale[:, None, None] + shift[:, None]
        return cls(
            people["identity"], FaceMaps.from_tensor(dequantise(people["maps"])), scene, landmarks,
            novel["image"].float() / 255, Scene.from_tensors(novel), novel["landmarks"],
        )  # fmt: skip


def frame_of(square_B3: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Scale (B,) and shift (B, 2): NDC of an image of `size` pixels to NDC of squares (left, top, side in pixels)."""
    left, top, side = square_B3.unbind(1)
    return size / side, torch.stack([(size - 2 * left) / side - 1, 1 - (size - 2 * top) / side], 1)


def cut_camera(camera: Camera, scale_B: Tensor, shift_B2: Tensor) -> Camera:
    """The camera of a square that was cut out of an image; see `frame_of`."""
    principal_point = camera.principal_point * scale_B[:, None] + shift_B2
    return replace(camera, focal=camera.focal * scale_B, principal_point=principal_point)


def find_faces(images_B3SS: Tensor, detector: Any, landmark_detector: Any) -> list[DetectedFace | None]:
    """The face of each uint8 portrait through the same detectors as a photo; None where there is none to be found."""
    faces: list[DetectedFace | None] = []
    for image in images_B3SS:
        try:
            faces.append(find_face(Photo(image.permute(1, 2, 0).cpu().numpy()), detector, landmark_detector))
        except PhotoError:
            faces.append(None)
    return faces


def photo_problem(
    model: Any, faces: Sequence[DetectedFace], terms: Mapping[str, GuidanceTerm], size: int
) -> tuple[FitProblem, Tensor]:
    """Fit faces of photos of which nothing else is known.

    Returns:
        The problem, and (B, 3) the squares of the photos that are fitted: left, top, side in pixels.
    """
    observation, crops = observe_faces(faces, model, size)
    scene = first_scene(model, observation, crops.principal_point, crops.focal)
    return FitProblem(model, dict(terms), observation, scene), crops.square


def known_problem(model: Any, people: Mapping[str, Tensor], terms: Mapping[str, GuidanceTerm]) -> FitProblem:
    """Fit portraits whose landmarks and scene are given as they were made."""
    view = {key: people[key][:, PHOTO].to(model.device) for key in KEYS[2:]}
    image = view["image"].float() / 255
    transform = crop_transform(model.identity, view["landmarks"])
    observation = Observation(image, view["landmarks"], transform, observed_features(model, image, transform))
    return FitProblem(model, dict(terms), observation, Scene.from_tensors(view), fit_scene=False)


class Scorer:
    """Scores fits against photos and, where it is known, the truth.

    Args:
        model: whose z is judged. judge: of identity; None is the model's own network, for which alone there are centred
            cosines (they need the mean embedding of the training set).
    """

    def __init__(self, model: Any, judge: IdentityNetwork | None = None) -> None:
        self.model, self.judge = model, judge or model.identity
        self.mean = model.embedding_mean if judge is None else None
        topology = model.shape_model.topology
        self.texels = Texels(topology, int(model.config["resolution"]), model.device)
        self.face = self.texels.of_regions(FACE_REGIONS)
        self.tone = self.texels.of_regions(TONE_REGIONS)
        self.regions = {name: topology.regions[name].to(model.device) for name in FACE_REGIONS}

    @torch.no_grad()
    def of_photo(self, problem: FitProblem, z: Tensor, scene: Scene) -> dict[str, Tensor]:
        """What can be told of any photo, each (B,).

        Likeness in this view, likeness of the frontal neutral face in studio light, distance from detected landmarks.
        """
        observation = problem.observation
        rendering = problem.predict(z, scene).rendering
        ours = self.embed(composite(rendering, observation.image), observation.landmarks)
        target = self.embed(observation.image, observation.landmarks)
        frontal = self.frontal(self.model.vertices(z), self.model.maps(z))
        return {
            **self.cosines("photo_id", ours, target),
            **self.cosines("frontal_to_photo_id", frontal, target),
            "detected_landmarks": landmark_error(rendering.landmarks, observation.landmarks),
        }

    @torch.no_grad()
    def of_truth(self, z: Tensor, scene: Scene, truth: Truth) -> dict[str, Tensor]:
        """Errors against the truth, each (B,): see `metrics`."""
        model, maps = self.model, self.model.maps(z)
        vertices, true_vertices = model.vertices(z), model.shape_model(truth.identity)
        points = model.shape_model.topology.landmarks(model.vertices(z, scene.expression))
        projected = project(to_camera_space(points, scene.camera), scene.camera)
        return {
            **self.identities(z, maps, vertices, true_vertices, truth),
            **self.shapes(vertices, true_vertices),
            **self.reflectance(maps, truth),
            **{f"light_{name}": value for name, value in self.lights(scene.lighting, truth).items()},
            "true_landmarks": landmark_error(projected, truth.landmarks),
        }

    def identities(
        self, z: Tensor, maps: FaceMaps, vertices: Tensor, true_vertices: Tensor, truth: Truth
    ) -> dict[str, Tensor]:
        """Cosines in a view that no method saw, and, against the true face, frontal and neutral in studio light."""
        novel, image = truth.novel_scene, truth.novel_image
        moved = self.model.vertices(z, novel.expression)
        rendering = self.model.renderer(moved, maps, novel.camera, novel.lighting, image.shape[-1])
        ours = self.embed(composite(rendering, image), rendering.landmarks)
        return {
            **self.cosines("novel_id", ours, self.embed(image, truth.novel_landmarks)),
            **self.cosines("frontal_id", self.frontal(vertices, maps), self.frontal(true_vertices, truth.maps)),
        }

    def shapes(self, vertices: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """Mean distance in mm of all vertices, and of those of each region."""
        distance = vertex_distance(vertices, truth)
        regions = {f"{name}_mm": distance[:, mask].mean(1) for name, mask in self.regions.items()}
        return {"shape_mm": distance.mean(1), **regions}

    def reflectance(self, maps: FaceMaps, truth: Truth) -> dict[str, Tensor]:
        """PSNR in dB of the maps, and of the diffuse one where the photo shows the skin; error of skin tone in degrees.

        Occluders are no part of the truth: what they cover counts as shown.
        """
        vertices = self.model.shape_model(truth.identity, truth.scene.expression)
        visible = self.texels.visible(self.model.renderer, vertices, truth.scene.camera) & self.face
        tones = (x.diffuse_albedo[..., self.tone].mean(-1).cpu() for x in (maps, truth.maps))
        return {
            **{f"{name}_db": value for name, value in map_psnr(maps, truth.maps).items()},
            "visible_diffuse_db": map_psnr(maps, truth.maps, visible[:, None])["diffuse"],
            "ita_degrees": torch.from_numpy(typology_error(*tones)).float(),
        }

    def lights(self, lighting: Lighting, truth: Truth) -> dict[str, Tensor]:
        """Error of the light that the true face receives, on average over what the photo shows of it."""
        return light_error(*(self.received(light, truth) for light in (lighting, truth.scene.lighting)))

    def received(self, lighting: Lighting, truth: Truth) -> Tensor:
        """(B, 3) mean linear light on the true face."""
        like = truth.maps.normals[:1, :, :1, :1]
        up = torch.tensor([0.0, 0.0, 1.0], device=like.device).view(1, 3, 1, 1)
        white = FaceMaps(torch.full_like(like, WHITE), torch.zeros_like(like), up)
        vertices = self.model.shape_model(truth.identity, truth.scene.expression)
        rendering = self.model.renderer(vertices, white, truth.scene.camera, lighting, 64)
        light = srgb_to_linear(rendering.image) * rendering.mask / WHITE
        return light.sum((2, 3)) / rendering.mask.sum((2, 3)).clamp_min(1)

    def frontal(self, vertices: Tensor, maps: FaceMaps) -> Tensor:
        """(B, D) embedding of neutral vertices, from the front, in studio light on grey."""
        lighting = studio_lighting(len(vertices), vertices.device)
        rendering = self.model.renderer(vertices, maps, frontal_camera(vertices), lighting, STUDIO_SIZE)
        return self.embed(composite(rendering, 0.5), rendering.landmarks)

    def embed(self, image_B3SS: Tensor, landmarks_B682: Tensor) -> Tensor:
        """(B, D) the judge's embedding of the face with these landmarks."""
        transform = crop_transform(self.judge, landmarks_B682)
        return self.judge(crop(image_B3SS, transform, self.judge.size)).embedding

    def cosines(self, name: str, ours: Tensor, theirs: Tensor) -> dict[str, Tensor]:
        """Raw, and centred where a mean is known."""
        raw = {name: identity_cosine(ours, theirs)}
        return raw if self.mean is None else {**raw, f"{name}_centred": identity_cosine(ours, theirs, self.mean)}
