"""`data=folder`: what is exported comes back, faults are found before work, and only what changed is converted."""

import json
import re

import numpy as np
import pytest
import torch
from folder_people import PORTRAIT, SIZE, Parts, parts, write_people
from PIL import Image

from fitdiff.data.folder import Folder, FolderError
from fitdiff.data.folder.export import KEYS
from fitdiff.data.folder.layout import find_people, hash_of_name, split
from fitdiff.data.folder.maps import to_tangent_space
from fitdiff.data.folder.rules import Rules
from fitdiff.data.folder.scenes import pad_lamps, read_scene
from fitdiff.data.shards import dequantise
from fitdiff.geometry import rotation_matrix
from fitdiff.registry import build, config_of
from fitdiff.types import SCENE_KEYS, FaceMaps, Scene
from tests.conftest import write_exr


@pytest.fixture
def toy() -> Parts:
    return parts()


def folder(toy: Parts, root, **options) -> Folder:
    options = {"views": 2, "portrait_size": PORTRAIT, "workers": 1, "cache": str(root.parent / "cache"), **options}
    return build(config_of("data", "folder", path=str(root), **options), "data", **vars(toy))


def everyone(data: Folder) -> dict[str, dict[str, torch.Tensor]]:
    """Converted people by name."""
    return {
        person.name: {key: value[0] for key, value in getattr(data, side).gather([i], KEYS).items()}
        for side, people in data.splits.items()
        for i, person in enumerate(people)
    }


def test_exported_people_come_back(toy, tmp_path):
    written = write_people(tmp_path / "people", toy, 6)
    data = folder(toy, tmp_path / "people")
    data.prepare()
    read = everyone(data)
    assert read.keys() == written.keys()
    assert len(data.train) + len(data.held_out) == 6
    for name, person in written.items():
        assert {key: value.shape for key, value in read[name].items()} == {k: person[k].shape for k in KEYS}
        for key in KEYS:
            assert read[name][key].dtype == person[key].dtype
            # Maps are decoded to light and unit normals and stored again: half a level of rounding, twice.
            tolerance = 1 if key == "maps" else 0
            torch.testing.assert_close(read[name][key], person[key], atol=tolerance, rtol=0)


def test_what_training_reads_is_there(toy, tmp_path):
    write_people(tmp_path / "people", toy, 4)
    data = folder(toy, tmp_path / "people")
    data.prepare()
    batch = data.train.gather([0, 1], ("maps", "image", "landmarks", *SCENE_KEYS))
    assert batch["maps"].shape == (2, 9, SIZE, SIZE)
    scene = Scene.from_tensors({key: batch[key][:, 0] for key in SCENE_KEYS})
    maps = FaceMaps.from_tensor(dequantise(batch["maps"]))
    vertices = toy.shape_model(data.train.load("identity")[:2], scene.expression)
    rendering = toy.renderer(vertices, maps, scene.camera, scene.lighting, PORTRAIT)
    error = (rendering.image - batch["image"][:, 0] / 255).abs()
    assert error.mean() < 0.005  # the portrait is the render of the sample's own shape, maps and scene
    assert (rendering.landmarks - batch["landmarks"][:, 0]).abs().max() < 1e-4


def test_only_what_changed_is_converted(toy, tmp_path):
    write_people(tmp_path / "people", toy, 4)
    first = folder(toy, tmp_path / "people")
    first.prepare()
    cached = {path: path.stat().st_mtime_ns for path in (first.cache / "people").iterdir()}
    assert len(cached) == 4
    write_people(tmp_path / "more", toy, 5)
    (tmp_path / "more" / "person 4, é").rename(tmp_path / "people" / "new")
    second = folder(toy, tmp_path / "people")
    assert second.content != first.content
    second.prepare()
    after = {path: path.stat().st_mtime_ns for path in (second.cache / "people").iterdir()}
    assert len(after) == 5
    assert all(after[path] == time for path, time in cached.items())
    assert folder(toy, tmp_path / "people").content == second.content  # the same state is the same


