"""Construction, messages, registration, and kaolin's place behind the same interface."""

import importlib.util
import sys
import types
from dataclasses import replace

import pytest
import torch

from fitdiff import registry
from fitdiff.renderer import KaolinRenderer, TorchRenderer, WarpRenderer, visibility
from fitdiff.renderer.auto import fastest
from fitdiff.renderer.bench import ellipsoid, scene, tables, tasks
from fitdiff.renderer.rivals import embree_tasks
from fitdiff.types import Renderer

VERTICES, TOPOLOGY = ellipsoid(12)


def inputs(batch=2):
    torch.manual_seed(0)
    return [x.detach() for x in scene(VERTICES, batch, 8)]


def test_built_from_its_config():
    node = registry.config_of("renderer", "torch", shininess=12.0, antialias=2)
    renderer = registry.build(node, "renderer", topology=TOPOLOGY)
    assert isinstance(renderer, Renderer)
    assert renderer.shininess == 12.0
    assert renderer(*inputs(), 16).image.shape == (2, 3, 16, 16)


@pytest.mark.parametrize(("option", "value"), [("antialias", 0), ("shininess", 0.0)])
def test_bad_options_are_named(option, value):
    with pytest.raises(ValueError, match=option):
        TorchRenderer(TOPOLOGY, **{option: value})


def test_wrong_number_of_vertices():
    vertices, *rest = inputs()
    with pytest.raises(ValueError, match="got 143 vertices, the topology has 144"):
        TorchRenderer(TOPOLOGY)(vertices[:, :-1], *rest, 16)


def test_wrong_batch_of_maps():
    vertices, maps, camera, lighting = inputs(3)
    with pytest.raises(ValueError, match="2 sets of maps for 3 faces"):
        TorchRenderer(TOPOLOGY)(vertices, maps[:2], camera, lighting, 16)


def test_maps_that_do_not_fit_one_another_are_refused():
    """The compiled look-ups do not check bounds: what passes here must be safe there."""
    vertices, maps, camera, lighting = inputs(2)
    maps = maps.map(lambda x: x.repeat_interleave(4, -1).repeat_interleave(4, -2))
    side = maps.normals.shape[-1]
    for wrong in (
        {"occlusion": torch.ones(2, 1, side // 2, side // 2)},
        {"occlusion": torch.ones(3, 1, side, side)},
        {"specular_albedo": maps.specular_albedo[:1]},
    ):
        with pytest.raises(ValueError, match="one size and batch"):
            TorchRenderer(TOPOLOGY)(vertices, replace(maps, **wrong), camera, lighting, 8)
    baked = torch.rand(1, 1, side, side)
    shown = [
        TorchRenderer(TOPOLOGY)(vertices, replace(maps, occlusion=occlusion), camera, lighting, 8).image
        for occlusion in (baked, baked.repeat(2, 1, 1, 1))
    ]
    assert torch.equal(*shown)


def test_wrong_batch_of_cameras_and_lights():
    vertices, maps, camera, lighting = inputs(3)
    with pytest.raises(ValueError, match="1 cameras for 3 faces"):
        TorchRenderer(TOPOLOGY)(vertices, maps, camera[:1], lighting, 16)
    with pytest.raises(ValueError, match="2 lightings for 3 faces"):
        TorchRenderer(TOPOLOGY)(vertices, maps, camera, lighting[:2], 16)


def test_it_has_no_weights_and_saves_nothing():
    renderer = TorchRenderer(TOPOLOGY)
    assert not list(renderer.parameters())
    assert not renderer.state_dict()


def test_buffers_move_with_the_module():
    assert {b.device.type for b in TorchRenderer(TOPOLOGY).to("meta").buffers()} == {"meta"}


def pretend_kaolin(monkeypatch, version, cuda=True):
    monkeypatch.setattr("importlib.metadata.version", lambda name: version)
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)


def test_kaolin_says_what_it_needs():
    if importlib.util.find_spec("kaolin"):
        pytest.skip("kaolin is installed")
    with pytest.raises(ImportError, match=r"not installed.*CUDA device and NVIDIA's kaolin.*empty placeholder"):
        KaolinRenderer(TOPOLOGY)


@pytest.mark.parametrize("version", ["0.1", "0.12.0", "0.19.0rc1", "1.0"])
def test_other_versions_of_kaolin_are_refused(monkeypatch, version):
    pretend_kaolin(monkeypatch, version)
    with pytest.raises(ImportError, match=rf"kaolin {version} is installed\. .* 0\.13 to 0\.18"):
        KaolinRenderer(TOPOLOGY)


def test_kaolin_without_cuda_is_refused(monkeypatch):
    pretend_kaolin(monkeypatch, "0.18.0", cuda=False)
    with pytest.raises(ImportError, match="torch finds no CUDA device"):
        KaolinRenderer(TOPOLOGY)


def test_warp_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "warp", None)
    with pytest.raises(ImportError, match=r"pip install warp-lang.*renderer=torch does without"):
        WarpRenderer(TOPOLOGY)


