"""The exported files, read back by other programs' readers (pygltflib, trimesh, Pillow)."""

import io
import math
import os
from dataclasses import replace

import numpy as np
import pygltflib
import pytest
import torch
import trimesh
from PIL import Image

from fitdiff.avatar import (
    Avatar,
    AvatarError,
    expression_offsets,
    load_avatar,
    load_maps,
    save_glb,
    save_maps,
    save_obj,
)
from fitdiff.avatar.export import roughness
from fitdiff.avatar.relight import frontal_camera
from fitdiff.colour import linear_to_srgb, srgb_to_linear
from fitdiff.renderer import TorchRenderer
from fitdiff.storage import write_atomically
from fitdiff.types import FaceMaps, Topology

DTYPES = {pygltflib.FLOAT: "<f4", pygltflib.UNSIGNED_INT: "<u4", pygltflib.UNSIGNED_SHORT: "<u2"}
EYE = torch.eye(3)
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


def sphere_patch(n: int = 24) -> tuple[torch.Tensor, Topology]:
    """The front of a sphere of 100 mm with longitude along u and latitude against v."""
    t = torch.linspace(0, 1, n)
    v, u = torch.meshgrid(t, t, indexing="ij")
    longitude, latitude = (u - 0.5) * 2.4, (0.5 - v) * 2.2
    points = [longitude.sin() * latitude.cos(), latitude.sin(), longitude.cos() * latitude.cos()]
    ids = torch.arange(n * n).reshape(n, n)
    a, b, c, d = ids[:-1, :-1], ids[1:, :-1], ids[1:, 1:], ids[:-1, 1:]
    faces = torch.cat([torch.stack([a, b, c], -1).reshape(-1, 3), torch.stack([a, c, d], -1).reshape(-1, 3)])
    uv = torch.stack([u, v], -1).reshape(-1, 2)
    weights = torch.tensor([1.0, 0.0, 0.0]).repeat(68, 1)
    return 100 * torch.stack(points, -1).reshape(-1, 3), Topology(faces, uv, torch.zeros(68, 3).long(), weights)


def random_maps(side: int = 16) -> FaceMaps:
    generator = torch.Generator().manual_seed(0)
    normals = torch.randn(1, 3, side, side, generator=generator) * 0.3 + torch.tensor([0, 0, 1.0]).view(1, 3, 1, 1)
    diffuse, specular = torch.rand(2, 1, 3, side, side, generator=generator)
    return FaceMaps(diffuse, specular, torch.nn.functional.normalize(normals, dim=1))


def tilted(normals_P3: torch.Tensor, tilt: torch.Tensor) -> torch.Tensor:
    """Closed form: points of the patch's sphere by their normals, tilted towards +u (east) and -v (north)."""
    longitude = torch.atan2(normals_P3[:, 0], normals_P3[:, 2])
    east = torch.stack([longitude.cos(), torch.zeros_like(longitude), -longitude.sin()], 1)
    north = torch.linalg.cross(normals_P3, east)
    return tilt[0] * east + tilt[1] * north + tilt[2] * normals_P3


@pytest.fixture
def avatar() -> Avatar:
    vertices, topology = sphere_patch()
    smile = torch.zeros_like(vertices)
    smile[vertices[:, 1] < 0] = torch.tensor([0.0, 5.0, 2.0])
    return Avatar(vertices, topology, random_maps(), {"smile": smile, "brow ü": -smile}, 62.0, {"licence": "CC0-1.0"})


