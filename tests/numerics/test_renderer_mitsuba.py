"""The renderer against Mitsuba 3 (Jakob et al., BSD-3), a path tracer that shares no line of code with it.

Mitsuba is told the same scene in its own words: lamps by irradiance or intensity rather than received light, a field of
view rather than a focal length, a sphere by its centre and radius. Linear images are compared where a pixel and its
neighbours see the object; the rest of the difference is Mitsuba's noise and our tessellation.
"""

import numpy as np
import pytest
import torch

from fitdiff import geometry
from fitdiff.colour import srgb_to_linear
from fitdiff.renderer import TorchRenderer, environment
from fitdiff.renderer.bench import ellipsoid
from fitdiff.types import Camera, FaceMaps, Lighting, Topology

mitsuba = pytest.importorskip("mitsuba", reason="Mitsuba 3 is not installed: pip install mitsuba")
SIZE, RADIUS, CENTRE, ALBEDO = 48, 80.0, (12.0, -7.0, -520.0), (0.7, 0.4, 0.2)


@pytest.fixture(scope="module", autouse=True)
def variant():
    mitsuba.set_variant("scalar_rgb")


def camera(rotation=(0.0, 0.0, 0.0), translation=CENTRE, focal=4.2, principal_point=(0.15, -0.1)):
    return Camera(*(torch.tensor([x]) for x in (rotation, translation, focal, principal_point)))


def trace(pose, samples, **objects):
    """Mitsuba's linear image (3, S, S): direct light only, box filter."""
    focal, (x, y) = pose.focal[0].item(), pose.principal_point[0].tolist()
    sensor = {
        "type": "perspective",
        "to_world": mitsuba.ScalarTransform4f().look_at(origin=[0, 0, 0], target=[0, 0, -1], up=[0, 1, 0]),
        "fov": float(np.degrees(2 * np.arctan(1 / focal))),
        "principal_point_offset_x": -x / 2,
        "principal_point_offset_y": y / 2,
        "film": {"type": "hdrfilm", "width": SIZE, "height": SIZE, "rfilter": {"type": "box"}, "pixel_format": "rgb"},
    }
    # Lamps without extent can only be aimed at; a wide sky is found with less noise by following the surface's cosine.
    wide = objects["emitter"]["type"] == "envmap"
    integrator = {"type": "direct", "emitter_samples": int(not wide), "bsdf_samples": int(wide)}
    scene = mitsuba.load_dict({"type": "scene", "integrator": integrator, "sensor": sensor, **objects})
    return torch.from_numpy(np.array(mitsuba.render(scene, spp=samples, seed=1))).permute(2, 0, 1)


def lambertian_sphere():
    reflectance = {"type": "rgb", "value": list(ALBEDO)}
    return {"type": "sphere", "center": list(CENTRE), "radius": RADIUS, "bsdf": {"type": "diffuse", "reflectance": reflectance}}  # fmt: skip # noqa: E501


def render(mesh, maps, pose, lighting, **options):
    """Our linear image (3, S, S), and the pixels that are covered with all their neighbours."""
    vertices, topology = mesh
    rendering = TorchRenderer(topology, **options)(vertices[None], maps, pose, lighting, SIZE)
    inner = -torch.nn.functional.max_pool2d(-rendering.mask, 3, 1, 1)[0, 0] > 0
    assert inner.sum() > 300
    return srgb_to_linear(rendering.image)[0], inner


def render_sphere(lighting):
    plane = torch.ones(1, 3, 4, 4)
    albedo = plane * torch.tensor(ALBEDO).view(1, 3, 1, 1)
    maps = FaceMaps(albedo, 0 * plane, plane * torch.tensor([0.0, 0, 1]).view(1, 3, 1, 1))
    return render(ellipsoid(161, (RADIUS,) * 3), maps, camera(), lighting, antialias=4)


def lamp(direction, irradiance, proximity=None):
    colours = torch.tensor([[irradiance]]) / torch.pi
    return Lighting(torch.zeros(1, 3), torch.tensor([[direction]]), colours, proximity)


def test_lambertian_sphere_under_a_directional_lamp():
    towards, irradiance = (-1.0, 0.7, 0.9), (2.0, 1.5, 1.0)
    emitter = {"type": "directional", "direction": [-x for x in towards], "irradiance": {"type": "rgb", "value": list(irradiance)}}  # fmt: skip # noqa: E501
    expected = trace(camera(), 64, emitter=emitter, sphere=lambertian_sphere())
    image, inner = render_sphere(lamp(towards, irradiance))
    assert expected[:, inner].max() > 0.2
    assert (image - expected).abs()[:, inner].max() < 0.006
    assert (image - expected).abs()[:, inner].mean() < 0.001


