"""What is measured on each synthetic person: embeddings of five kinds of portrait, detections, tone, maps in brief.

Portraits are of five kinds: `stored` as training sees them, augmentation included; `clean` in the same scenes without
augmentation on a plain ground; `plain` on such a ground in the easy scenes of `PLAIN`; `texture` and `shape` like plain
ones, with the mean shape or the mean skin in place of the person's own.

Legend of shape suffixes: N people · V portraits of each · R map side · S image side · P cells of the maps in brief.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as nnf
from omegaconf import OmegaConf
from rich.progress import Progress
from torch import Tensor

from fitdiff.alignment.crop import crop, crop_transform
from fitdiff.colour import LUMINANCE, srgb_to_linear
from fitdiff.data.atlas import UvAtlas
from fitdiff.data.people.maker import PeopleMaker
from fitdiff.data.people.options import Portraits
from fitdiff.data.people.scenes import sample_scenes
from fitdiff.data.people.views import Views
from fitdiff.data.shards import dequantise, quantise
from fitdiff.data.workers import cores, worker_processes
from fitdiff.evaluation.skin_tone import lab_of_albedo
from fitdiff.geometry import rotation_matrix
from fitdiff.registry import build, config_of
from fitdiff.shape_model.anny_population import sample_population
from fitdiff.types import SCENE_KEYS, FaceMaps, Scene, composite

PORTRAITS = ("stored", "clean", "plain", "texture", "shape")
PLAIN = Portraits(
    yaw=12.0, wide=0.0, widest=30.0, pitch=5.0, roll=4.0, expressive=0.0,
    near_lamps=0.0, surroundings=0.0, tint=15.0, exposure=0.1,
)  # fmt: skip
"""Neutral faces turned by at most 30 degrees, under two or three distant lamps: what people look like, not what can
happen to a photo."""
CHUNK = 10
"""People a job."""
MEAN_OF = 48
"""People whose mean maps are the mean skin."""
BRIEF = 32
"""Side of the maps in brief."""
TONE_REGIONS = ("forehead", "cheek", "nose")
GROUND = 0.5
"""sRGB grey behind clean portraits: the same for everybody, so it tells nothing."""
SAME_FACE = 0.3
"""Least intersection over union of a detection with the landmarks' box: dlib's 68 leave out the forehead."""


@dataclass(frozen=True)
class Population:
    """Which people: side of the maps and of the portraits, portraits a person, seed, and overrides of `data=people`."""

    size: int
    portrait_size: int
    views: int
    seed: int
    data: dict[str, Any] = field(default_factory=dict)

    def config(self) -> dict[str, Any]:
        """The node of `data=people`."""
        wanted = {"views": self.views, "portrait_size": self.portrait_size, "seed": self.seed}
        node = OmegaConf.create(config_of("data", "people"))
        OmegaConf.set_struct(node, True)  # a misspelt override is an error
        return OmegaConf.to_container(OmegaConf.merge(node, self.data, wanted))


class Surveyor:
    """Makes people and measures them; person i is the same whatever is measured beside."""

    def __init__(self, population: Population) -> None:
        shape_model = build(config_of("shape_model", "anny_face"), "shape_model")
        identity = build(config_of("identity", "dlib"), "identity")
        renderer = build(config_of("renderer", "torch"), "renderer", topology=shape_model.topology)
        parts = {"shape_model": shape_model, "identity": identity, "renderer": renderer}
        people = build(population.config(), "data", **parts, resolution=population.size, fingerprint="not cached")
        self.maker: PeopleMaker = people.maker
        self.detector = build(config_of("detector", "mtcnn"), "detector")
        self.atlas = UvAtlas.build(shape_model.mean, shape_model.topology, population.size)

    @torch.inference_mode()
    def __call__(self, indices: range, controls: bool) -> dict[str, Tensor]:
        """Measure people.

        Args:
            controls: the clean portraits and those of one part too, not only the stored ones.

        Returns:
            Per person: identity (N, K); tone (N, 3) CIELAB; albedo, specular, normals (N, C, P) in brief. Per portrait
            (N, V): yaw, pitch in degrees; found_* bool; embedding_* (N, V, D); `occluded` where the data have it; of
            the clean portraits exposure and contrast (see `light_of`).
        """
        people = self.maker.make(indices)
        maps = dequantise(people["maps"])
        diffuse = FaceMaps.from_tensor(maps).diffuse_albedo
        brief = self.brief(maps)
        measured = {
            "identity": people["identity"],
            "tone": self.tone(diffuse),
            **{name: brief[:, part] for name, part in MAP_PARTS.items()},
            **dict(zip(("yaw", "pitch"), yaw_pitch(people["rotation"]), strict=True)),
            "embedding_stored": people["embedding"],
            "found_stored": self.found(people["image"], people["landmarks"]),
            **({"occluded": people["occluded"]} if "occluded" in people else {}),
        }
        return measured | (self.controls(people, indices) if controls else {})

    def controls(self, people: dict[str, Tensor], indices: range) -> dict[str, Tensor]:
        """What the clean and plain portraits, and those of one part, measure."""
        own_shape, own_maps = people["identity"], people["maps"]
        n, views = people["image"].shape[:2]
        stored = Scene.from_tensors({key: people[key].flatten(0, 1) for key in SCENE_KEYS})
        drawn = Views.of(self.maker.seed, indices, views, self.maker.device)
        plain = sample_scenes(drawn, PLAIN, self.maker.shape_model.expression_names)
        kinds = {
            "clean": (own_shape, own_maps, stored),
            "plain": (own_shape, own_maps, plain),
            "texture": (torch.zeros_like(own_shape), own_maps, plain),
            "shape": (own_shape, self.mean_maps.expand_as(own_maps), plain),
        }
        measured = {}
        for kind, (shape, maps, scene) in kinds.items():
            parts = self.portraits(shape, maps, scene)
            image, mask, landmarks, embedding = (x.unflatten(0, (n, views)) for x in parts)
            measured[f"embedding_{kind}"] = embedding
            if kind == "clean":
                measured["found_clean"] = self.found((image * 255).round().to(torch.uint8), landmarks)
                measured |= dict(zip(("exposure", "contrast"), light_of(image, mask, landmarks), strict=True))
        return measured

    def portraits(self, shape_NK: Tensor, maps_N9RR: Tensor, scene: Scene) -> tuple[Tensor, ...]:
        """Portraits without augmentation in scenes of batch N V: image, mask, landmarks and embedding."""
        views = len(scene.expression) // len(shape_NK)
        vertices = self.maker.shape_model(shape_NK.repeat_interleave(views, 0), scene.expression)
        maps = FaceMaps.from_tensor(dequantise(maps_N9RR)).map(lambda x: x.repeat_interleave(views, 0))
        shown = self.maker.renderer(vertices, maps, scene.camera, scene.lighting, self.maker.portrait_size)
        image = composite(shown, GROUND)
        crops = crop(image, crop_transform(self.maker.identity, shown.landmarks), self.maker.identity.size)
        return image, shown.mask, shown.landmarks, self.maker.identity(crops).embedding

    @cached_property
    def mean_maps(self) -> Tensor:
        """(1, 9, R, R) uint8, the mean skin of the first people."""
        people = sample_population(self.maker.seed, torch.arange(MEAN_OF))
        mean = self.maker.skin(people, self.maker.seed).to_tensor().mean(0, keepdim=True)
        return quantise(FaceMaps.from_tensor(mean))

    def found(self, image_NV3SS: Tensor, landmarks_NV682: Tensor) -> Tensor:
        """(N, V) bool, whether the detector finds the face that is there. Images are uint8."""
        size = image_NV3SS.shape[-1]
        pixels = (landmarks_NV682 * landmarks_NV682.new_tensor([1, -1]) + 1) * size / 2
        boxes = torch.cat([pixels.amin(2), pixels.amax(2)], -1).flatten(0, 1).numpy()
        images = image_NV3SS.flatten(0, 1).permute(0, 2, 3, 1).contiguous().numpy()
        hits = [
            any(overlap(np.array(found.box), box) >= SAME_FACE for found in self.detector(image))
            for image, box in zip(images, boxes, strict=True)
        ]
        return torch.tensor(hits).unflatten(0, image_NV3SS.shape[:2])

    def tone(self, diffuse_N3RR: Tensor) -> Tensor:
        """(N, 3) CIELAB of the median linear albedo of forehead, cheeks and nose: a median keeps beard and hair out."""
        texels = diffuse_N3RR[:, :, self.texels_of(*TONE_REGIONS)]
        return torch.from_numpy(lab_of_albedo(texels.median(2).values.numpy())).float()

    def brief(self, maps_N9RR: Tensor) -> Tensor:
        """(N, 9, P) means of the map tensor over cells that skin covers by half or more, of its skin texels alone."""
        skin = self.texels_of("skin")[None, None].float()
        cell = max(1, maps_N9RR.shape[-1] // BRIEF)
        cover = nnf.avg_pool2d(skin, cell)
        mean = nnf.avg_pool2d(maps_N9RR * skin, cell) / cover.clamp_min(1e-6)
        return mean[:, :, cover[0, 0] >= 0.5]

    def texels_of(self, *regions: str) -> Tensor:
        """(R, R) bool, the texel's triangle lies in one of the regions."""
        topology, triangle = self.maker.shape_model.topology, self.atlas.triangle
        inside = torch.stack([topology.regions[name] for name in regions]).any(0)
        return inside[topology.faces].all(1)[triangle.clamp_min(0)] & (triangle >= 0)


