"""A toy face model and people in the layout of `data=folder`, for the tests of data that users bring."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fitdiff.avatar.relight import frontal_camera
from fitdiff.data.folder.export import write_person
from fitdiff.data.shards import dequantise
from fitdiff.renderer import TorchRenderer
from fitdiff.types import FaceMaps, IdentityFeatures, Lighting, Scene, Topology

SIZE, PORTRAIT = 32, 64


class ToyShape(nn.Module):
    """A bulging square of 12 x 12 vertices with six ways to differ, none of them a pose, and two expressions."""

    n_identity, n_expression, expression_names = 6, 2, ("smile", "blink")

    def __init__(self) -> None:
        super().__init__()
        t = torch.linspace(-1, 1, 12)
        y, x = torch.meshgrid(-t, t, indexing="ij")
        x, y = x.flatten(), y.flatten()
        self.mean = torch.stack([70 * x, 100 * y, 60 * (2 - x**2 - y**2) + 20 * torch.exp(-8 * (x**2 + y**2))], 1)
        height = [x**2 * y**2, x**4 - x**2, y**4 - y**2, (3 * x).cos() * (3 * y).cos(), x**3 * y, x * y**3]
        basis = torch.zeros(6, len(x), 3)
        basis[:, :, 2] = torch.linalg.qr(torch.stack(height, 1))[0].T * 40
        self.basis = basis
        self.expressions = torch.stack([4 * (y < 0)[:, None] * torch.tensor([0.0, 1, 1]), basis[0] * 0.3])
        ids = torch.arange(144).reshape(12, 12)
        a, b, c, d = (corner.flatten() for corner in (ids[:-1, :-1], ids[1:, :-1], ids[1:, 1:], ids[:-1, 1:]))
        faces = torch.cat([torch.stack([a, b, c], 1), torch.stack([a, c, d], 1)])
        landmarks = torch.arange(68)[:, None].expand(68, 3) * 2
        uv = torch.stack([x, -y], 1) / 2 + 0.5
        self.topology = Topology(faces, uv, landmarks, torch.tensor([1.0, 0, 0]).repeat(68, 1))

    def forward(self, identity_BK: Tensor, expression_BE: Tensor | None = None) -> Tensor:
        vertices = self.mean + torch.einsum("bk,kvx->bvx", identity_BK, self.basis)
        if expression_BE is None:
            return vertices
        return vertices + torch.einsum("be,evx->bvx", expression_BE, self.expressions)

    def encode(self, vertices_BV3: Tensor) -> Tensor:
        return torch.einsum("bvx,kvx->bk", vertices_BV3 - self.mean, self.basis) / 40**2


class ToyIdentity(nn.Module):
    """Embedding: a coarse picture of the aligned crop."""

    size, dim = 32, 48

    def __init__(self) -> None:
        super().__init__()
        self.template = torch.tensor([[-0.5, 0.5], [0.5, 0.5], [0.0, -0.5]])
        self.template_weights = torch.zeros(3, 68)
        self.template_weights[torch.arange(3), torch.tensor([6, 11, 66])] = 1.0

    def forward(self, crops_B3SS: Tensor) -> IdentityFeatures:
        return IdentityFeatures(nn.functional.adaptive_avg_pool2d(crops_B3SS, 4).flatten(1))


@dataclass
class Parts:
    """Run-time objects of a data set."""

    shape_model: ToyShape
    identity: ToyIdentity
    renderer: TorchRenderer
    resolution: int = SIZE
    fingerprint: str = "toy"


def parts() -> Parts:
    shape = ToyShape()
    return Parts(shape, ToyIdentity(), TorchRenderer(shape.topology))


def sample(parts: Parts, seed: int, views: int = 2) -> dict[str, Tensor]:
    """One person as a data set holds it: random code, smooth maps, portraits lit from two sides."""
    from fitdiff.alignment.crop import crop, crop_transform

    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 9, 4, 4, generator=generator) * 0.6 + 0.2
    coarse[:, 8] = 0.95
    packed = nn.functional.interpolate(coarse, size=(SIZE, SIZE), mode="bicubic").clamp(0, 1)
    packed[:, 6:] = nn.functional.normalize(packed[:, 6:] * 2 - 1, dim=1) / 2 + 0.5
    stored = (packed * 255).round().to(torch.uint8)
    code = torch.randn(1, 6, generator=generator) * 0.5
    expression = torch.rand(views, 2, generator=generator) * 0.3
    vertices = parts.shape_model(code.expand(views, -1), expression)
    camera = frontal_camera(vertices, yaw=10.0 * seed)
    lamps = torch.tensor([[-1.0, 0.3, 1.0], [1.0, 0.0, 0.5]]).expand(views, 2, 3)
    lighting = Lighting(
        torch.full((views, 3), 0.3), lamps, torch.rand(views, 2, 3, generator=generator) * 0.4,
        torch.full((views, 2), 1e-3), torch.randn(views, 8, 3, generator=generator) * 0.02,
    )  # fmt: skip
    maps = FaceMaps.from_tensor(dequantise(stored))
    rendering = parts.renderer(vertices, maps, camera, lighting, PORTRAIT)
    image = (rendering.image * 255).round().to(torch.uint8)
    transform = crop_transform(parts.identity, rendering.landmarks)
    embedding = parts.identity(crop(image / 255, transform, 32)).embedding
    scene = Scene(camera, lighting, expression).to_tensors()
    return {
        "identity": code[0],
        "maps": stored[0],
        "image": image,
        "landmarks": rendering.landmarks,
        "embedding": embedding,
    } | scene


def write_people(root: Path, parts: Parts, n: int, views: int = 2) -> dict[str, dict[str, Tensor]]:
    """n people in a folder; returns them by name."""
    people = {f"person {i}, é": sample(parts, i, views) for i in range(n)}
    for name, person in people.items():
        write_person(root / name, person)
    return people
