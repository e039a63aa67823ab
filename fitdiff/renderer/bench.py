"""How long does a render take, and how far is that from what the memory allows?  `python -m fitdiff.renderer.bench`

The bound is the traffic of one forward and backward pass that nobody can avoid: read the maps and vertices, write the
image, and the same again for their gradients, at the machine's measured copy bandwidth. The measured time is many times
that, as every elementary operation passes over the pixel lists once; the ratio says how much fusing could win at most.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fitdiff.renderer.torch_renderer import TorchRenderer
from fitdiff.types import Camera, FaceMaps, Lighting, Topology

CASES = ((1, 64, 128), (1, 256, 224), (1, 512, 224), (1, 512, 512), (8, 64, 128), (8, 256, 224))
"""(batch, side of the maps, side of the image)."""


def ellipsoid(n_side: int, radii: tuple[float, float, float] = (75.0, 100.0, 90.0)) -> tuple[Tensor, Topology]:
    """The front half of an ellipsoid as an n x n grid, in mm; UV runs with longitude and latitude.

    Returns:
        (n * n, 3) float32 vertices and the topology; its 68 landmarks are vertices spread over the grid.
    """
    line = torch.linspace(-torch.pi / 2, torch.pi / 2, n_side, dtype=torch.float64)
    latitude, longitude = torch.meshgrid(-line, line, indexing="ij")
    directions = [longitude.sin() * latitude.cos(), latitude.sin(), longitude.cos() * latitude.cos()]
    vertices = torch.stack(directions, -1).reshape(-1, 3) * torch.tensor(radii, dtype=torch.float64)
    uv = torch.stack([longitude, -latitude], -1).reshape(-1, 2) / torch.pi + 0.5
    row, column = torch.meshgrid(torch.arange(n_side - 1), torch.arange(n_side - 1), indexing="ij")
    a = (row * n_side + column).flatten()
    b, c, d = a + n_side, a + n_side + 1, a + 1
    faces = torch.cat([torch.stack([a, b, c], 1), torch.stack([a, c, d], 1)])
    landmarks = torch.linspace(0, n_side**2 - 1, 68).long()[:, None].expand(-1, 3)
    return vertices.float(), Topology(faces, uv.float(), landmarks, torch.tensor([[1.0, 0.0, 0.0]]).expand(68, -1))


def scene(vertices_V3: Tensor, batch: int, resolution: int) -> tuple[Tensor, FaceMaps, Camera, Lighting]:
    """A face-sized object 60 cm away that fills most of the image, two lights, random maps; all with gradient."""
    maps = FaceMaps.from_tensor(0.3 * torch.randn(batch, 9, resolution, resolution)).map(_leaf)
    camera = Camera(
        0.1 * torch.randn(batch, 3),
        torch.tensor([0.0, 0.0, -600.0]).repeat(batch, 1),
        torch.full((batch,), 5.0),
        torch.zeros(batch, 2),
    )
    lighting = Lighting(torch.full((batch, 3), 0.3), torch.randn(batch, 2, 3), torch.rand(batch, 2, 3))
    return _leaf(vertices_V3.repeat(batch, 1, 1)), maps, camera.map(_leaf), lighting.map(_leaf)


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_()


def seconds(function: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Fastest of several calls, after a warm-up call: other programs can only add to it."""
    times = []
    for _ in range(repeats + 1):
        _wait(device)
        start = time.perf_counter()
        function()
        _wait(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second of a large copy, reading and writing both counted."""
    source = torch.zeros(1 << 26, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source), 5, device)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--side", type=int, default=100, help="the mesh has side * side vertices")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    Console().print(table(torch.device(arguments.device), arguments.side, arguments.repeats))


def table(device: torch.device, side: int, repeats: int) -> Table:
    """Measure all cases on a device."""
    vertices, topology = ellipsoid(side)
    renderer = TorchRenderer(topology).to(device)
    bandwidth = copy_bandwidth(device)
    machine = f"{device.type}, {torch.get_num_threads()} threads, copies {bandwidth / 1e9:.1f} GB/s"
    title = f"{len(vertices)} vertices, {machine}; times in ms"
    result = Table(title=title)
    for column in ("batch", "maps", "image", "covered", "visibility", "forward", "+ backward", "bound", "ratio"):
        result.add_column(column, justify="right")
    for case in CASES:
        result.add_row(*measure(renderer, vertices, *case, repeats, device, bandwidth))
    return result


def measure(
    renderer: TorchRenderer,
    vertices_V3: Tensor,
    batch: int,
    resolution: int,
    size: int,
    repeats: int,
    device: torch.device,
    bandwidth: float,
) -> list[str]:
    """One row of the table."""
    inputs = tuple(x.to(device) for x in scene(vertices_V3, batch, resolution))
    posed = inputs[0].detach() + inputs[2].translation.detach()[:, None]

    def forward_backward() -> None:
        rendering = renderer(*inputs, size)
        (rendering.image.square().mean() + rendering.landmarks.square().mean()).backward()

    covered = renderer(*inputs, size).mask.mean().item()
    times = [
        seconds(lambda: renderer.visibility(posed, inputs[2], size), repeats, device),
        seconds(lambda: renderer(*inputs, size), repeats, device),
        seconds(forward_backward, repeats, device),
    ]
    floats = 9 * batch * resolution**2 + inputs[0].numel() + 3 * batch * size**2
    bound = 2 * 4 * floats / bandwidth
    cells = [f"{t * 1e3:.1f}" for t in (*times, bound)]
    return [str(batch), str(resolution), str(size), f"{covered:.0%}", *cells, f"{times[-1] / bound:.0f}"]


if __name__ == "__main__":
    main()