@pytest.mark.parametrize("distance", [150.0, 600.0])
def test_lambertian_sphere_under_a_near_lamp(distance):
    towards, irradiance = np.array([0.8, 0.5, 0.7]), np.array([0.6, 0.5, 0.4])
    towards /= np.linalg.norm(towards)
    position = np.array(CENTRE) + distance * towards
    emitter = {"type": "point", "position": position.tolist(), "intensity": {"type": "rgb", "value": (irradiance * distance**2).tolist()}}  # fmt: skip # noqa: E501
    expected = trace(camera(), 64, emitter=emitter, sphere=lambertian_sphere())
    lighting = lamp(towards.tolist(), irradiance.tolist(), torch.tensor([[1 / distance]]))
    image, inner = render_sphere(lighting)
    expected = expected.clamp_max(1)
    assert (image - expected).abs()[:, inner].max() < 0.008
    assert (image - expected).abs()[:, inner].mean() < 0.001


def sky():
    """A smooth map without any symmetry: (1, 3, H, 2H)."""
    height = 64
    v, u = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(2 * height) + 0.5) / (2 * height), indexing="ij")
    turn = 2 * np.pi * u
    channels = (
        1 + 0.8 * np.sin(turn) * np.sin(np.pi * v),
        0.5 + 0.4 * np.cos(turn) * np.sin(np.pi * v),
        1.2 - v,
    )
    return torch.from_numpy(np.stack(channels)[None]).float() * 0.5


def test_lambertian_sphere_in_an_environment_map():
    bitmap = mitsuba.Bitmap(np.ascontiguousarray(sky()[0].permute(1, 2, 0).numpy()))
    expected = trace(camera(), 1024, emitter={"type": "envmap", "bitmap": bitmap}, sphere=lambertian_sphere())
    image, inner = render_sphere(environment.environment_lighting(sky()))
    difference = (image - expected)[:, inner]
    # Noise, and what harmonics of order 3 and more would add.
    assert difference.square().mean().sqrt() < 0.004
    assert difference.mean(1).abs().max() < 0.001
    assert expected[:, inner].std(1).max() > 0.05


def square(half=100.0):
    corners = torch.tensor([[-1.0, 1, 0], [-1, -1, 0], [1, -1, 0], [1, 1, 0]]) * half
    uv = torch.tensor([[0.0, 0], [0, 1], [1, 1], [1, 0]])
    zero = torch.zeros(68, 3, dtype=torch.int64)
    return corners, Topology(torch.tensor([[0, 1, 2], [0, 2, 3]]), uv, zero, torch.ones(68, 3) / 3)


def write_ply(path, vertices, uv, faces):
    """ASCII PLY. As here, v runs down: Mitsuba flips the v of OBJ files on loading, not that of PLY files."""
    header = ["ply", "format ascii 1.0", f"element vertex {len(vertices)}"]
    header += [f"property float {name}" for name in "xyzuv"]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    rows = [f"{x} {y} {z} {u} {v}" for (x, y, z), (u, v) in zip(vertices.tolist(), uv.tolist(), strict=True)]
    path.write_text("\n".join(header + rows + [f"3 {i} {j} {k}" for i, j, k in faces.tolist()]) + "\n")


def test_a_turned_textured_square_off_the_optical_axis(tmp_path):
    # Any mistake in the projection, the camera's axes, the orientation of UVs or the rows of a map shows.
    vertices, topology = square()
    pose = camera(rotation=(0.5, -0.8, 0.3), translation=(15.0, -10.0, -560.0))
    generator = torch.Generator().manual_seed(0)
    pattern = torch.nn.functional.interpolate(torch.rand(1, 3, 5, 5, generator=generator), size=64, mode="bilinear")
    pattern[:, 0] *= torch.linspace(1, 0.2, 64)
    posed = geometry.to_camera_space(vertices[None], pose)[0]
    write_ply(tmp_path / "square.ply", posed, topology.uv, topology.faces)
    bitmap = mitsuba.Bitmap(np.ascontiguousarray(pattern[0].permute(1, 2, 0).numpy()))
    texture = {"type": "bitmap", "bitmap": bitmap, "raw": True, "wrap_mode": "clamp"}
    shape = {"type": "ply", "filename": str(tmp_path / "square.ply"), "bsdf": {"type": "diffuse", "reflectance": texture}}  # fmt: skip # noqa: E501
    towards, irradiance = (0.3, 0.4, 1.0), (3.0, 3.0, 3.0)
    emitter = {"type": "directional", "direction": [-x for x in towards], "irradiance": {"type": "rgb", "value": list(irradiance)}}  # fmt: skip # noqa: E501
    expected = trace(pose, 256, emitter=emitter, shape=shape)
    plain = torch.zeros(1, 3, 64, 64) + torch.tensor([0.0, 0, 1]).view(1, 3, 1, 1)
    maps = FaceMaps(pattern, torch.zeros_like(pattern), plain)
    image, inner = render((vertices, topology), maps, pose, lamp(towards, irradiance), antialias=4)
    assert (image - expected).abs()[:, inner].max() < 0.02
    assert (image - expected).abs()[:, inner].mean() < 0.001
    # Its extent, too: as much light in all.
    assert image[1].sum().item() == pytest.approx(expected[1].sum().item(), rel=0.01)
