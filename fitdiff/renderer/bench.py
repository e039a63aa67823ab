"""How long does a render take, beside other renderers and the memory's speed?  `python -m fitdiff.renderer.bench`

All renderers that are installed take turns, one call each, over and over: what else runs on the machine slows all of
them alike. The fastest call says what the program needs (others can only add to it), the median how busy the machine
was.

The bound is the traffic of one forward and backward pass that nobody can avoid: read the maps and vertices, write the
image, and the same again for their gradients, at the machine's measured copy bandwidth. The share of it that is reached
says how much a perfect fusion of all steps could still win.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fitdiff import geometry
from fitdiff.benchmark import Tasks, copy_bandwidth, peak_memory, take_turns
from fitdiff.command import run_command, usable_device
from fitdiff.renderer.auto import AutomaticRenderer
from fitdiff.renderer.compiled import plain_torch
from fitdiff.renderer.kaolin_renderer import KaolinRenderer
from fitdiff.renderer.rivals import Scene, rivals
from fitdiff.renderer.torch_renderer import TorchRenderer
from fitdiff.renderer.visibility import rasterize_torch, visible_triangles
from fitdiff.renderer.warp_renderer import WarpRenderer
from fitdiff.types import Camera, FaceMaps, Lighting, Rendering, Topology

TASKS = ("visibility", "forward", "backward")
COLUMNS = ("renderer", "visibility", "forward", "+ backward", "MB", "bandwidth")


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


def scene(vertices_V3: Tensor, batch: int, resolution: int) -> Scene:
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


class PlainTorchRenderer(TorchRenderer):
    """`renderer=torch` without compiled loops: what runs on a device that has none."""

    def forward(self, *arguments, **options) -> Rendering:
        with plain_torch():
            return super().forward(*arguments, **options)

    def visibility(self, vertices_BV3: Tensor, camera: Camera, size: int) -> Tensor:
        return visible_triangles(vertices_BV3, camera, self.faces, size, rasterize=rasterize_torch)


OURS = {
    "torch, no loops": PlainTorchRenderer,
    "torch": TorchRenderer,
    "warp": WarpRenderer,
    "kaolin": KaolinRenderer,
    "auto": AutomaticRenderer,
}


@dataclass
class Options:
    """What the command line sets."""

    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    threads: int = torch.get_num_threads()
    side: int = 100  # the mesh has side * side vertices
    batch: list[int] = field(default_factory=lambda: [1, 8])  # faces at once
    maps: list[int] = field(default_factory=lambda: [512])  # side of the maps in texels
    size: list[int] = field(default_factory=lambda: [224, 512])  # side of the image in pixels
    repeats: int = 9


def main() -> None:
    """Print one table for each case."""
    run_command(_print_tables, Options, __doc__)


def _print_tables(options: Options, _: Console) -> None:
    torch.set_num_threads(options.threads)
    cases = list(itertools.product(options.batch, options.maps, options.size))
    for result in tables(usable_device(options.device), cases, options.side, options.repeats):
        Console().print(result)


def tables(device: torch.device, cases: Sequence[tuple[int, int, int]], side: int, repeats: int) -> Iterator[Table]:
    """One table for each (batch, side of the maps, side of the image): a row for each renderer that works here."""
    bandwidth = copy_bandwidth(device)
    machine = f"{device.type}, {torch.get_num_threads()} threads, copies {bandwidth / 1e9:.1f} GB/s"
    vertices, topology = ellipsoid(side)
    for batch, resolution, size in cases:
        torch.manual_seed(0)
        inputs = tuple(x.to(device) for x in scene(vertices, batch, resolution))
        contenders = ours(inputs, topology, size, device) | rivals(inputs, topology, size)
        times = take_turns(contenders, repeats, device)
        covered = TorchRenderer(topology).to(device)(*inputs, size).mask.mean().item()
        bound = bound_bytes(batch, resolution, size, len(vertices)) / bandwidth
        title = f"batch {batch}, maps {resolution}², image {size}² ({covered:.0%} covered), {len(vertices)} vertices"
        caption = (
            f"ms per image, fastest / median of {repeats}; {machine}; bound {bound / batch * 1e3:.2f} ms per image"
        )
        result = Table(title=title, caption=caption)
        for column in COLUMNS:
            result.add_column(column, justify="left" if column == "renderer" else "right", no_wrap=True)
        for name, tasks in contenders.items():
            result.add_row(name, *cells(times[name], batch, bound, peak_memory(list(tasks.values())[-1], device)))
        yield result


def ours(inputs: Scene, topology: Topology, size: int, device: torch.device) -> dict[str, Tasks]:
    """The tasks of our own backends that work on the device."""
    return {
        name: tasks(kind(topology).to(device), inputs, size)
        for name, kind in OURS.items()
        if kind is not KaolinRenderer or _kaolin_works(topology, device)
    }


def _kaolin_works(topology: Topology, device: torch.device) -> bool:
    try:
        KaolinRenderer(topology)
    except ImportError:
        return False
    return device.type == "cuda"


def tasks(renderer: TorchRenderer, inputs: Scene, size: int) -> Tasks:
    """What to time of one of ours; `backward` is forward and backward, to fresh gradients of all inputs."""
    posed = geometry.to_camera_space(inputs[0], inputs[2]).detach()
    leaves: list[Tensor] = []
    for record in inputs:
        leaves += [record] if isinstance(record, Tensor) else [x for x in vars(record).values() if x is not None]

    def backward() -> object:
        rendering = renderer(*inputs, size)
        return torch.autograd.grad(rendering.image.square().mean() + rendering.landmarks.square().mean(), leaves)

    return {
        "visibility": lambda: renderer.visibility(posed, inputs[2], size),
        "forward": lambda: renderer(*inputs, size),
        "backward": backward,
    }


def cells(times: dict[str, list[float]], batch: int, bound: float, peak: float | None) -> list[str]:
    """Columns of one row: what a renderer cannot do, or a platform cannot tell, stays empty."""
    shown = [
        f"{min(times[task]) / batch * 1e3:.1f} / {statistics.median(times[task]) / batch * 1e3:.1f}"
        if task in times
        else ""
        for task in TASKS
    ]
    fraction = f"{bound / min(times['backward']):.1%}" if "backward" in times else ""
    return [*shown, "" if peak is None else f"{peak / 1e6:.0f}", fraction]


def bound_bytes(batch: int, resolution: int, size: int, n_vertices: int) -> int:
    """Least traffic of a forward and backward pass: nine map channels, vertices and image, each with its gradient."""
    return 2 * 4 * batch * (9 * resolution**2 + 3 * n_vertices + 3 * size**2)


if __name__ == "__main__":
    main()