def test_one_photo_with_more_lamps_costs_one_conversion(toy, tmp_path):
    root = tmp_path / "people"
    written = write_people(root, toy, 4)
    first = folder(toy, root)
    first.prepare()
    cached = {path: path.stat().st_mtime_ns for path in (first.cache / "people").iterdir()}
    changed = sorted(written)[0]
    path = root / changed / "view0.json"
    scene = json.loads(path.read_text())
    lamps = {"directions": [[0, 1, 0]] * 4, "colours": [[0.5] * 3] * 4, "proximity": [0.001] * 4}
    path.write_text(json.dumps({**scene, **lamps, "licence": "mine"}))
    second = folder(toy, root)
    second.prepare()
    after = {path: path.stat().st_mtime_ns for path in (second.cache / "people").iterdir()}
    assert len(after) == 5
    assert all(after[path] == time for path, time in cached.items())
    for name, person in everyone(second).items():
        assert person["directions"].shape == person["colours"].shape == (2, 4, 3)
        assert person["proximity"].shape == (2, 4)
        kept = slice(int(name == changed), 2)  # the changed photo has no dark lamp
        for key in ("directions", "colours", "proximity"):
            assert torch.equal(person[key][kept, :2], written[name][key][kept])
        assert (person["colours"][kept, 2:] == 0).all()
        assert torch.equal(person["directions"][kept, 2:], torch.tensor([0.0, 0, 1]).expand(2 - kept.start, 2, 3))
        assert torch.equal(person["image"], written[name]["image"])
    assert (everyone(second)[changed]["colours"][0] == 0.5).all()


def test_an_interrupted_conversion_goes_on(toy, tmp_path, monkeypatch):
    from fitdiff.data.folder.maker import FolderMaker

    write_people(tmp_path / "people", toy, 4)
    make, done = FolderMaker.make, []

    def interrupted(self, indices):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(indices)
        return make(self, indices)

    monkeypatch.setattr(FolderMaker, "make", interrupted)
    with pytest.raises(KeyboardInterrupt):
        folder(toy, tmp_path / "people").prepare()
    monkeypatch.setattr(FolderMaker, "make", make)
    data = folder(toy, tmp_path / "people")
    cached = {path: path.stat().st_mtime_ns for path in (data.cache / "people").iterdir()}
    assert len(cached) == 2
    data.prepare()
    assert all(path.stat().st_mtime_ns == time for path, time in cached.items())
    assert len(everyone(data)) == 4


def test_killed_before_the_manifest_it_is_written_by_the_next(toy, tmp_path):
    write_people(tmp_path / "people", toy, 3)
    data = folder(toy, tmp_path / "people")
    assert {path.parent.name for path in data.missing()} == {"people"}
    data.prepare()
    assert data.missing() == []
    manifest, shard = data.folder / "manifest.json", data.folder / "train" / "shard-000000.safetensors"
    whole = manifest.read_bytes()
    manifest.unlink()
    assert data.missing() == [manifest]
    shard.unlink()
    assert data.missing() == [shard]
    data.prepare()
    assert data.missing() == []
    assert manifest.read_bytes() == whole


def test_all_faults_are_listed_before_anything_is_converted(toy, tmp_path):
    root = tmp_path / "people"
    write_people(root, toy, 4)
    a, b, c, d = sorted(root.iterdir())
    (a / "diffuse.png").unlink()
    (a / "shape.json").write_text('{"identity": [1, 2]}')
    (b / "normals.png").write_bytes(b"no picture")
    Image.new("RGB", (8, 4)).save(b / "specular.png")
    (c / "view0.json").write_text('{"rotation": [0, 0, 0]}')
    Image.new("RGB", (9, 8)).save(c / "view1.png")
    np.savez(d / "mesh.npz", vertices=np.zeros((5, 3)))
    (d / "view0.json").write_text(json.dumps({"expression": {"grin": 1}}))
    data = folder(toy, root)
    with pytest.raises(FolderError) as raised:
        data.prepare()
    text = str(raised.value)
    for fault in (
        r"9 faults in the data",
        rf"{re.escape(str(a))}: no diffuse file; add diffuse\.png",
        r"shape\.json: got 2 numbers under 'identity', the shape model's code has 6",
        r"normals\.png: cannot be read .*save it again",
        r"specular\.png: is 8 x 4 pixels; maps must be square",
        r"view0\.json: has 'rotation' but not .*give the whole camera",
        r"view1\.png: is not square, but view1\.json gives its camera",
        r"2 shape files, mesh\.npz, shape\.json; keep one",
        r"mesh\.npz: has 5 vertices, the shape model has 144",
        r"view0\.json: 'expression' names \['grin'\]",
    ):
        assert re.search(fault, text), fault
    assert not (data.cache / "people").exists()