class Glb:
    """Reads a GLB through pygltflib and numpy only."""

    def __init__(self, path: os.PathLike) -> None:
        self.document = pygltflib.GLTF2().load(str(path))
        self.mesh = self.document.meshes[0]
        self.primitive = self.mesh.primitives[0]
        self.material = self.document.materials[0]

    def bytes_of(self, view: int) -> bytes:
        view = self.document.bufferViews[view]
        return self.document.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]

    def array(self, accessor: int) -> np.ndarray:
        accessor = self.document.accessors[accessor]
        width, dtype = WIDTHS[accessor.type], DTYPES[accessor.componentType]
        if accessor.bufferView is None:
            values = np.zeros(accessor.count * width, dtype)
        else:
            values = np.frombuffer(self.bytes_of(accessor.bufferView), dtype)
        assert values.size == accessor.count * width
        values = values.reshape(accessor.count, -1)
        if accessor.sparse:
            indices, replaced = accessor.sparse.indices, accessor.sparse.values
            rows = np.frombuffer(self.bytes_of(indices.bufferView), DTYPES[indices.componentType])
            assert len(rows) == accessor.sparse.count > 0
            assert (np.diff(rows.astype(int)) > 0).all()  # the format demands strictly increasing indices
            values[rows] = np.frombuffer(self.bytes_of(replaced.bufferView), dtype).reshape(-1, width)
        np.testing.assert_array_equal(accessor.max or values.max(0), values.max(0))
        return values

    def image(self, texture: int) -> np.ndarray:
        image = self.document.images[self.document.textures[texture].source]
        assert image.mimeType == "image/png"
        return np.array(Image.open(io.BytesIO(self.bytes_of(image.bufferView))))


@pytest.fixture
def glb(avatar, tmp_path) -> Glb:
    return Glb(save_glb(avatar, tmp_path / "face.glb"))


def stored(image_13RR: torch.Tensor) -> np.ndarray:
    return np.round(image_13RR[0].movedim(0, -1).numpy() * 255)


def test_glb_geometry_is_in_metres_with_the_topology_kept(glb, avatar):
    attributes = glb.primitive.attributes
    np.testing.assert_allclose(glb.array(attributes.POSITION), avatar.vertices.numpy() / 1000, atol=1e-8)
    np.testing.assert_array_equal(glb.array(attributes.TEXCOORD_0), avatar.topology.uv.numpy())
    np.testing.assert_array_equal(glb.array(glb.primitive.indices).reshape(-1, 3), avatar.topology.faces.numpy())
    accessor = glb.document.accessors[attributes.POSITION]
    np.testing.assert_array_equal(accessor.max, glb.array(attributes.POSITION).max(0))


def test_glb_normals_point_out_of_the_sphere(glb, avatar):
    cosine = (glb.array(glb.primitive.attributes.NORMAL) * avatar.vertices.numpy() / 100).sum(1)
    assert cosine.min() > math.cos(math.radians(5))  # 5 degrees: at the rim, faces lie on one side only


def test_glb_alignment_and_length(tmp_path, avatar):
    data = save_glb(avatar, tmp_path / "face.glb").read_bytes()
    assert len(data) % 4 == 0
    assert int.from_bytes(data[8:12], "little") == len(data)


def test_glb_is_deterministic(avatar, tmp_path):
    assert save_glb(avatar, tmp_path / "a.glb").read_bytes() == save_glb(avatar, tmp_path / "b.glb").read_bytes()


def test_glb_textures_decode_to_the_maps(glb, avatar):
    diffuse = glb.image(glb.material.pbrMetallicRoughness.baseColorTexture.index)
    np.testing.assert_array_equal(diffuse, stored(linear_to_srgb(avatar.maps.diffuse_albedo)))
    normals = glb.image(glb.material.normalTexture.index) / 127.5 - 1
    np.testing.assert_allclose(normals, avatar.maps.normals[0].movedim(0, -1), atol=1.001 / 255)


def test_glb_specular_extension_gives_f0(glb, avatar):
    assert glb.document.extensionsUsed == ["KHR_materials_specular"]
    extension = glb.material.extensions["KHR_materials_specular"]
    assert "specularTexture" not in extension  # nothing else scales F0
    assert extension.get("specularFactor", 1.0) == 1.0
    texture = torch.from_numpy(glb.image(extension["specularColorTexture"]["index"])).movedim(-1, 0) / 255
    f0 = (0.04 * torch.tensor(extension["specularColorFactor"]).view(3, 1, 1) * srgb_to_linear(texture)).clamp(max=1)
    expected = 0.08 * avatar.maps.specular_albedo[0]
    # Half a step of the file, whose widest step (at white) is 2.28 / 255 of the range in linear light.
    assert (f0 - expected).abs().max() < 0.08 * 1.14 / 255
    assert (f0 - expected).abs()[expected < 0.04].max() < 0.08 / 255  # the range of skin


