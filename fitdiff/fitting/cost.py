"""What a guided step costs: the parts of one, and the arithmetic and the traffic of each, forward and backward.

FLOP are those of convolutions, matrix products and attention, two for each multiply-add, as torch's counter finds them.
Bytes are what every operation reads and writes where nothing is fused and nothing stays in a cache, so a part's limit
(`Cost.limit`) is that of the operations as they are: caches and fusion may beat it. The renderer's loops are no torch
operations, so its traffic is a closed form (`renderer_bytes`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from fitdiff.alignment.crop import crop_transform
from fitdiff.avatar.relight import frontal_camera, studio_lighting
from fitdiff.diffusion.sampler import conditioned
from fitdiff.fitting.problem import FitProblem, first_noise, observed_features
from fitdiff.types import FaceMaps, GuidanceTerm, Observation, Scene, composite


@dataclass(frozen=True)
class Part:
    """One part of a guided step: a differentiable function of tensors.

    Attributes:
        function: tensors -> one tensor or several. inputs: what a fit passes, and wants gradients of.
        bytes: a closed form of the traffic, forward and backward; None: counted.
    """

    function: Callable[..., Any]
    inputs: tuple[Tensor, ...]
    bytes: float | None = None

    @torch.no_grad()
    def forward(self) -> None:
        """Once, without a graph."""
        self.function(*self.inputs)

    def backward(self) -> tuple[Tensor | None, ...]:
        """Forward, then the gradients of the outputs' sum with respect to the inputs."""
        leaves = [x.detach().requires_grad_() for x in self.inputs]
        # Through clones, since the FLOP counter refuses leaves as inputs of a module.
        outputs = tree_leaves(self.function(*(x.clone() for x in leaves)))
        return torch.autograd.grad(sum(y.sum() for y in outputs), leaves, allow_unused=True)


@dataclass(frozen=True)
class Cost:
    """FLOP and bytes of a part, forward and backward together."""

    flop: float
    bytes: float

    def limit(self, peak: float, bandwidth: float) -> float:
        """Least seconds on a machine of so many FLOP/s and bytes/s that overlaps both perfectly."""
        return max(self.flop / peak, self.bytes / bandwidth)


class ByteCounter(TorchDispatchMode):
    """Counts the bytes of the tensors that operations read and write while it is active; views are free."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if not function.is_view and function.overloadpacket is not torch.ops.aten.empty:
            tensors = (x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor))
            self.total += sum(x.nbytes for x in tensors)
        return result


def cost_of(part: Part) -> Cost:
    """Count one call, forward and backward."""
    with FlopCounterMode(display=False) as flop:
        part.backward()
    if part.bytes is not None:
        return Cost(flop.get_total_flops(), part.bytes)
    with ByteCounter() as traffic:
        part.backward()
    return Cost(flop.get_total_flops(), traffic.total)


def renderer_bytes(problem: FitProblem, covered: int, resolution: int) -> float:
    """Traffic of rendering and its backward pass, where the rasteriser's and the loops' own data stays in caches.

    In numbers of four bytes: each of nine map channels is read, its gradient written; each vertex has 11 attributes;
    each of the `covered` pixels has 11 interpolated values and 9 texels, and shading makes and reads about 40 more
    lists per lamp-independent quantity and 10 per lamp, all of them again in the backward pass.
    """
    batch, size = len(problem.observation.image), problem.observation.image.shape[-1]
    lamps = problem.scene.lighting.directions.shape[1]
    vertices = batch * len(problem.model.shape_model.topology.uv)
    per_pixel = 11 + 9 + 40 + 10 * lamps
    return 4 * 2 * (batch * (9 * resolution**2 + 4 * size**2) + vertices * 11 + covered * per_pixel)


@torch.no_grad()
def portrait_problem(model: Any, terms: Mapping[str, GuidanceTerm], batch: int, size: int) -> FitProblem:
    """A problem of a fit's usual size without any photo: random people, frontal, in studio light before noise."""
    z = first_noise(model, 1, batch, seed=1)
    vertices, maps = model.vertices(z), model.maps(z)
    scene = Scene(
        frontal_camera(vertices),
        studio_lighting(batch, z.device),
        torch.zeros(batch, model.shape_model.n_expression, device=z.device),
    )
    rendering = model.renderer(vertices, maps, scene.camera, scene.lighting, size)
    noise = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0)).to(z.device)
    image = composite(rendering, noise)
    transform = crop_transform(model.identity, rendering.landmarks)
    observation = Observation(image, rendering.landmarks, transform, observed_features(model, image, transform))
    return FitProblem(model, dict(terms), observation, scene)


def parts_of(problem: FitProblem, cfg_scale: float = 1.0) -> dict[str, Part]:
    """The parts of a guided step of a problem, in the order of the data."""
    model, observation, scene = problem.model, problem.observation, problem.scene
    z = first_noise(model, len(observation.image))
    size = observation.image.shape[-1]
    t = torch.full((len(z),), model.schedule.steps // 2, device=z.device)
    predict_eps = conditioned(model.denoiser, problem.embedding, cfg_scale)
    with torch.no_grad():
        identity, latent = model.latent.unpack(z)
        vertices, maps = model.shape_model(identity, scene.expression), model.decode(latent)
        rendering = model.renderer(vertices, maps, scene.camera, scene.lighting, size)
        aligned = problem.aligned(observation.image)

    def render(vertices: Tensor, *channels: Tensor) -> tuple[Tensor, Tensor]:
        drawn = model.renderer(vertices, FaceMaps(*channels), scene.camera, scene.lighting, size)
        return drawn.image, drawn.landmarks

    def lay_over(image: Tensor) -> Tensor:
        return problem.aligned(composite(replace(rendering, image=image), observation.image))

    def recognise(crops: Tensor) -> tuple[Tensor, ...]:
        features = model.identity(crops)
        return features.embedding, *features.activations

    channels = (maps.diffuse_albedo, maps.specular_albedo, maps.normals)
    covered = int((rendering.mask > 0).sum())
    traffic = renderer_bytes(problem, covered, maps.normals.shape[-1])
    parts = {
        "denoiser": Part(lambda z_t: predict_eps(z_t, t), (z,)),
        "decoder": Part(lambda code: list(vars(model.decode(code)).values())[:3], (latent,)),
        "shape model": Part(model.shape_model, (identity, scene.expression)),
        "renderer": Part(render, (vertices, *channels), traffic),
        "overlay and crop": Part(lay_over, (rendering.image,)),
        "recognition network": Part(recognise, (aligned,)),
    }
    networks = {name: term.network for name, term in problem.terms.items() if hasattr(term, "network")}
    for name, network in networks.items():
        network.to(z.device)
        parts[f"{name} network"] = Part(network.features, (observation.image,))
    return parts