MAP_PARTS = {"albedo": slice(0, 3), "specular": slice(3, 4), "normals": slice(6, 8)}
"""Channels of the map tensor that are regressed: specular is grey, the third of a normal follows from the others."""


def yaw_pitch(rotation_NV3: Tensor) -> tuple[Tensor, Tensor]:
    """Degrees that the face looks to the image's right and upwards, each (N, V)."""
    forward = rotation_matrix(rotation_NV3.flatten(0, 1))[:, :, 2].unflatten(0, rotation_NV3.shape[:2])
    x, y, z = forward.unbind(-1)
    return torch.rad2deg(torch.atan2(x, z)), torch.rad2deg(torch.asin(y.clamp(-1, 1)))


def light_of(image_NV3SS: Tensor, mask_NV1SS: Tensor, landmarks_NV682: Tensor) -> tuple[Tensor, Tensor]:
    """How portraits are lit: mean linear luminance of the face, and by how many stops one half outshines the other.

    The halves lie left and right of the nose's ridge in the image. Each (N, V).
    """
    weights = image_NV3SS.new_tensor(LUMINANCE)[:, None, None]
    luminance = (srgb_to_linear(image_NV3SS) * weights).sum(2, keepdim=True)
    size = image_NV3SS.shape[-1]
    column = (torch.arange(size) + 0.5) * 2 / size - 1
    left = column < landmarks_NV682[:, :, 27:31, 0].mean(2)[:, :, None, None, None]

    def mean(where: Tensor) -> Tensor:
        return (luminance * where).sum((2, 3, 4)) / where.sum((2, 3, 4)).clamp_min(1)

    halves = mean(mask_NV1SS * left), mean(mask_NV1SS * ~left)
    stops = (halves[0].clamp_min(1e-4) / halves[1].clamp_min(1e-4)).log2().abs()
    return mean(mask_NV1SS), stops


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = sides.clip(0).prod()
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared))