def test_glb_material_is_a_dielectric_of_the_renderers_lobe(glb, avatar):
    pbr = glb.material.pbrMetallicRoughness
    assert pbr.metallicFactor == 0
    assert glb.material.doubleSided
    alpha, k = pbr.roughnessFactor**2, avatar.shininess
    assert 1 / (math.pi * alpha**2) == pytest.approx((k + 2) / (2 * math.pi))  # peaks of GGX and Blinn-Phong
    assert roughness(0) == 1


def test_glb_normal_map_frame_is_ours(tmp_path):
    """A tilted map, shaded from the file's own data alone, turns the normal along +u and -v of the sphere."""
    vertices, topology = sphere_patch()
    tilt = torch.tensor([0.48, 0.6, 0.64])
    maps = FaceMaps(*torch.full((2, 1, 3, 4, 4), 0.5), tilt.view(1, 3, 1, 1).expand(1, 3, 4, 4))
    glb = Glb(save_glb(Avatar(vertices, topology, maps), tmp_path / "face.glb"))
    attributes = glb.primitive.attributes
    normal, tangent = glb.array(attributes.NORMAL), glb.array(attributes.TANGENT)
    np.testing.assert_allclose(np.linalg.norm(tangent[:, :3], axis=1), 1, atol=1e-6)
    assert set(tangent[:, 3]) == {1.0}
    bitangent = np.cross(normal, tangent[:, :3]) * tangent[:, 3:]
    x, y, z = glb.image(glb.material.normalTexture.index)[0, 0] / 127.5 - 1
    shading = x * tangent[:, :3] + y * bitangent + z * normal

    expected = tilted(vertices / 100, tilt).numpy()
    assert (shading * expected).sum(1).min() > math.cos(math.radians(6))


def test_the_renderer_reads_the_map_in_the_same_frame():
    vertices, topology = sphere_patch()
    renderer, camera = TorchRenderer(topology), frontal_camera(vertices[None])
    tilt = torch.tensor([0.48, 0.6, 0.64])
    maps = [FaceMaps(*torch.full((2, 1, 3, 4, 4), 0.5), n.view(1, 3, 1, 1).expand(1, 3, 4, 4)) for n in (EYE[2], tilt)]
    flat, bent = (renderer.surface(vertices[None], m, camera, 48) for m in maps)
    inside = flat.mask[0, 0] > 0
    normals = flat.normals[0, :, inside].T
    assert (bent.normals[0, :, inside].T * tilted(normals, tilt)).sum(1).min() > math.cos(math.radians(6))


def test_glb_tangent_sign_of_mirrored_uv(tmp_path):
    vertices, topology = sphere_patch()
    mirrored = topology.uv * torch.tensor([-1.0, 1.0]) + torch.tensor([1.0, 0.0])
    topology = Topology(topology.faces, mirrored, topology.landmark_vertices, topology.landmark_weights)
    glb = Glb(save_glb(Avatar(vertices, topology, random_maps()), tmp_path / "face.glb"))
    tangent = glb.array(glb.primitive.attributes.TANGENT)
    assert set(tangent[:, 3]) == {-1.0}
    assert (tangent[:, 0] < 0.0).all()  # along +u, which now runs to the left


def test_glb_frames_are_unit_where_a_vertex_has_no_face(tmp_path):
    vertices, topology = sphere_patch()
    topology = Topology(topology.faces[:5], topology.uv, topology.landmark_vertices, topology.landmark_weights)
    glb = Glb(save_glb(Avatar(vertices, topology, random_maps()), tmp_path / "face.glb"))
    normal, tangent = (glb.array(getattr(glb.primitive.attributes, name)) for name in ("NORMAL", "TANGENT"))
    np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(tangent[:, :3], axis=1), 1, atol=1e-6)
    np.testing.assert_allclose((normal * tangent[:, :3]).sum(1), 0, atol=1e-6)


