"""Compiled loops against the torch code that they replace, in values and gradients, and against float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf

from fitdiff import geometry
from fitdiff.renderer import interpolation, texture
from fitdiff.renderer.bench import ellipsoid, scene
from fitdiff.renderer.compiled import for_each_image
from fitdiff.renderer.interpolation import Fragments, barycentrics, gather_corners, interpolate_visible
from fitdiff.renderer.texture_kernels import BlockMeans, LookUp
from fitdiff.renderer.visibility import visible_triangles

VERTICES, TOPOLOGY = ellipsoid(12)
COUNTS = (50, 0, 70)


def with_gradients(function, tensors, dtype=torch.float32):
    """The result in a precision, then its gradients for one fixed random direction."""
    leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]
    result = function(*leaves)
    direction = torch.randn(result.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    return result.detach(), *torch.autograd.grad(result, leaves, direction)


def assert_close(got, wanted, tolerance=2e-5):
    for a, b in zip(got, wanted, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= tolerance * max(1, b.abs().max())


@pytest.fixture
def view():
    """Vertices in camera space, camera and fragments of a batch of three, of which one image is empty."""
    torch.manual_seed(1)
    vertices, _, camera, _ = scene(VERTICES + torch.randn(VERTICES.shape), 3, 4)
    camera = camera.detach()
    camera.translation[1, 0] = 5000
    camera.principal_point.copy_(0.1 * torch.randn(3, 2))
    vertices = geometry.to_camera_space(vertices.detach(), camera)
    triangle = visible_triangles(vertices, camera, TOPOLOGY.faces, 30)
    return vertices, camera, Fragments.from_visibility(triangle)


def test_interpolation(view):
    vertices, camera, fragments = view
    assert fragments.counts[1] == 0
    attributes = torch.cat([vertices, torch.randn(*vertices.shape[:2], 4)], -1)
    tensors = attributes, torch.cat([camera.principal_point, camera.focal[:, None]], 1)

    def readable(attributes, optics):
        corners = gather_corners(attributes, fragments.corners(TOPOLOGY.faces, attributes.shape[1]))
        return (barycentrics(corners[:3], optics, fragments) * corners).sum(1)

    def compiled(attributes, optics):
        return interpolation._CompiledInterpolation.apply(attributes, optics, TOPOLOGY.faces, fragments)

    expected = with_gradients(readable, tensors, torch.float64)
    assert_close(with_gradients(compiled, tensors), expected)
    assert_close(with_gradients(readable, tensors), expected)


def test_points_lie_on_their_pixels_rays(view):
    vertices, camera, fragments = view
    points = interpolate_visible(vertices, TOPOLOGY.faces, camera, fragments)
    focal, centre = fragments.spread(camera.focal), fragments.spread(camera.principal_point)
    seen = focal * points[:2] / -points[2] + centre
    assert (seen - fragments.centres(seen)).abs().max() < 1e-5


@pytest.mark.parametrize("shared", [False, True])
def test_look_up_is_grid_sample(shared):
    torch.manual_seed(0)
    maps = torch.randn(1 if shared else 3, 4, 6, 9)
    uv = torch.rand(2, sum(COUNTS)) * 1.4 - 0.2  # some places are outside, where the border goes on
    runs = (sum(COUNTS),) if shared else COUNTS

    def readable(maps, uv):
        grids = (2 * uv.t() - 1)[None, None].split(runs, 2)
        pairs = zip(maps.split(1), grids, strict=True)
        looked_up = [nnf.grid_sample(m, g, padding_mode="border", align_corners=False) for m, g in pairs]
        return torch.cat(looked_up, -1)[0, :, 0]

    expected = with_gradients(readable, (maps, uv), torch.float64)
    assert_close(with_gradients(lambda m, p: LookUp.apply(m, p, COUNTS), (maps, uv)), expected)
    assert_close(with_gradients(lambda m, p: texture.look_up(m, p, COUNTS), (maps, uv), torch.float64), expected, 1e-12)


def test_look_up_of_wild_places_stays_in_the_map():
    maps = torch.randn(1, 2, 5, 5)
    wild = torch.tensor([float("nan"), float("inf"), -float("inf"), 3e38, -3e38])
    values = LookUp.apply(maps, torch.stack([wild, wild]), (5,))
    assert torch.equal(values[:, 1], maps[0, :, 4, 4])
    assert torch.equal(values[:, 2], maps[0, :, 0, 0])
    assert values.isfinite().all()


@pytest.mark.parametrize("n", [2, 3, 4])
def test_block_means(n):
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 24, 12), torch.randn(2, 1, 24, 12)
    expected = with_gradients(lambda *m: nnf.avg_pool2d(torch.cat(m, 1), n), maps, torch.float64)
    assert_close(with_gradients(lambda *m: BlockMeans.apply(n, *m), maps), expected)


def test_maps_that_are_not_contiguous():
    torch.manual_seed(0)
    packed = torch.randn(2, 9, 8, 8)
    maps = [m.transpose(2, 3) for m in packed.split(3, 1)]
    assert_close([BlockMeans.apply(2, *maps)], [nnf.avg_pool2d(torch.cat(maps, 1), 2)])


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_each_image_is_visited_once_whatever_the_threads(threads):
    before, visits = torch.get_num_threads(), np.zeros(5, int)

    def visit(image, step):
        visits[image] += step

    try:
        torch.set_num_threads(threads)
        for_each_image(visit, 5, 1)
    finally:
        torch.set_num_threads(before)
    assert visits.tolist() == [1] * 5


def test_a_failing_kernel_is_heard():
    with pytest.raises(ZeroDivisionError):
        for_each_image(lambda image: 1 // image, 1)


def test_inputs_that_changed_before_the_gradient_are_noticed():
    maps, uv = torch.randn(1, 2, 5, 5), torch.rand(2, 7).requires_grad_()
    values = LookUp.apply(maps, uv, (7,))
    maps.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        values.sum().backward()
