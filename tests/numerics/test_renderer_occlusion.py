"""Baked occlusion against cavities whose answer is known."""

from dataclasses import replace

import torch

from fitdiff.colour import srgb_to_linear
from fitdiff.renderer import TorchRenderer, occlusion
from fitdiff.renderer.bench import ellipsoid, scene


def test_nothing_hides_the_outside_of_a_dome():
    vertices, topology = ellipsoid(24)
    got = occlusion.vertex_occlusion(vertices.double(), topology.faces, 128, 128)
    assert got.min() > 0.95
    assert got.mean() > 0.998


def test_inside_a_hemispherical_bowl_half_of_the_light_arrives_everywhere():
    # Between any two points of a sphere the form factor is the same, so the bowl hides its share of the sphere: half.
    vertices, topology = ellipsoid(40, (80.0, 80.0, 80.0))
    inside_out = topology.faces.flip(1)
    got = occlusion.vertex_occlusion(vertices.double(), inside_out, 512, 256)
    below_the_rim = vertices[:, 2] > 15
    assert (got[below_the_rim] - 0.5).abs().max() < 0.06
    assert (got[below_the_rim].mean() - 0.5).abs() < 0.01


def test_the_map_holds_the_vertices_values_and_dims_the_surroundings_only():
    vertices, topology = ellipsoid(24, (80.0, 80.0, 80.0))
    inside_out = replace(topology, faces=topology.faces.flip(1))
    baked = occlusion.bake_occlusion(vertices, inside_out, 32)
    assert baked.shape == (1, 1, 32, 32)
    assert (baked[..., 8:24, 8:24] - 0.5).abs().max() < 0.08
    _, maps, camera, lighting = (x.detach() for x in scene(vertices, 1, 32))
    renderer = TorchRenderer(topology)
    lighting = replace(lighting, ambient=torch.full((1, 3), 0.5))
    only_lamps = replace(lighting, ambient=torch.zeros(1, 3))

    def shown(maps, light):
        return srgb_to_linear(renderer(vertices[None], maps, camera, light, 32).image)

    dim = replace(maps, occlusion=torch.full((1, 1, 32, 32), 0.25))
    assert torch.allclose(shown(dim, only_lamps), shown(maps, only_lamps), atol=1e-6)
    bright, dark = (shown(m, replace(lighting, colours=0 * lighting.colours)) for m in (maps, dim))
    assert torch.allclose(dark, 0.25 * bright, atol=1e-5)