def test_glb_expressions_are_named_morph_targets(glb, avatar):
    assert glb.mesh.extras["targetNames"] == ["smile", "brow ü"]
    assert glb.mesh.weights == [0, 0]
    target = glb.primitive.targets[0]
    np.testing.assert_allclose(glb.array(target["POSITION"]), avatar.expressions["smile"] / 1000, atol=1e-8)
    moved = glb.array(glb.primitive.attributes.NORMAL) + glb.array(target["NORMAL"])
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1, atol=1e-6)
    faces, positions = avatar.topology.faces.numpy(), (avatar.vertices + avatar.expressions["smile"]).numpy()
    a, b, c = positions[faces].swapaxes(0, 1)
    face_normals = np.cross(b - a, c - a)  # weighted by area
    slow = np.stack([face_normals[(faces == i).any(1)].sum(0) for i in range(len(positions))])
    np.testing.assert_allclose(moved, slow / np.linalg.norm(slow, axis=1, keepdims=True), atol=1e-5)


def test_glb_stores_only_what_an_expression_moves(glb, avatar, tmp_path):
    position = glb.document.accessors[glb.primitive.targets[0]["POSITION"]]
    assert position.sparse.count == int((avatar.expressions["smile"].norm(dim=1) > 0).sum()) < position.count
    still = Avatar(avatar.vertices, avatar.topology, avatar.maps, {"still": torch.zeros_like(avatar.vertices)})
    target = Glb(save_glb(still, tmp_path / "still.glb")).primitive.targets[0]
    assert Glb(tmp_path / "still.glb").document.accessors[target["POSITION"]].sparse is None  # count 0 is not allowed
    everywhere = Avatar(avatar.vertices, avatar.topology, avatar.maps, {"grow": avatar.vertices * 0.1})
    grown = Glb(save_glb(everywhere, tmp_path / "grown.glb"))
    accessor = grown.document.accessors[grown.primitive.targets[0]["POSITION"]]
    assert accessor.sparse is None
    assert accessor.bufferView is not None


def test_glb_round_trip_without_a_checkpoint(avatar, tmp_path):
    save_glb(avatar, tmp_path / "avatar.glb")
    read = load_avatar(tmp_path)
    torch.testing.assert_close(read.vertices, avatar.vertices, atol=1e-4, rtol=0)
    assert torch.equal(read.topology.faces, avatar.topology.faces)
    assert torch.equal(read.topology.uv, avatar.topology.uv)
    assert list(read.expressions) == list(avatar.expressions)
    for name, offsets in avatar.expressions.items():
        torch.testing.assert_close(read.expressions[name], offsets, atol=1e-3, rtol=0)  # left out below a micrometre
    assert read.shininess == pytest.approx(avatar.shininess)
    assert read.provenance == avatar.provenance
    for key, half_step in (("diffuse_albedo", 1.14), ("specular_albedo", 1.14), ("normals", 2.0)):
        assert (getattr(read.maps, key) - getattr(avatar.maps, key)).abs().max() < half_step / 255


