"""Visibility: the compiled, the vectorised and the Warp z-buffer against each other and brute force in float64."""

import functools
import multiprocessing
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from fitdiff.renderer import visibility, warp_kernel
from fitdiff.renderer.bench import ellipsoid
from fitdiff.types import Camera

TRIANGLE = torch.tensor([[0, 1, 2]])


def camera(batch=1, focal=4.0):
    return Camera(torch.zeros(batch, 3), torch.zeros(batch, 3), torch.full((batch,), focal), torch.zeros(batch, 2))


def drawn(points, faces, size, cull=True):
    """Rasterise with all implementations, which must agree bit for bit."""
    compiled = visibility.rasterize_numba(points, faces, size, cull)
    assert torch.equal(compiled, visibility.rasterize_torch(points, faces, size, cull))
    assert torch.equal(compiled, warp_kernel.rasterize(points, faces, size, cull))
    return compiled


def brute_force(points, faces, size, cull):
    """(S, S) ids and a bool mask of the pixels that no tie of edges or depths makes ambiguous; float64, one image."""
    rows, columns = np.mgrid[:size, :size] + 0.5
    nearest, second = np.zeros((2, size, size))
    ids, clear = np.full((size, size), -1), np.ones((size, size), bool)
    for face, corners in enumerate(points.double().numpy()[faces.numpy()]):
        (x, y, w) = corners.T
        area = (x[1] - x[0]) * (y[2] - y[0]) - (y[1] - y[0]) * (x[2] - x[0])
        if w.min() <= 0 or area == 0 or (cull and area > 0):
            continue
        b = []
        for j, k in ((1, 2), (2, 0), (0, 1)):
            edge = (x[k] - x[j]) * (rows - y[j]) - (y[k] - y[j]) * (columns - x[j])
            clear &= np.abs(edge) / np.hypot(x[k] - x[j], y[k] - y[j]) > 1e-4
            b.append(edge / area)
        depth = np.where(np.min(b, 0) > 0, np.tensordot(w, b, 1), 0)
        ids = np.where(depth > nearest, face, ids)
        nearest, second = np.maximum(nearest, depth), np.maximum(second, np.minimum(nearest, depth))
    clear &= (nearest == 0) | (nearest - second > 1e-6 * nearest)
    return ids, clear


def random_soup(seed, n=60, size=40):
    """Random triangles, some larger than the image, some partly outside, a few behind the near plane."""
    torch.manual_seed(seed)
    xy = torch.rand(n, 1, 2) * size + torch.randn(n, 3, 2) * size * torch.rand(n, 1, 1) ** 3
    inverse_depth = (torch.rand(n, 3, 1) * 0.01 + 0.001) * (torch.rand(n, 3, 1) > 0.02)
    return torch.cat([xy, inverse_depth], -1).view(1, -1, 3), torch.arange(3 * n).view(n, 3)


@pytest.mark.parametrize("cull", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_random_triangles_match_brute_force(seed, cull):
    points, faces = random_soup(seed)
    expected, clear = brute_force(points[0], faces, 40, cull)
    assert clear.mean() > 0.9
    assert (expected >= 0).mean() > 0.25
    assert np.array_equal(drawn(points, faces, 40, cull)[0].numpy()[clear], expected[clear])


@pytest.mark.parametrize("turn", [0.0, 0.7])
def test_ellipsoid_matches_brute_force(turn):
    vertices, topology = ellipsoid(24)
    turned = (
        vertices @ torch.tensor([[np.cos(turn), 0, -np.sin(turn)], [0, 1, 0], [np.sin(turn), 0, np.cos(turn)]]).float()
    )
    points = visibility.screen_points((turned + torch.tensor([0.3, -0.2, -600]))[None], camera(), 64)
    expected, clear = brute_force(points[0], topology.faces, 64, True)
    assert np.array_equal(drawn(points, topology.faces, 64)[0].numpy()[clear], expected[clear])


def test_batch_equals_its_items():
    points, faces = zip(*(random_soup(seed) for seed in range(3)), strict=True)
    together = drawn(torch.cat(points), faces[0], 40)
    for i in range(3):
        assert torch.equal(together[i : i + 1], drawn(points[i], faces[0], 40))


def test_chunks_do_not_change_the_answer(monkeypatch):
    points, faces = random_soup(5)
    whole = visibility.rasterize_torch(points, faces, 40, False)
    monkeypatch.setattr(visibility, "CHUNK", 100)
    assert torch.equal(visibility.rasterize_torch(points, faces, 40, False), whole)


def test_shared_edges_through_pixel_centres_neither_overlap_nor_crack():
    # All vertices on the half-pixel grid: most edges pass through centres, many centres are vertices.
    torch.manual_seed(0)
    size, n = 16, 9
    grid = torch.stack(torch.meshgrid(torch.arange(n), torch.arange(n), indexing="xy"), -1).float() * 4 - 8
    jitter = torch.randint(-3, 4, (n, n, 2)) / 2
    points = torch.cat([(grid + jitter + 0.5).view(1, -1, 2), torch.ones(1, n * n, 1)], -1)
    _, topology = ellipsoid(n)
    alone = [drawn(points, face[None], size, cull=False) >= 0 for face in topology.faces]
    assert torch.equal(torch.stack(alone).sum(0), torch.ones(1, size, size, dtype=torch.int64))


def test_top_left_rule():
    # A square from centre to centre owns its top and left borders, not its bottom and right ones.
    square = torch.tensor([[1.5, 1.5, 1], [1.5, 4.5, 1], [4.5, 4.5, 1], [4.5, 1.5, 1]])[None]
    covered = drawn(square, torch.tensor([[0, 1, 2], [0, 2, 3]]), 6)[0] >= 0
    expected = torch.zeros(6, 6, dtype=torch.bool)
    expected[1:4, 1:4] = True
    assert torch.equal(covered, expected)


def test_depth_is_correct_in_perspective():
    # Two crossing triangles: one level at depth 150, one from depth 100 (left) to 300 (right). In space they meet where
    # the slope reaches 150, a quarter of its length, but that is half of it in the image: 1/150 = (1/100 + 1/300) / 2.
    level = [[0, -8, 1 / 150], [0, 24, 1 / 150], [16, 8, 1 / 150]]
    slope = [[0, -8, 1 / 100], [0, 24, 1 / 100], [16, 8, 1 / 300]]
    ids = drawn(torch.tensor([level + slope]), torch.tensor([[0, 1, 2], [3, 4, 5]]), 16)[0]
    assert ids[8, :15].tolist() == [1] * 8 + [0] * 7


def test_back_faces_are_culled_on_request_only():
    inside_out = torch.tensor([[[1.0, 1, 1], [8, 1, 1], [1, 8, 1]]])
    assert drawn(inside_out, TRIANGLE, 8, cull=True).max() == -1
    assert drawn(inside_out, TRIANGLE, 8, cull=False).max() == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 3e38, 1e18])