def test_no_damage_hides_the_faults_of_other_files(toy, tmp_path):
    root = tmp_path / "people"
    write_people(root, toy, 6)
    a, b, c, d, e, f = sorted(root.iterdir())
    for person in (c, d, e):
        (person / "shape.json").unlink()
    (a / "shape.json").write_text('{"identity": [null, 1, 2, 3, 4, 5]}')
    (b / "shape.json").write_text("[" * 100_000)
    (c / "mesh.npz").write_bytes(b"PK\x03\x04" + b"0" * 100)
    np.savez(d / "mesh.npz", points=np.zeros((144, 3)))
    np.savez(e / "mesh.npz", vertices=np.float32(1))
    (f / "view0.json").write_text("[" * 100_000)
    with pytest.raises(FolderError) as raised:
        folder(toy, root).prepare()
    text = str(raised.value)
    for fault in (
        r"6 faults in the data",
        r"0, é/shape\.json: 'identity' must be a list of finite numbers",
        r"1, é/shape\.json: .*recursion",
        r"2, é/mesh\.npz: cannot be read as a mesh \(BadZipFile: .*\); write it again",
        r"3, é/mesh\.npz: cannot be read as a mesh \(KeyError: .*vertices",
        r"4, é/mesh\.npz: holds vertices of shape \(\), expected \(V, 3\)",
        r"5, é/view0\.json: .*recursion",
    ):
        assert re.search(fault, text), (fault, text)


def test_long_lists_are_cut(toy, tmp_path):
    root = tmp_path / "people"
    write_people(root, toy, 2)
    for i in range(40):
        (root / f"empty {i}").mkdir()
    with pytest.raises(FolderError, match=r"200 faults in the data:(\n.*){20}\n\.\.\. and 180 more"):
        folder(toy, root).prepare()