_surveyor: Surveyor | None = None  # one a worker process


def _start(population: Population) -> None:
    global _surveyor
    _surveyor = Surveyor(population)


def _survey(indices: range, controls: bool) -> dict[str, Tensor]:
    if _surveyor is None:
        raise RuntimeError("worker was not started")
    # Tensors would travel by shared memory, which containers keep small.
    return {key: value.numpy() for key, value in _surveyor(indices, controls).items()}


def survey(population: Population, n: int, n_controls: int, progress: Progress) -> dict[str, np.ndarray]:
    """Measure people 0 to n - 1 in parallel, the first `n_controls` with the clean portraits too.

    Returns:
        The arrays of `Surveyor.__call__`; those of clean portraits have `n_controls` rows.
    """
    workers = min(cores(), -(-n // CHUNK))
    task = progress.add_task("measuring people", total=n)
    with worker_processes(workers, _start, population) as pool:
        jobs = [(pool.submit(_survey, part, controls), part) for part, controls in _parts(n, n_controls)]
        chunks = [_finish(job, part, progress, task) for job, part in jobs]
    return {key: np.concatenate([chunk[key] for chunk in chunks if key in chunk]) for key in chunks[0]}


def _parts(n: int, n_controls: int) -> Iterator[tuple[range, bool]]:
    for begin, end, controls in ((0, n_controls, True), (n_controls, n, False)):
        for start in range(begin, end, CHUNK):
            yield range(start, min(start + CHUNK, end)), controls


def _finish(job: Future, part: range, progress: Progress, task: Any) -> dict[str, np.ndarray]:
    result = job.result()
    progress.advance(task, len(part))
    return result
