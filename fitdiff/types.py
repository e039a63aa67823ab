"""The values that cross module borders, and the one table of their shapes, units, ranges, axes and colour spaces.

Legend of shape suffixes: B batch · V vertices · F triangles · E expressions · L lights · R map side · S image side.

| what | convention |
|---|---|
| head space | millimetres, right-handed: +x to the subject's left, +y up, +z out of the face |
| camera space | millimetres, right-handed (OpenGL): +x right, +y up, the camera looks along -z |
| NDC | +x right, +y **up**, both in [-1, 1] over the square image |
| image space | pixels, +x right, +y **down**, the centre of the first pixel is (0.5, 0.5) |
| UV space | [0, 1]^2, u right, v **down** as in glTF: texel row r, column c is at ((c+.5)/R, (r+.5)/R) |
| diffuse albedo | linear light in [0, 1]; stored (files, networks) as sRGB |
| specular albedo | reflectance at normal incidence F0 divided by 0.08, linear, in [0, 1]; grey skin is about 0.35 |
| normals | tangent space, unit length, +x along +u, +y along **-v** (glTF, "OpenGL"), +z outwards |
| rendered image | sRGB in [0, 1] (`Rendering.image`) over a linear shading |
| identity embedding | as the network gives it, not normalised; cosine is taken by the loss |
| map tensor | 9 channels in [-1, 1]: sRGB diffuse (3), specular (3), normals (3) |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
import torch.nn.functional as nnf
from torch import Tensor

from fitdiff.colour import linear_to_srgb, srgb_to_linear

T = TypeVar("T", bound="TensorRecord")

SPECULAR_SCALE = 0.08
"""F0 of a specular albedo of 1 (the range of skin, water and lips; the same scale as Disney's `specular`)."""


class TensorRecord:
    """Mix-in of the dataclasses below: apply an operation to every tensor of a record, nested records included."""

    def map(self: T, function: Callable[[Tensor], Tensor]) -> T:
        """Return a copy with `function` applied to each tensor; other values are kept."""

        def apply(value: Any) -> Any:
            if isinstance(value, Tensor):
                return function(value)
            if isinstance(value, TensorRecord):
                return value.map(function)
            if isinstance(value, (list, tuple)):
                return type(value)(apply(item) for item in value)
            return value

        return replace(self, **{f.name: apply(getattr(self, f.name)) for f in fields(self)})  # type: ignore[type-var]

    def to(self: T, device: torch.device | str) -> T:
        """Copy to a device."""
        return self.map(lambda x: x.to(device))

    def detach(self: T) -> T:
        """Cut every tensor from the graph."""
        return self.map(lambda x: x.detach())

    def __getitem__(self: T, index: Any) -> T:
        """Index the batch dimension of every tensor (use a slice or an index tensor, so that it stays a batch)."""
        return self.map(lambda x: x[index])

    @classmethod
    def cat(cls: type[T], records: Sequence[T]) -> T:
        """Concatenate records along the batch dimension."""
        first = records[0]

        def join(values: list[Any]) -> Any:
            if len({value is None for value in values}) > 1:
                raise ValueError(f"cannot join {cls.__name__}s of which some lack a part that others have")
            if isinstance(values[0], Tensor):
                return torch.cat(values)
            if isinstance(values[0], TensorRecord):
                return type(values[0]).cat(values)
            if isinstance(values[0], (list, tuple)):
                return type(values[0])(join(list(column)) for column in zip(*values, strict=True))
            return values[0]

        return replace(first, **{f.name: join([getattr(r, f.name) for r in records]) for f in fields(first)})  # type: ignore[type-var]


@dataclass(frozen=True)
class FaceMaps(TensorRecord):
    """Reflectance of a face in UV space.

    Attributes:
        diffuse_albedo: (B, 3, R, R) linear light in [0, 1].
        specular_albedo: (B, 3, R, R) F0 / 0.08, linear, in [0, 1].
        normals: (B, 3, R, R) tangent space, unit length.
        occlusion: (B, 1, R, R) share of the surrounding light that reaches the point, in [0, 1]; None is 1 everywhere.
            Baked by whoever has it; not generated, so not one of the nine channels.
    """

    diffuse_albedo: Tensor
    specular_albedo: Tensor
    normals: Tensor
    occlusion: Tensor | None = None

    def to_tensor(self) -> Tensor:
        """Pack as the (B, 9, R, R) tensor in [-1, 1] that networks see: sRGB diffuse, specular, normals."""
        diffuse = linear_to_srgb(self.diffuse_albedo) * 2 - 1
        return torch.cat([diffuse, self.specular_albedo * 2 - 1, self.normals], 1)

    @classmethod
    def from_tensor(cls, packed_B9RR: Tensor) -> FaceMaps:
        """Unpack a (B, 9, R, R) tensor; albedos are clamped to their range, normals re-normalised. Differentiable."""
        diffuse, specular, normals = packed_B9RR.split(3, 1)
        up = torch.tensor([0.0, 0.0, 1e-4], device=normals.device, dtype=normals.dtype).view(1, 3, 1, 1)
        return cls(
            srgb_to_linear(diffuse * 0.5 + 0.5),
            (specular * 0.5 + 0.5).clamp(0, 1),
            nnf.normalize(normals + up, dim=1),
        )

    def to_images(self) -> dict[str, Tensor]:
        """Displayable (B, 3, R, R) images in [0, 1]: diffuse as sRGB, specular as stored, normals as 0.5 n + 0.5."""
        images = (self.to_tensor() * 0.5 + 0.5).clamp(0, 1)
        return dict(zip(("diffuse", "specular", "normals"), images.split(3, 1), strict=True))


@dataclass(frozen=True)
class Camera(TensorRecord):
    """Perspective camera of a square image.

    Attributes:
        rotation: (B, 3) axis-angle in radians, head space to camera space.
        translation: (B, 3) mm, the head's origin in camera space; z < 0 in front of the camera.
        focal: (B,) focal length in NDC units (half the image side is 1): 1 / tan(half the field of view).
        principal_point: (B, 2) NDC position of the optical axis; (0, 0) in an image that was not cropped.
    """

    rotation: Tensor
    translation: Tensor
    focal: Tensor
    principal_point: Tensor


@dataclass(frozen=True)
class Lighting(TensorRecord):
    """What lights a face: surroundings (ambient, harmonics, reflections) and lamps, in the axes of camera space.

    The unit is *received light*, irradiance / pi, linear RGB: 1 shows a diffuse albedo as it is.

    Attributes:
        ambient: (B, 3) received from the surroundings at every point, whichever way it faces.
        directions: (B, L, 3) from the head's origin towards each lamp; normalised where used.
        colours: (B, L, 3) received from each lamp by a surface at the head's origin that faces it.
        proximity: (B, L) 1 / distance of each lamp from the head's origin in 1/mm; 0, or None for all, is infinitely
            far: a directional light.
        harmonics: (B, 8, 3) coefficients of the real spherical harmonics of orders 1 and 2 in the surface normal, of
            what is received from the surroundings beyond `ambient`: convolved with the cosine already, ambient +
            harmonics is clamped at 0. `renderer.lights` states order and scale (mean square 1); None is 0.
        reflections: (B, 3, H, 2H) longitude-latitude map of the surroundings' radiance, filtered by the renderer's
            specular lobe: `renderer.environment` makes it, `renderer.lights` states its axes; None is black.
    """

    ambient: Tensor
    directions: Tensor
    colours: Tensor
    proximity: Tensor | None = None
    harmonics: Tensor | None = None
    reflections: Tensor | None = None


@dataclass(frozen=True)
class Scene(TensorRecord):
    """Everything of a photo that is not the person: camera, light and expression (B, E) (blendshape weights)."""

    camera: Camera
    lighting: Lighting
    expression: Tensor

    def to_tensors(self) -> dict[str, Tensor]:
        """Flat, named by the leaf fields (`rotation`, ..., `expression`): for storage and for optimisers.

        Parts of the light that are None are left out.
        """
        camera = {f.name: getattr(self.camera, f.name) for f in fields(self.camera)}
        lighting = {f.name: getattr(self.lighting, f.name) for f in fields(self.lighting)}
        present = {name: value for name, value in lighting.items() if value is not None}
        return {**camera, **present, "expression": self.expression}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Scene:
        """Inverse of `to_tensors`; other keys are ignored."""
        camera = Camera(**{f.name: tensors[f.name] for f in fields(Camera)})
        lighting = Lighting(**{f.name: tensors[f.name] for f in fields(Lighting) if f.name in tensors})
        return cls(camera, lighting, tensors["expression"])


LAMPS_AND_HARMONICS = ("ambient", "directions", "colours", "proximity", "harmonics")
SCENE_KEYS = (*(f.name for f in fields(Camera)), *LAMPS_AND_HARMONICS, "expression")
"""Keys of `Scene.to_tensors` for the scene of a stored portrait."""


@dataclass(frozen=True)
class Rendering(TensorRecord):
    """What a renderer gives.

    Attributes:
        image: (B, 3, S, S) sRGB in [0, 1], the face's own colour wherever the mask is above 0; zero outside the face.
        mask: (B, 1, S, S) 1 where the face covers the pixel's centre, else 0; no gradient. Of a renderer with
            `silhouette`, the share of the pixel that it covers, differentiable.
        landmarks: (B, 68, 2) NDC positions of the shape model's landmarks (iBUG 68 order).
    """

    image: Tensor
    mask: Tensor
    landmarks: Tensor


def composite(rendering: Rendering, background: Tensor | float) -> Tensor:
    """The rendering over a background. Differentiable in image, mask and background.

    Args:
        background: sRGB in [0, 1], anything that broadcasts to (B, 3, S, S).

    Returns:
        (B, 3, S, S) sRGB in [0, 1]: one or the other where the mask is 0 or 1; between, a blend in linear light, as a
        sensor that sees both would add them.
    """
    image, mask = rendering.image, rendering.mask
    background = torch.as_tensor(background, dtype=image.dtype, device=image.device)
    whole = torch.where(mask > 0, image, background)
    partly = (mask > 0) & (mask < 1)
    # Where asking is free. On a GPU the answer would stop the queue, and the blend costs next to nothing.
    if mask.device.type == "cpu" and not partly.any():
        return whole
    blend = torch.lerp(srgb_to_linear(background), srgb_to_linear(image), mask)
    return torch.where(partly, linear_to_srgb(blend), whole)


@dataclass(frozen=True)
class IdentityFeatures(TensorRecord):
    """Output of a face-recognition network.

    Attributes:
        embedding: (B, D) not normalised.
        activations: tuple of (B, C_j, H_j, W_j), the intermediate layers of Eq. 2, shallow to deep.
    """

    embedding: Tensor
    activations: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Observation(TensorRecord):
    """A photo, cropped square around the face and prepared for fitting.

    Attributes:
        image: (B, 3, S, S) sRGB in [0, 1].
        landmarks: (B, 68, 2) NDC, detected.
        crop: (B, 2, 3) affine map from the identity network's crop NDC to this image's NDC (see alignment.crop).
        features: of the aligned crop.
    """

    image: Tensor
    landmarks: Tensor
    crop: Tensor
    features: IdentityFeatures


@dataclass(frozen=True)
class Prediction(TensorRecord):
    """The current estimate as guidance terms see it.

    Attributes:
        rendering: in the observation's frame. features: of the aligned crop of it, laid over the photo.
        maps: reflectance of the person in each photo; None where nothing was decoded.
    """

    rendering: Rendering
    features: IdentityFeatures
    maps: FaceMaps | None = None


@dataclass(frozen=True)
class Topology:
    """What of a mesh does not change with the person.

    Attributes:
        faces: (F, 3) int64 vertex ids, counter-clockwise seen from outside.
        uv: (V, 2) float32 UV space.
        landmark_vertices: (68, 3) int64 and landmark_weights: (68, 3) float32: barycentric iBUG-68 landmarks.
        regions: name -> (V,) bool; at least nose, mouth, forehead, cheek.
    """

    faces: Tensor
    uv: Tensor
    landmark_vertices: Tensor
    landmark_weights: Tensor
    regions: dict[str, Tensor] = field(default_factory=dict)

    def landmarks(self, vertices_BV3: Tensor) -> Tensor:
        """(B, 68, 3) landmark positions on the given vertices. Differentiable."""
        corners = vertices_BV3[:, self.landmark_vertices.to(vertices_BV3.device)]
        return (corners * self.landmark_weights.to(vertices_BV3)[None, :, :, None]).sum(2)


@dataclass(frozen=True)
class Detection:
    """A face found in a photo: box (x0, y0, x1, y1) in pixels and a score in [0, 1]."""

    box: tuple[float, float, float, float]
    score: float


@runtime_checkable
class ShapeModel(Protocol):
    """Shape code <-> vertices (`F_shp`). An `nn.Module` with a `topology`."""

    topology: Topology
    n_identity: int
    n_expression: int
    expression_names: tuple[str, ...]

    def __call__(self, identity_BK: Tensor, expression_BE: Tensor | None = None) -> Tensor:
        """(B, K) whitened identity code and (B, E) expression weights -> (B, V, 3) mm in head space."""

    def encode(self, vertices_BV3: Tensor) -> Tensor:
        """Least-squares identity code (B, K) of neutral, aligned vertices in mm."""


@runtime_checkable
class IdentityNetwork(Protocol):
    """Face-recognition network `C` on aligned crops. An `nn.Module`; frozen.

    Attributes:
        size: side of the square crop in pixels. dim: length of the embedding.
        template: (P, 2) crop NDC positions of P alignment points.
        template_weights: (P, 68) rows that make those points from 68 landmarks (each row sums to 1).
    """

    size: int
    dim: int
    template: Tensor
    template_weights: Tensor

    def __call__(self, crops_B3SS: Tensor) -> IdentityFeatures:
        """(B, 3, size, size) sRGB in [0, 1] -> features. Differentiable in the crops."""


@runtime_checkable
class Detector(Protocol):
    """Finds faces."""

    def __call__(self, image_HW3: Any) -> list[Detection]:
        """uint8 RGB array (H, W, 3) -> detections, largest first; empty if there is no face."""


@runtime_checkable
class LandmarkDetector(Protocol):
    """Finds the iBUG 68 landmarks of a detected face."""

    def __call__(self, image_HW3: Any, detection: Detection) -> Any:
        """uint8 RGB array and a detection -> float32 array (68, 2) in pixels (image space)."""


@runtime_checkable
class Renderer(Protocol):
    """Avatar + scene -> rendering. Built with `topology`.

    Attributes:
        shininess: Blinn-Phong exponent of the skin; exported avatars carry it.
    """

    shininess: float

    def __call__(
        self, vertices_BV3: Tensor, maps: FaceMaps, camera: Camera, lighting: Lighting, size: int
    ) -> Rendering:
        """Render at size x size pixels; differentiable in vertices, maps, camera and lighting."""

    def surface(self, vertices_BV3: Tensor, maps: FaceMaps, camera: Camera, size: int) -> Any:
        """What the light falls on: `normals` in camera space and linear `diffuse_albedo`, (B, 3, S, S), and `mask`."""


@runtime_checkable
class GuidanceTerm(Protocol):
    """One term of G (Eq. 4). `weight` is its lambda; the call gives the unweighted loss."""

    weight: float

    def __call__(self, prediction: Prediction, target: Observation) -> Tensor:
        """-> (B,) loss per photo, never summed over the batch."""


@runtime_checkable
class Autoencoder(Protocol):
    """Maps <-> latent. An `nn.Module`.

    Attributes:
        latent_shape: (C, h, w) for the resolution it was built with.
    """

    latent_shape: tuple[int, int, int]

    def encode(self, maps_B9RR: Tensor) -> Tensor:
        """(B, 9, R, R) map tensor -> (B, C, h, w) continuous latent, before quantisation."""

    def decode(self, latent_BChw: Tensor) -> Tensor:
        """Continuous latent -> quantise (straight-through) -> (B, 9, R, R) map tensor (not clamped)."""


@runtime_checkable
class Denoiser(Protocol):
    """Predicts the noise `eps_theta(z_t, t, V)`. An `nn.Module`.

    Training also calls `set_embedding_statistics(mean_D, std_D)` and passes `drop_B`, (B,) bool: True where the null
    condition replaces the embedding. A network may offer `condition(embedding_BD)`: `diffusion.sampler.conditioned`
    then computes it once per photo and passes it at every step by keyword, `denoiser(z_t, t, condition=...)`.
    """

    def __call__(self, z_t_BN: Tensor, t_B: Tensor, embedding_BD: Tensor | None) -> Tensor:
        """(B, N) latent, (B,) int64 step, (B, D) embedding (None: the null condition) -> (B, N) noise."""


@runtime_checkable
class Benchmark(Protocol):
    """Measures a model: called with a `fitdiff.evaluation.benchmark.Context`, it gives an `Evaluation`."""

    def __call__(self, context: Any) -> Any:
        """Measure. What is expensive is kept below `context.out`, so that the same command goes on.

        Raises:
            BenchmarkError, FileNotFoundError: what is asked cannot be done; told before anything expensive begins.
        """