def test_load_avatar_names_what_is_wrong(avatar, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds 0 \.glb files"):
        load_avatar(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"gone\.glb: no such avatar"):
        load_avatar(tmp_path / "gone.glb")
    (tmp_path / "text.glb").write_text("not a model")
    with pytest.raises(AvatarError, match="not a binary glTF"):
        load_avatar(tmp_path / "text.glb")
    data = save_glb(avatar, tmp_path / "face.glb").read_bytes()
    (tmp_path / "half.glb").write_bytes(data[: len(data) // 2])
    with pytest.raises(AvatarError, match=r"half\.glb: damaged"):
        load_avatar(tmp_path / "half.glb")
    (tmp_path / "other.glb").write_bytes(data.replace(b'"generator":"FitDiff"', b'"generator":"Blender"'))
    with pytest.raises(AvatarError, match="not written by FitDiff"):
        load_avatar(tmp_path / "other.glb")


def test_a_glb_whose_triangles_name_absent_vertices_is_refused(avatar, tmp_path):
    glb = Glb(save_glb(avatar, tmp_path / "face.glb"))
    first = glb.array(glb.primitive.indices).ravel()[:9].astype("<u4").tobytes()
    data = (tmp_path / "face.glb").read_bytes()
    assert data.count(first) == 1
    (tmp_path / "far.glb").write_bytes(data.replace(first, np.uint32(2_000_000_000).tobytes() + first[4:]))
    n = len(avatar.vertices)
    with pytest.raises(AvatarError, match=rf"far\.glb: damaged .*faces name vertices 0 to 2000000000, .*0 to {n - 1}"):
        load_avatar(tmp_path / "far.glb")


@pytest.mark.parametrize("part", ["faces", "landmark_vertices"])
@pytest.mark.parametrize("wrong", [-1, 10**6])
def test_an_avatar_has_the_vertices_that_it_names(avatar, part, wrong):
    ids = getattr(avatar.topology, part).clone()
    ids[0, 0] = wrong
    with pytest.raises(ValueError, match=f"name vertices .*{wrong}.*, expected 0 to"):
        replace(avatar, topology=replace(avatar.topology, **{part: ids}))


def test_glb_without_expressions_has_no_morph_targets(avatar, tmp_path):
    glb = Glb(save_glb(Avatar(avatar.vertices, avatar.topology, avatar.maps), tmp_path / "face.glb"))
    assert not glb.primitive.targets
    assert glb.document.asset.extras == {}


def test_glb_carries_its_provenance(glb):
    assert glb.document.asset.copyright == "CC0-1.0"
    assert glb.document.asset.extras == {"licence": "CC0-1.0"}
    assert glb.document.asset.generator == "FitDiff"


def test_glb_opens_in_trimesh(avatar, tmp_path):
    (mesh,) = trimesh.load(save_glb(avatar, tmp_path / "Zoë 1.glb"), process=False).geometry.values()
    np.testing.assert_allclose(mesh.vertices, avatar.vertices / 1000, atol=1e-8)
    np.testing.assert_array_equal(mesh.faces, avatar.topology.faces)
    np.testing.assert_allclose(mesh.visual.uv[:, 1], 1 - avatar.topology.uv[:, 1], atol=1e-6)  # trimesh's v is up
    np.testing.assert_array_equal(
        np.array(mesh.visual.material.baseColorTexture.convert("RGB")),
        stored(linear_to_srgb(avatar.maps.diffuse_albedo)),
    )


def test_exports_leave_the_graph_alone(avatar, tmp_path):
    """An avatar straight from an optimiser still has gradients attached."""
    attached = Avatar(avatar.vertices.clone().requires_grad_(), avatar.topology, avatar.maps.map(torch.clone))
    attached.maps.normals.requires_grad_()
    assert save_glb(attached, tmp_path / "face.glb").exists()
    assert save_obj(attached, tmp_path / "face.obj").exists()


@pytest.mark.parametrize("name", ["face.obj", "my face.obj", "Zoë Müller 顔.obj"])
def test_obj_round_trip(avatar, tmp_path, name):
    path = save_obj(avatar, tmp_path / "a folder" / name)
    mesh = trimesh.load(path, process=False, maintain_order=True)
    np.testing.assert_allclose(mesh.vertices, avatar.vertices, atol=1e-5)
    np.testing.assert_array_equal(mesh.faces, avatar.topology.faces)
    flipped = avatar.topology.uv * torch.tensor([1.0, -1.0]) + torch.tensor([0.0, 1.0])
    np.testing.assert_allclose(mesh.visual.uv, flipped, atol=1e-6)
    np.testing.assert_array_equal(
        np.array(mesh.visual.material.image.convert("RGB")), stored(linear_to_srgb(avatar.maps.diffuse_albedo))
    )


def test_obj_says_its_unit_and_names_files_that_exist(avatar, tmp_path):
    path = save_obj(avatar, tmp_path / "my face.obj")
    text = path.read_text()
    assert "# units: millimetres" in text
    assert "# licence: CC0-1.0" in text
    assert "vn " in text
    (material,) = [line.split(maxsplit=1)[1] for line in text.splitlines() if line.startswith("mtllib")]
    settings = dict(line.split(maxsplit=1) for line in (tmp_path / material).read_text().splitlines())
    assert float(settings["Ns"]) == avatar.shininess
    # Seen along the light, L at angle t has its half vector at t / 2; the hemisphere must reflect 0.08 in total.
    t = torch.linspace(0, math.pi / 2, 10001, dtype=torch.float64)
    reflected = torch.trapezoid(2 * t.sin() * t.cos() * (t / 2).cos() ** avatar.shininess, t)
    assert float(settings["Ks"].split()[0]) * reflected == pytest.approx(0.08, rel=1e-3)
    for key in ("map_Kd", "map_Ks", "norm"):
        assert " " not in settings[key]
        assert Image.open(tmp_path / settings[key]).size == (16, 16)


def test_maps_round_trip_within_eight_bits(avatar, tmp_path):
    assert [path.name for path in save_maps(avatar.maps, tmp_path / "ü maps")] == [
        "diffuse.png",
        "specular.png",
        "normals.png",
    ]
    read = load_maps(tmp_path / "ü maps")
    half_step = 0.501 / 255
    assert read.diffuse_albedo.dtype == torch.float32
    difference = linear_to_srgb(read.diffuse_albedo) - linear_to_srgb(avatar.maps.diffuse_albedo)
    assert difference.abs().max() < half_step
    assert (read.specular_albedo - avatar.maps.specular_albedo).abs().max() < half_step
    assert (read.normals - avatar.maps.normals).abs().max() < 4 * half_step  # [-1, 1], and normalised again
    torch.testing.assert_close(read.normals.norm(dim=1), torch.ones(1, 16, 16))


def test_load_maps_names_what_is_wrong(avatar, tmp_path):
    save_maps(avatar.maps, tmp_path)
    (tmp_path / "specular.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"specular\.png: missing"):
        load_maps(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "specular.png")
    with pytest.raises(ValueError, match="three square images of one size"):
        load_maps(tmp_path)


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    path = write_atomically(tmp_path / "face.glb", b"old")

    def full_disk(descriptor: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_export_keeps_the_old_file(avatar, tmp_path, monkeypatch):
    path = save_glb(avatar, tmp_path / "face.glb")
    before = path.read_bytes()

    def broken(*args: object) -> None:
        raise OSError("interrupted")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="interrupted"):
        save_glb(Avatar(avatar.vertices * 2, avatar.topology, avatar.maps), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_written_files_have_ordinary_permissions(tmp_path):
    reference = tmp_path / "reference"
    reference.write_bytes(b"")
    assert write_atomically(tmp_path / "file", b"").stat().st_mode == reference.stat().st_mode


def test_avatar_refuses_shapes_that_disagree(avatar):
    with pytest.raises(ValueError, match=r"vertices is \(10, 3\), the topology needs \(576, 3\)"):
        Avatar(avatar.vertices[:10], avatar.topology, avatar.maps)
    with pytest.raises(ValueError, match=r"smile is \(576, 2\)"):
        Avatar(avatar.vertices, avatar.topology, avatar.maps, {"smile": avatar.vertices[:, :2]})
    with pytest.raises(ValueError, match=r"maps are \(2, 3, 16, 16\), expected \(1, 3, R, R\)"):
        Avatar(avatar.vertices, avatar.topology, FaceMaps.cat([avatar.maps, avatar.maps]))


def test_expression_offsets_are_the_columns_of_a_linear_model():
    class Linear:
        n_expression, expression_names = 2, ("smile", "frown")
        basis = torch.arange(12.0).reshape(2, 2, 3)

        def __call__(self, identity_BK, expression_BE=None):
            neutral = identity_BK.sum(1)[:, None, None].expand(-1, 2, 3)
            return (
                neutral if expression_BE is None else neutral + torch.einsum("be,evc->bvc", expression_BE, self.basis)
            )

    offsets = expression_offsets(Linear(), torch.tensor([[1.0, 2.0]]))
    assert list(offsets) == ["smile", "frown"]
    torch.testing.assert_close(offsets["frown"], Linear.basis[1])
