"""Other renderers beside ours, for `bench`: each is asked for what it can do, one image after another.

They are dev tools, never a fallback. Left out: nvdiffrast (non-commercial, not on the package index) and whatever
needs an OpenGL context.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import torch
from torch import Tensor

from fitdiff import geometry
from fitdiff.benchmark import Tasks
from fitdiff.types import Camera, FaceMaps, Lighting, Topology

Scene = tuple[Tensor, FaceMaps, Camera, Lighting]


def rivals(inputs: Scene, topology: Topology, size: int) -> dict[str, Tasks]:
    """What every rival that is installed can do: `visibility`, `forward`, `backward` (which includes forward).

    Meshes are uploaded and trees are built before the clock runs.
    """
    makers = {"mitsuba scalar_rgb": ("mitsuba", mitsuba_tasks), "embree": ("embreex", embree_tasks)}
    return {
        name: tasks(inputs, topology, size)
        for name, (package, tasks) in makers.items()
        if importlib.util.find_spec(package)
    }


def embree_tasks(inputs: Scene, topology: Topology, size: int) -> Tasks:
    """First hit of one ray a pixel; visibility only."""
    import trimesh
    from trimesh.ray.ray_pyembree import RayMeshIntersector

    vertices, camera = _camera_space(inputs)
    tracers = [RayMeshIntersector(trimesh.Trimesh(v.numpy(), topology.faces.numpy(), process=False)) for v in vertices]
    centre = (2 * np.arange(size) + 1) / size - 1
    x, y = np.meshgrid(centre, -centre)
    rays = []
    for focal, (cx, cy) in zip(camera.focal.tolist(), camera.principal_point.tolist(), strict=True):
        rays.append(np.stack([(x - cx) / focal, (y - cy) / focal, -np.ones_like(x)], -1).reshape(-1, 3))
    pairs = list(zip(tracers, rays, strict=True))
    return {"visibility": lambda: [t.intersects_first(np.zeros_like(r), r) for t, r in pairs]}


def mitsuba_tasks(inputs: Scene, topology: Topology, size: int) -> Tasks:
    """One sample a pixel: ids of the triangles, and direct light on the diffuse map alone (no normal map, no gloss)."""
    import mitsuba

    mitsuba.set_variant("scalar_rgb")
    vertices, camera = _camera_space(inputs)
    maps, lighting = (record.detach() for record in (inputs[1], inputs[3]))
    scenes = [
        mitsuba.load_dict(
            {"type": "scene", "mesh": _mesh(mitsuba, v, topology, maps.diffuse_albedo[i % len(maps.diffuse_albedo)])}
            | {"sensor": _sensor(mitsuba, camera, i, size)}
            | {f"lamp{n}": lamp for n, lamp in enumerate(_lamps(lighting, i))}
        )
        for i, v in enumerate(vertices)
    ]
    ids = mitsuba.load_dict({"type": "aov", "aovs": "id:prim_index"})
    direct = mitsuba.load_dict({"type": "direct", "emitter_samples": 1, "bsdf_samples": 0})
    return {
        "visibility": lambda: [np.array(mitsuba.render(s, integrator=ids, spp=1)) for s in scenes],
        "forward": lambda: [np.array(mitsuba.render(s, integrator=direct, spp=1)) for s in scenes],
    }


def _camera_space(inputs: Scene) -> tuple[Tensor, Camera]:
    camera = inputs[2].detach().to("cpu")
    return geometry.to_camera_space(inputs[0].detach().cpu(), camera), camera


def _sensor(mitsuba, camera: Camera, i: int, size: int) -> dict[str, object]:
    x, y = camera.principal_point[i].tolist()
    return {
        "type": "perspective",
        "to_world": mitsuba.ScalarTransform4f().look_at(origin=[0, 0, 0], target=[0, 0, -1], up=[0, 1, 0]),
        "fov": float(np.degrees(2 * np.arctan(1 / camera.focal[i].item()))),
        "principal_point_offset_x": -x / 2,
        "principal_point_offset_y": y / 2,
        "film": {"type": "hdrfilm", "width": size, "height": size, "rfilter": {"type": "box"}},
        "sampler": {"type": "independent", "sample_count": 1},
    }


def _lamps(lighting: Lighting, i: int) -> list[dict[str, object]]:
    """The directional lamps of one image, and its ambient light."""
    lamps: list[dict[str, object]] = [
        {"type": "constant", "radiance": {"type": "rgb", "value": lighting.ambient[i].tolist()}}
    ]
    for direction, colour in zip(lighting.directions[i], lighting.colours[i], strict=True):
        irradiance = {"type": "rgb", "value": (colour * torch.pi).tolist()}
        lamps.append({"type": "directional", "direction": (-direction).tolist(), "irradiance": irradiance})
    return lamps


def _mesh(mitsuba, vertices_V3: Tensor, topology: Topology, albedo_3RR: Tensor):
    """A mesh with texture coordinates and a diffuse bitmap, linear."""
    bitmap = mitsuba.Bitmap(albedo_3RR.cpu().permute(1, 2, 0).contiguous().numpy())
    texture = {"type": "bitmap", "bitmap": bitmap, "raw": True}
    properties = mitsuba.Properties()
    properties["bsdf"] = mitsuba.load_dict({"type": "diffuse", "reflectance": texture})
    mesh = mitsuba.Mesh("face", len(vertices_V3), len(topology.faces), has_vertex_texcoords=True, props=properties)
    parameters = mitsuba.traverse(mesh)
    parameters["vertex_positions"] = vertices_V3.flatten().numpy()
    parameters["faces"] = topology.faces.flatten().numpy()
    parameters["vertex_texcoords"] = topology.uv.flatten().numpy()
    parameters.update()
    return mesh
