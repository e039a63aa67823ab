"""FFHQ-UV-Intrinsics in its real layout, generated small, becomes a folder that `data=ffhq_uv_intrinsics` reads."""

import json
import sys
from pathlib import Path

import pytest
import torch
from folder_people import PORTRAIT, Parts, parts, sample
from PIL import Image

from fitdiff.data.ffhq_uv_intrinsics import Options, convert, main, match
from fitdiff.data.folder import FolderError
from fitdiff.data.folder.export import write_person
from fitdiff.registry import build, config_of

ALL_MAPS = ("diffuse", "specular", "normal", "ambient_occlusion", "translucency", "light_normalized")


@pytest.fixture
def toy() -> Parts:
    return parts()


@pytest.fixture
def sources(toy, tmp_path) -> Options:
    """Three subjects; the last has no mesh. IDs are written with different numbers of digits, as in the originals."""
    maps, meshes, photos = (tmp_path / name for name in ("ffhq-uv-intrinsics/Data", "fitted meshes", "photos"))
    for i in range(3):
        person = sample(toy, i, views=1)
        folder = maps / f"{i:06d}"
        for name in ALL_MAPS:
            folder.mkdir(parents=True, exist_ok=True)
            stored = {"diffuse": 0, "specular": 1, "normal": 2}.get(name)
            picture = person["maps"].split(3)[stored or 0].movedim(0, -1).numpy()
            Image.fromarray(picture).convert("L" if name == "specular" else "RGB").save(folder / f"{name}.png")
        if i < 2:
            vertices = toy.shape_model(person["identity"][None])[0] / 100
            mesh = meshes / f"{i:05d}" / "stage3_mesh_id.obj"
            mesh.parent.mkdir(parents=True)
            mesh.write_text("\n".join(f"v {x} {y} {z}" for x, y, z in vertices.tolist()))
            (mesh.parent / "L_ball.obj").write_text("v 0 0 0\n")
            (mesh.parent / "stage3_mesh_exp.obj").write_text("v 0 0 0\n")
        photos.mkdir(exist_ok=True)
        picture = Image.fromarray(person["image"][0].movedim(0, -1).numpy())
        picture.save(photos / (f"{i:05d}.png" if i else f"{i:05d}_front.png"))
    return Options(str(maps), str(meshes), str(photos), str(tmp_path / "out"))


def test_complete_subjects_are_linked_unchanged(sources):
    written, skipped = convert(sources)
    assert (written, skipped) == (2, {"a mesh": ["000002"]})
    out = Path(sources.out)
    assert sorted(p.name for p in out.iterdir()) == ["000000", "000001", "rules.json"]
    for name in ("000000", "000001"):
        assert {p.name for p in (out / name).iterdir()} == {
            "diffuse.png", "specular.png", "normals.png", "mesh.obj", "photo_0.png",
        }  # fmt: skip
        source = Path(sources.maps) / name / "normal.png"
        assert (out / name / "normals.png").read_bytes() == source.read_bytes()
    assert (out / "000001" / "mesh.obj").stat().st_ino == (
        Path(sources.meshes) / "00001" / "stage3_mesh_id.obj"
    ).stat().st_ino  # a link: no second copy of a hundred gigabytes
    assert json.loads((out / "rules.json").read_text())["align"] == "similarity"
    assert convert(sources)[0] == 2  # again


def test_the_data_set_trains_like_any_folder(toy, sources):
    convert(sources)
    for i in range(2):  # the toy's portraits have no face that a detector finds: give their cameras
        scene = Path(sources.out) / f"{i:06d}"
        write_person(scene.parent.parent / "scratch" / f"{i}", sample(toy, i, views=1))
        (scene.parent.parent / "scratch" / f"{i}" / "view0.json").rename(scene / "photo_0.json")
    node = config_of("data", "ffhq_uv_intrinsics", path=sources.out, portrait_size=PORTRAIT, workers=1,
                     cache=str(Path(sources.out).parent / "cache"))  # fmt: skip
    data = build(node, "data", **vars(toy))
    data.prepare()
    codes = torch.cat([data.train.load("identity"), data.held_out.load("identity")])
    truth = torch.stack([sample(toy, i, 1)["identity"] for i in range(2)])
    order = torch.cdist(codes, truth).argmin(1)
    torch.testing.assert_close(codes, truth[order], atol=5e-3, rtol=0)
    maps = data.train.gather([0], ("maps",))["maps"][0]
    assert torch.equal(maps[3], maps[4])  # the grey specular map became three equal channels


def test_missing_files_name_licence_and_source(toy, tmp_path):
    with pytest.raises(FolderError, match=r"(?s)CC BY-NC-ND.*csbhr/FFHQ-UV.*fitdiff\.data\.ffhq_uv_intrinsics"):
        build(config_of("data", "ffhq_uv_intrinsics", path=str(tmp_path / "none")), "data", **vars(toy))
    with pytest.raises(FolderError, match=r"maps='' is not a folder; .*CC BY-NC-ND"):
        convert(Options())


def test_nobody_complete(sources, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FolderError, match=r"nobody is complete .*3 without a photo"):
        convert(Options(sources.maps, sources.meshes, str(tmp_path / "empty"), sources.out))


def test_ids_are_compared_as_numbers(sources):
    complete, _ = match(Path(sources.maps), Path(sources.meshes), Path(sources.photos), 2)
    assert complete["000000"].photos[0].name == "00000_front.png"
    assert complete["000001"].mesh.parent.name == "00001"


@pytest.mark.parametrize("other", ["00001.obj", "0/00001.obj", "1_a/1.obj"])
def test_the_neutral_mesh_of_the_fitting_goes_first(sources, other):
    path = Path(sources.meshes) / other
    path.parent.mkdir(exist_ok=True)
    path.write_text("v 0 0 0\n")
    complete, _ = match(Path(sources.maps), Path(sources.meshes), Path(sources.photos))
    assert complete["000001"].mesh == Path(sources.meshes) / "00001" / "stage3_mesh_id.obj"


def test_rules_that_the_user_wrote_are_kept(sources):
    convert(sources)
    rules = Path(sources.out) / "rules.json"
    rules.write_text('{"normal_y": "down"}')
    convert(sources)
    assert rules.read_text() == '{"normal_y": "down"}'


def test_command_line(sources, monkeypatch, capsys):
    words = [f"{key}={getattr(sources, key)}" for key in ("maps", "meshes", "photos", "out")]
    monkeypatch.setattr(sys, "argv", ["ffhq", *words])
    main()
    text = " ".join(capsys.readouterr().err.split())
    assert "skipped 1 without a mesh: 000002" in text
    assert "2 people" in text
    monkeypatch.setattr(sys, "argv", ["ffhq", "maps=nowhere"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