def test_wild_coordinates_do_no_harm(bad):
    points = torch.tensor([[[1.0, 1, 1], [1, 8, 1], [8, 1, 1], [bad, 2, 1]]])
    faces = torch.tensor([[0, 1, 3], [0, 1, 2]])
    ids = drawn(points, faces, 8, cull=False)
    assert ids[0, 5, 1] in (0, 1)
    assert (ids >= 0).sum() >= (drawn(points, faces[1:], 8, cull=False) >= 0).sum()


def test_triangles_that_reach_behind_the_near_plane_are_dropped():
    vertices = torch.tensor([[[-1.0, -1, -10], [1, -1, -10], [0, 1, 0.5]], [[-1, -1, -10], [1, -1, -10], [0, 1, -0.5]]])
    assert visibility.visible_triangles(vertices, camera(2), TRIANGLE, 8).max() == -1
    in_front = vertices - torch.tensor([0, 0, 5.0])
    assert visibility.visible_triangles(in_front, camera(2), TRIANGLE, 8).amax((1, 2)).tolist() == [0, 0]


def test_nearer_face_hides_the_other_whatever_their_order():
    far, near = (
        torch.tensor([[-9.0, -9, -20], [9, -9, -20], [0, 9, -20]]),
        torch.tensor([[-1.0, -1, -10], [1, -1, -10], [0, 1, -10]]),
    )
    for order, winner in (((far, near), 1), ((near, far), 0)):
        ids = visibility.visible_triangles(torch.cat(order)[None], camera(), torch.arange(6).view(2, 3), 9)
        assert ids[0, 4, 4] == winner


def test_empty_images():
    vertices, topology = ellipsoid(5)
    points = visibility.screen_points((vertices + torch.tensor([5000.0, 0, -600]))[None], camera(), 12)
    assert drawn(points, topology.faces, 12).eq(-1).all()


def test_principal_point_moves_the_picture():
    vertices, topology = ellipsoid(20)
    vertices = (vertices + torch.tensor([0, 0, -900.0]))[None]
    straight = visibility.visible_triangles(vertices, camera(), topology.faces, 32)
    moved = replace(camera(), principal_point=torch.tensor([[2 / 32 * 3, 2 / 32 * 5]]))
    shifted = visibility.visible_triangles(vertices, moved, topology.faces, 32)
    assert torch.equal(shifted >= 0, torch.roll(straight >= 0, (-5, 3), (1, 2)))


def test_only_one_overload_is_ever_cached():
    # Several overloads would race for the cache's file names when processes start at once.
    kernel = visibility._rasterize_kernel.kernel()
    assert len(kernel.signatures) == 1
    with pytest.raises(TypeError, match="No matching definition"):
        kernel(0, np.zeros((1, 3, 3)), np.zeros((1, 3), np.int64), True, np.zeros((1, 4, 4), np.int64))


def test_warp_compiles_in_several_processes_at_once_and_says_nothing(tmp_path):
    code = (
        "import torch; from fitdiff.renderer.warp_kernel import rasterize as r;"
        "print(r(torch.tensor([[[1., 1, 1], [1, 8, 1], [8, 1, 1]]]), torch.tensor([[0, 1, 2]]), 8, True).sum().item())"
    )
    environment = {k: v for k, v in os.environ.items() if k != "WARP_CACHE_PATH"} | {"FITDIFF_CACHE": str(tmp_path)}
    start = functools.partial(subprocess.Popen, env=environment, text=True, stdout=subprocess.PIPE)
    running = [start([sys.executable, "-c", code]) for _ in range(3)]
    # Of 64 pixels 21 are covered by triangle 0, the others are -1.
    assert [process.communicate()[0] for process in running] == ["-43\n"] * 3
    assert list((tmp_path / "warp").glob("*/wp_*"))


def test_warp_survives_a_fork():
    # Data loaders fork their workers.
    points, faces = random_soup(1)
    expected = drawn(points, faces, 40)
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=lambda: there.send_bytes(warp_kernel.rasterize(points, faces, 40, True).numpy()))
    child.start()
    assert here.poll(30)
    assert here.recv_bytes() == expected.numpy().tobytes()
    child.join()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("rasterize", [visibility.rasterize_torch, warp_kernel.rasterize])
def test_cuda_equals_cpu(rasterize):
    points, faces = random_soup(7, n=3000, size=64)
    expected = drawn(points, faces, 64)
    for _ in range(3):
        assert torch.equal(rasterize(points.cuda(), faces.cuda(), 64, True).cpu(), expected)
