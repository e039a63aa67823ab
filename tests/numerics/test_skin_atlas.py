"""The UV atlas against slow references and surfaces with known geometry."""

import math

import pytest
import torch

from fitdiff.data.atlas import (
    UvAtlas,
    fill_uncovered,
    rasterise_uv,
    slopes,
    slopes_to_normals,
    tangent_frame,
)
from fitdiff.types import Topology


def grid_topology(n: int, uv_of) -> Topology:
    """n x n vertices over the unit square with rows downwards; every landmark is the middle vertex."""
    row, column = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    a = (row * n + column)[:-1, :-1].flatten()
    faces = torch.cat([torch.stack([a, a + n, a + 1], 1), torch.stack([a + 1, a + n, a + n + 1], 1)])
    unit = torch.stack([column, row], -1).flatten(0, 1) / (n - 1)
    middle = torch.full((68, 3), (n * n) // 2)
    weights = torch.tensor([1.0, 0.0, 0.0]).expand(68, 3)
    return Topology(faces, uv_of(unit), middle, weights)


def wavy(unit):
    """A smooth one-to-one unwrap that leaves a margin."""
    x, y = unit.unbind(1)
    bent = torch.stack([x + 0.05 * torch.sin(5 * y), y + 0.04 * torch.sin(6 * x)], 1)
    return 0.1 + 0.8 * bent


def curved(unit):
    x, y = unit.unbind(1)
    return torch.stack([200 * x - 100, 100 - 200 * y, 40 * torch.cos(3 * x) * torch.cos(2 * y)], 1)


def test_positions_equal_a_slow_barycentric_search_at_texel_centres():
    topology = grid_topology(12, wavy)
    unit = grid_topology(12, lambda u: u).uv
    mean = curved(unit)
    atlas = UvAtlas.build(mean, topology, 64)
    torch.manual_seed(0)
    seen = 0
    for row, column in torch.randint(0, 64, (60, 2)).tolist():
        centre = torch.tensor([(column + 0.5) / 64, (row + 0.5) / 64], dtype=torch.float64)
        found = None
        for face in topology.faces:
            a, b, c = topology.uv[face].double()
            weights = torch.linalg.solve(torch.stack([b - a, c - a], 1), centre - a)
            weights = torch.cat([1 - weights.sum()[None], weights])
            if (weights >= 0).all():
                found = weights @ mean[face].double()
                break
        assert bool(atlas.mask[row, column]) == (found is not None)
        if found is not None:
            seen += 1
            torch.testing.assert_close(atlas.position[:, row, column].double(), found, atol=2e-3, rtol=0)
    assert seen > 20


def test_the_lowest_triangle_owns_a_shared_edge_and_chunks_do_not_matter(monkeypatch):
    topology = grid_topology(9, lambda unit: unit)  # at size 32 many texel centres' lines run along edges
    whole = rasterise_uv(topology.uv, topology.faces, 32)
    monkeypatch.setattr("fitdiff.data.atlas.CANDIDATES_PER_CHUNK", 50)
    for a, b in zip(whole, rasterise_uv(topology.uv, topology.faces, 32), strict=True):
        assert torch.equal(a, b)
    assert (whole[0] >= 0).all()
    torch.testing.assert_close(whole[1].sum(2), torch.ones(32, 32))


def test_a_triangle_without_area_owns_nothing():
    uv = torch.tensor([[0.2, 0.2], [0.2, 0.2], [0.8, 0.8], [0.1, 0.9], [0.9, 0.9], [0.5, 0.1]])
    triangle, weights = rasterise_uv(uv, torch.tensor([[0, 1, 2], [3, 4, 5]]), 32)
    assert set(triangle.unique().tolist()) == {-1, 1}
    assert torch.isfinite(weights).all()


def test_a_flat_height_gives_exactly_the_up_normal():
    atlas = UvAtlas.build(curved(grid_topology(12, lambda u: u).uv), grid_topology(12, wavy), 64)
    normals = slopes_to_normals(slopes(torch.full((1, 1, 64, 64), 3.5), atlas.frame))
    assert torch.equal(normals[0, 2], torch.ones(64, 64))
    assert torch.equal(normals[0, :2], torch.zeros(2, 64, 64))


@pytest.mark.parametrize("shear", [0.0, 0.4])
def test_a_height_ramp_on_a_plane_gives_the_analytic_normal(shear):
    """Height 0.3 x + 0.2 y over a plane in mm: the surface leans back to the right and up, so n = (-.3, -.2, 1)/|.|."""
    topology = grid_topology(5, lambda unit: unit)
    x, y = topology.uv.unbind(1)
    mean = torch.stack([150 * x + shear * 150 * y, -90 * y, torch.zeros_like(x)], 1)
    atlas = UvAtlas.build(mean, topology, 32)
    height = 0.3 * atlas.position[0] + 0.2 * atlas.position[1]
    normals = slopes_to_normals(slopes(height[None, None], atlas.frame))[0]
    expected = torch.tensor([-0.3, -0.2, 1.0]) / math.sqrt(1 + 0.3**2 + 0.2**2)
    inner = normals[:, 2:-2, 2:-2]
    torch.testing.assert_close(inner, expected[:, None, None].expand_as(inner), atol=2e-4, rtol=0)


def test_the_frame_measures_a_texel_in_mm():
    topology = grid_topology(5, lambda unit: unit)
    x, y = topology.uv.unbind(1)
    atlas = UvAtlas.build(torch.stack([150 * x + 60 * y, -90 * y, 0 * x], 1), topology, 64)
    inner = atlas.frame[:, 4:-4, 4:-4].mean((1, 2))
    torch.testing.assert_close(inner, torch.tensor([150 / 64, 60 / 64, 90 / 64]), rtol=1e-3, atol=1e-4)


def test_collapsed_texels_keep_a_finite_slope():
    position = torch.stack(torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="xy")).flip(1)
    position = torch.cat([position, torch.zeros(1, 32, 32)])
    position[:, 10:14, 10:14] = 5.0
    frame = tangent_frame(position, torch.ones(32, 32, dtype=torch.bool))
    assert frame[[0, 2]].min() >= 0.2 * 0.99