def test_faults_that_only_decoding_finds_do_not_stop_the_others(toy, tmp_path):
    root = tmp_path / "people"
    write_people(root, toy, 4)
    first = sorted(root.iterdir())[0]
    whole = (first / "diffuse.png").read_bytes()
    (first / "diffuse.png").write_bytes(whole[: len(whole) // 2])
    Image.new("L", (8, 8)).save(sorted(root.iterdir())[1] / "normals.png")
    data = folder(toy, root)
    with pytest.raises(FolderError, match=r"(?s)2 faults.*diffuse\.png: cannot be read.*normals\.png: has one channel"):
        data.prepare()
    assert len(list((data.cache / "people").iterdir())) == 2
    (first / "diffuse.png").write_bytes(whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normal_y": "sideways"}, "normal_y is 'sideways'; expected up or down"),
        ({"specular_f0": 3.0}, "specular_f0 is 3.0"),
        ({"held_out": 1.0}, "0 people to train on"),
    ],
)
def test_bad_options(toy, tmp_path, options, message):
    write_people(tmp_path / "people", toy, 3)
    with pytest.raises(FolderError, match=message):
        folder(toy, tmp_path / "people", **options)


def test_missing_folder(toy, tmp_path):
    with pytest.raises(FolderError, match="nowhere is not a folder"):
        folder(toy, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FolderError, match="holds nobody"):
        folder(toy, tmp_path / "empty")


def test_rules_of_the_folder_and_of_the_command(toy, tmp_path):
    write_people(tmp_path / "people", toy, 2)
    (tmp_path / "people" / "rules.json").write_text('{"normal_y": "down", "specular_f0": 1.0}')
    data = folder(toy, tmp_path / "people", specular_f0=0.04)
    assert data.rules == Rules(normal_y="down", specular_f0=0.04)
    (tmp_path / "people" / "rules.json").write_text('{"normals_y": "down"}')
    with pytest.raises(FolderError, match=r"rules\.json: unknown \['normals_y'\]"):
        folder(toy, tmp_path / "people")


def test_split_by_hash_is_stable_and_near_its_share(toy, tmp_path):
    for i in range(400):
        (tmp_path / f"{i:04d}").mkdir()
    people = find_people(tmp_path)
    train, held_out = split(tmp_path, people, 0.1)
    assert 20 < len(held_out) < 62  # 40 +- 3.5 standard deviations
    fewer_train, fewer_held_out = split(tmp_path, people[::2], 0.1)
    assert {p.name for p in fewer_held_out} <= {p.name for p in held_out}
    assert {p.name for p in fewer_train} <= {p.name for p in train}
    assert hash_of_name("0001") == hash_of_name("0001") != hash_of_name("0002")


def test_split_by_list(toy, tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
    (tmp_path / "held_out.txt").write_text("b\n\n")
    train, held_out = split(tmp_path, find_people(tmp_path), 0.5)
    assert ([p.name for p in train], [p.name for p in held_out]) == (["a", "c"], ["b"])
    (tmp_path / "held_out.txt").write_text("b\nd\n")
    with pytest.raises(FolderError, match="nobody is called d"):
        split(tmp_path, find_people(tmp_path), 0.5)


def test_a_posed_mesh_with_object_space_normals_is_the_same_person(toy, tmp_path):
    """Mesh in metres and turned, normals in its axes with green down: the code and the tangent map come back."""
    root = tmp_path / "people"
    written = write_people(root, toy, 2)
    turn = rotation_matrix(torch.tensor([[0.2, 0.6, -0.1]]))[0]
    for name, person in written.items():
        vertices = toy.shape_model(person["identity"][None])[0]
        world = _object_normals(toy, vertices, FaceMaps.from_tensor(dequantise(person["maps"][None])).normals[0])
        (root / name / "shape.json").unlink()
        np.savez(root / name / "mesh.npz", vertices=(vertices @ turn.T / 1000 + 0.5).numpy())
        (root / name / "normals.png").unlink()
        turned = torch.einsum("ij,jrc->rci", turn, world) * torch.tensor([1.0, -1.0, 1.0])
        write_exr(root / name / "normal.exr", {"RGB": np.ascontiguousarray(turned.numpy())})
    data = folder(toy, root, normal_space="object", normal_y="down")
    data.prepare()
    for name, person in everyone(data).items():
        torch.testing.assert_close(person["identity"], written[name]["identity"], atol=2e-3, rtol=0)
        assert (person["maps"].int() - written[name]["maps"].int()).abs().max() <= 2


def _object_normals(toy: Parts, vertices, tangent_normals):
    """Invert `to_tangent_space` texel by texel: its rows for the three axes are an orthogonal matrix."""
    axes = torch.eye(3)[:, :, None, None].expand(-1, -1, SIZE, SIZE)
    frame = torch.stack([to_tangent_space(axis, vertices, toy.shape_model.topology) for axis in axes])  # (axis, xyz)
    return torch.einsum("axrc,xrc->arc", frame, tangent_normals)


def test_light_is_estimated_where_only_the_camera_is_known(toy, tmp_path):
    root = tmp_path / "people"
    written = write_people(root, toy, 2)
    for path in root.rglob("view*.json"):
        scene = json.loads(path.read_text())
        path.write_text(json.dumps({k: scene[k] for k in ("rotation", "translation", "focal", "principal_point")}))
    data = folder(toy, root)
    data.prepare()
    for name, person in everyone(data).items():
        assert person["directions"].shape == (2, 5, 3)
        assert (person["expression"] == 0).all()
        assert (person["harmonics"] == 0).all()
        total = person["ambient"].mean() + person["colours"].mean(2).sum(1).mean()
        truth = written[name]["ambient"].mean() + written[name]["colours"].mean(2).sum(1).mean()
        assert 0.5 < total / truth < 2
        scene = Scene.from_tensors({key: person[key] for key in SCENE_KEYS})
        maps = FaceMaps.from_tensor(dequantise(person["maps"][None]))
        vertices = toy.shape_model(person["identity"][None].expand(2, -1), scene.expression)
        rendering = toy.renderer(vertices, maps, scene.camera, scene.lighting, PORTRAIT)
        inside = (rendering.mask > 0).expand(-1, 3, -1, -1)
        assert (rendering.image - person["image"] / 255).abs()[inside].mean() < 0.06


def test_who_has_fewer_photos_repeats_them(toy, tmp_path):
    root = tmp_path / "people"
    write_people(root, toy, 2, views=2)
    lonely = sorted(root.iterdir())[0]
    (lonely / "view1.png").unlink()
    (lonely / "view1.json").unlink()
    data = folder(toy, root, views=3)
    data.prepare()
    people = everyone(data)
    image = people[lonely.name]["image"]
    assert torch.equal(image[0], image[1])
    assert torch.equal(image[0], image[2])
    other = next(person for name, person in people.items() if name != lonely.name)["image"]
    assert torch.equal(other[0], other[2])
    assert not torch.equal(other[0], other[1])


def test_scene_files(tmp_path):
    path, names = tmp_path / "photo.json", ("smile", "blink")
    camera = {"rotation": [0, 0, 0], "translation": [0, 0, -600], "focal": 5, "principal_point": [0, 0]}
    light = {"ambient": [1, 1, 1], "directions": [], "colours": []}
    path.write_text(json.dumps({**camera, **light, "expression": {"blink": 0.5}, "steps": "ignored"}))
    scene = read_scene(path, names)
    torch.testing.assert_close(scene["expression"], torch.tensor([0.0, 0.5]))
    (padded,) = pad_lamps([scene], 2)
    assert padded["directions"].shape == (2, 3)
    assert (padded["colours"] == 0).all()
    assert padded["proximity"].tolist() == [0, 0]
    assert scene["harmonics"].shape == (8, 3)
    for values, fault in (
        ({**camera, "focal": [1, 2]}, r"'focal' has shape \(2,\), expected \(\)"),
        ({"ambient": [1, 1, 1]}, "not .'directions', 'colours'.; give the whole light"),
        ({**light, "colours": [[1, 1, 1]]}, "as many lamps"),
        ({**camera, "rotation": "none"}, "'rotation' is not an array of numbers"),
        ({"expression": [1]}, r"'expression' has shape \(1,\), expected \(2,\)"),
        ([1], "expected a JSON object"),
    ):
        path.write_text(json.dumps(values))
        with pytest.raises(ValueError, match=fault):
            read_scene(path, names)


def test_two_processes_make_what_one_makes(toy, tmp_path):
    write_people(tmp_path / "people", toy, 3)
    one = folder(toy, tmp_path / "people", cache=str(tmp_path / "one"))
    two = folder(toy, tmp_path / "people", cache=str(tmp_path / "two"), workers=2)
    one.prepare()
    two.prepare()
    for name, person in everyone(one).items():
        for key, value in person.items():
            assert torch.equal(value, everyone(two)[name][key]), (name, key)


def test_photos_without_a_scene_are_cropped_and_their_camera_found(toy, tmp_path):
    """A portrait in the corner of a larger photo, with a detector that knows: the render lies over the crop."""
    from fitdiff.data.folder.maker import FolderMaker
    from fitdiff.geometry import ndc_to_pixels
    from fitdiff.types import Detection

    root = tmp_path / "people"
    written = write_people(root, toy, 1, views=1)
    (person,) = find_people(root)
    photo, truth = root / person.name / "view0.png", written[person.name]
    (root / person.name / "view0.json").unlink()
    canvas = Image.new("RGB", (300, 220), (90, 90, 90))
    canvas.paste(Image.open(photo).resize((160, 160)), (100, 40))
    canvas.save(photo)
    landmarks = ndc_to_pixels(truth["landmarks"][0], 160).numpy() + np.array([100, 40])
    maker = FolderMaker(
        find_people(root), Rules(), toy.shape_model, toy.identity, toy.renderer, SIZE, 96, 1, "mtcnn", "dlib68"
    )
    maker._finders = (
        lambda image: [Detection((100.0, 40.0, 260.0, 200.0), 1.0)],
        lambda image, detection: landmarks.astype(np.float32),
    )
    made = maker.make([0])
    scene = Scene.from_tensors({key: made[key][:, 0] for key in SCENE_KEYS})
    vertices = toy.shape_model(made["identity"], scene.expression)
    maps = FaceMaps.from_tensor(dequantise(made["maps"]))
    rendering = toy.renderer(vertices, maps, scene.camera, scene.lighting, 96)
    assert (rendering.landmarks - made["landmarks"][:, 0]).norm(dim=-1).mean() < 0.05  # of a side of 2
    inside = (rendering.mask > 0).expand(-1, 3, -1, -1)
    assert (rendering.image - made["image"][:, 0] / 255).abs()[inside].mean() < 0.08