def test_auto_takes_warp_on_cuda_only_and_does_without_it(monkeypatch):
    fastest.cache_clear()
    assert fastest("cpu") is None
    assert fastest("cuda").__module__ == "fitdiff.renderer.warp_kernel"
    fastest.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert fastest("cuda") is None
    fastest.cache_clear()


def stand_in_rasterize(height, width, face_vertices_z, face_vertices_image, face_features, valid_faces=None):
    """kaolin.render.mesh.rasterize as documented: NDC with y up, (B, F, 3) depths of which the largest wins."""
    batch, n_faces = face_vertices_z.shape[:2]
    assert face_features.shape == (batch, n_faces, 3, 1)
    assert face_vertices_image.shape == (batch, n_faces, 3, 2)
    pixels = (face_vertices_image * torch.tensor([1.0, -1.0]) + 1) * (width / 2)
    depth = face_vertices_z.where(valid_faces[..., None], 0.0)
    points = torch.cat([pixels, depth[..., None]], -1).view(batch, -1, 3)
    faces = torch.arange(3 * n_faces).view(-1, 3)
    return None, visibility.rasterize_torch(points, faces, height, False)


def test_kaolin_renders_what_torch_renders(monkeypatch):
    pretend_kaolin(monkeypatch, "0.13.0")
    modules = {name: types.ModuleType(name) for name in ("kaolin", "kaolin.render", "kaolin.render.mesh")}
    modules["kaolin.render.mesh"].rasterize = stand_in_rasterize
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    vertices, maps, camera, lighting = inputs()
    turned = replace(camera, rotation=camera.rotation + torch.tensor([0.0, 1.2, 0.0]))
    expected = TorchRenderer(TOPOLOGY)(vertices, maps, turned, lighting, 24)
    rendering = KaolinRenderer(TOPOLOGY)(vertices, maps, turned, lighting, 24)
    assert torch.equal(rendering.mask, expected.mask)
    assert torch.allclose(rendering.image, expected.image, atol=1e-5)


def test_benchmark_fills_its_tables(monkeypatch):
    monkeypatch.setattr("fitdiff.renderer.bench.copy_bandwidth", lambda device: 1e9)
    for result in tables(torch.device("cpu"), [(1, 8, 16), (2, 8, 16)], 8, 2):
        columns = {column.header: list(column.cells) for column in result.columns}
        assert {"torch, no loops", "torch", "warp", "auto"} <= set(columns["renderer"])
        assert all("/" in cell for cell in columns["+ backward"][:4])
        assert all("/" in cell for cell in columns["visibility"])


def test_rivals_see_the_same_triangles():
    pytest.importorskip("embreex")
    scene_, size = inputs(), 24
    seen = tasks(TorchRenderer(TOPOLOGY), scene_, size)["visibility"]()
    for mine, theirs in zip(seen, embree_tasks(scene_, TOPOLOGY, size)["visibility"](), strict=True):
        assert (mine.flatten().numpy() == theirs).mean() > 0.99


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_renders_what_the_cpu_renders():
    expected = TorchRenderer(TOPOLOGY)(*inputs(), 32)
    rendering = TorchRenderer(TOPOLOGY).cuda()(*(x.cuda() for x in inputs()), 32).to("cpu")
    assert (rendering.mask != expected.mask).float().mean() < 0.01
    same = rendering.mask.eq(expected.mask).expand_as(rendering.image)
    assert (rendering.image - expected.image).abs()[same].quantile(0.99) < 1e-3