def test_the_chart_of_a_plane_is_its_mm_at_every_size():
    topology = grid_topology(5, lambda unit: unit)
    x, y = topology.uv.unbind(1)
    mean = torch.stack([150 * (x - 0.5), 90 * (0.5 - y), 0 * x], 1)
    charts = [UvAtlas.build(mean, topology, size).chart for size in (32, 64, 256)]
    torch.testing.assert_close(charts[0][0], torch.linspace(-75, 75, 65), atol=0.05, rtol=0)
    torch.testing.assert_close(charts[0][1], torch.linspace(45, -45, 65), atol=0.05, rtol=0)
    assert torch.equal(charts[0], charts[1])
    assert torch.equal(charts[0], charts[2])


def test_filling_keeps_the_inside_and_continues_smoothly():
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    mask = x**2 + y**2 < 0.6
    values = torch.stack([torch.full_like(x, 7.0), x])
    filled = fill_uncovered(torch.where(mask, values, torch.nan).nan_to_num(), mask)
    assert torch.equal(filled[:, mask], values[:, mask])
    torch.testing.assert_close(filled[0], values[0])
    assert filled[1].diff(dim=0).abs().max() < 0.1
    assert filled[1].diff(dim=1).abs().max() < 0.1
    assert filled[1].abs().max() <= 0.8


def test_bad_sizes_and_empty_squares_are_refused():
    topology = grid_topology(5, lambda unit: unit)
    mean = curved(topology.uv)
    with pytest.raises(ValueError, match="got a map size of 100, expected a power of two from 32 to 2048"):
        UvAtlas.build(mean, topology, 100)
    outside = grid_topology(5, lambda unit: unit + 3)
    with pytest.raises(ValueError, match=r"no texel of 64x64 is covered.*\[3, 4\]"):
        UvAtlas.build(mean, outside, 64)
