"""What every registered shape model promises, on small files in the real layouts."""

import face_files
import numpy as np
import pytest
import torch

from fitdiff import registry, types
from fitdiff.shape_model import complete
from tests.conftest import built_in

registry.load_plugins()
MODELS = ("anny_face", *face_files.KINDS)
FULL = {"anny_face": 12, "pca_npz": 3}
"""Identity components asked for; FLAME's file names 300, of which the small one fills three."""
JAW, BROWS, NOSE, EYES, MOUTH = range(17), range(17, 27), range(27, 36), range(36, 48), range(48, 68)


@pytest.fixture(scope="module", params=MODELS)
def node(request, tmp_path_factory):
    """Config node of a model, as a run would have it."""
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    overrides = {"n_identity": FULL.get(name, face_files.N_IDENTITY)}
    if name == "anny_face":
        overrides |= {"subdivisions": 0}
    else:
        overrides |= {"path": str(face_files.write(name, folder))}
    patch = pytest.MonkeyPatch()
    patch.setattr(complete, "cache_folder", lambda: folder / "cache")
    yield registry.config_of("shape_model", name.split("_20")[0], **overrides)
    patch.undo()


@pytest.fixture(scope="module")
def model(node):
    return registry.build(node, "shape_model")


@pytest.fixture(scope="module")
def neutral(model):
    return model(torch.zeros(1, model.n_identity))


@pytest.fixture(scope="module")
def marks(model, neutral):
    return model.topology.landmarks(neutral)[0]


def test_every_registered_model_is_tested():
    assert {name.split("_20")[0] for name in MODELS} == set(built_in("shape_model"))


def test_shapes_types_and_names(model, neutral):
    n, topology = neutral.shape[1], model.topology
    assert isinstance(model, types.ShapeModel)
    assert neutral.shape == (1, n, 3)
    assert neutral.dtype == torch.float32
    assert topology.faces.dtype == topology.landmark_vertices.dtype == torch.int64
    assert topology.faces.shape[1:] == (3,)
    assert 0 <= topology.faces.min() <= topology.faces.max() == n - 1
    assert torch.equal(topology.faces.unique(), torch.arange(n)), "no vertex is without a triangle"
    assert topology.uv.shape == (n, 2)
    assert topology.landmark_vertices.shape == topology.landmark_weights.shape == (68, 3)
    assert len(set(model.expression_names)) == len(model.expression_names) == model.n_expression
    assert all(mask.shape == (n,) and mask.dtype == torch.bool for mask in topology.regions.values())
    code, weights = torch.zeros(2, model.n_identity), torch.zeros(2, model.n_expression)
    assert model(code, weights).shape == (2, n, 3)


def test_everything_is_finite(model, neutral):
    assert neutral.isfinite().all()
    assert model.topology.uv.isfinite().all()
    assert model.topology.landmark_weights.isfinite().all()


def test_a_face_is_as_large_as_a_face(marks):
    assert 75 < (marks[27] - marks[8]).norm() < 170
    assert 70 < (marks[36] - marks[45]).norm() < 115


def test_the_axes_are_those_of_head_space(marks):
    """+x to the subject's left, +y up, +z out of the face; 36 is the subject's right eye, 45 the left one."""
    assert marks[45, 0] > 20
    assert marks[36, 0] < -20
    assert marks[BROWS, 1].min() > marks[MOUTH, 1].max() > marks[8, 1]
    ears = marks[[0, 16]].mean(0)
    assert marks[30, 2] - ears[2] > 60
    assert (marks[30] - ears)[0].abs() < 6


def test_the_origin_is_where_the_embedded_face_has_it(marks):
    assert torch.allclose(marks.mean(0), torch.tensor(complete.LANDMARK_CENTROID_MM), atol=4)


def test_landmarks_lie_on_their_features(marks):
    assert torch.allclose(marks[[36, 39]].mean(0)[1], marks[[42, 45]].mean(0)[1], atol=5)
    assert marks[30, 2] == marks[17:, 2].max(), "the tip of the nose"
    assert marks[48, 0] < marks[51, 0] < marks[54, 0]
    assert marks[51, 1] > marks[57, 1]
    assert (marks[JAW].diff(dim=0)[:, 0] > 0).all(), "the jaw runs from the subject's right to the left"


def test_landmarks_are_those_of_the_person(model, marks, request):
    """The small files' person is not the embedded mean face: landmarks must be found, not copied."""
    if "anny_face" in request.node.callspec.id:
        pytest.skip("its landmarks are its own")
    truth = torch.from_numpy(face_files.truth().landmarks).float()
    error = ((marks - marks.mean(0)) - (truth - truth.mean(0))).norm(dim=1)
    assert error[17:].mean() < 1.5
    assert error.mean() < 2.5


def test_regions_are_in_their_places(model, neutral, marks):
    regions = model.topology.regions
    assert {"nose", "mouth", "forehead", "cheek", "skin"} <= set(regions)
    centre = {name: neutral[0, mask].mean(0) for name, mask in regions.items() if mask.any()}
    assert (centre["nose"] - marks[NOSE].mean(0)).norm() < 15
    assert (centre["mouth"] - marks[48:60].mean(0)).norm() < 15
    assert centre["forehead"][1] > marks[BROWS, 1].max()
    assert marks[8, 1] < centre["cheek"][1] < marks[EYES, 1].min()
    assert not (regions["nose"] & regions["mouth"]).any()


def test_triangles_turn_counter_clockwise_seen_from_outside(model, neutral):
    corners = neutral[0, model.topology.faces].double()
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    for name in ("nose", "forehead", "cheek"):
        inside = model.topology.regions[name][model.topology.faces].all(1)
        assert normals[inside, 2].sum() > 0, name


def test_texture_is_upright_in_the_unit_square(model, marks):
    uv, faces = model.topology.uv, model.topology.faces
    assert 0 <= uv.min() <= uv.max() <= 1
    u, v = model.topology.landmarks(torch.nn.functional.pad(uv, (0, 1))[None])[0, :, :2].T
    assert u[45] > u[36], "the subject's left is right"
    assert v[27] < v[30] < v[51] < v[57] < v[8]
    a, b, c = (uv[faces[:, k]].double() for k in range(3))
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    assert (area < 0).all(), "v runs down: no triangle folds"


def test_neutral_is_no_expression(model):
    code = torch.randn(2, model.n_identity, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(model(code), model(code, torch.zeros(2, model.n_expression)), atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_encode_inverts_forward(model, dtype):
    code = torch.randn(4, model.n_identity, dtype=dtype, generator=torch.Generator().manual_seed(1))
    vertices = model(code)
    assert vertices.dtype == dtype
    assert torch.allclose(model.encode(vertices), code, atol=2e-3)
    assert model.encode(vertices).dtype == dtype


def test_codes_are_whitened(model, request):
    """A unit of code is one standard deviation of the people, which the small files know."""
    one = model(torch.eye(model.n_identity)) - model(torch.zeros(1, model.n_identity))
    if "anny_face" in request.node.callspec.id:
        assert torch.allclose(one.flatten(1).norm(dim=1), model.identity_std, rtol=1e-3)
        return
    peak = np.linalg.norm(face_files.truth().identity, axis=-1).max(1)
    assert np.allclose(np.sort(one.norm(dim=-1).max(1).values), np.sort(peak), rtol=0.02)


def test_gradients_flow_to_both_arguments(model):
    code = torch.zeros(1, model.n_identity, requires_grad=True)
    weights = torch.full((1, model.n_expression), 0.1, requires_grad=True)
    model(code, weights).square().sum().backward()
    assert (code.grad.abs() > 0).all()
    assert model.n_expression == 0 or (weights.grad.abs() > 0).any()


def test_a_batch_is_its_items(model):
    generator = torch.Generator().manual_seed(2)
    code = torch.randn(3, model.n_identity, generator=generator)
    weights = torch.rand(3, model.n_expression, generator=generator)
    alone = torch.cat([model(code[i : i + 1], weights[i : i + 1]) for i in range(3)])
    assert torch.allclose(model(code, weights), alone, atol=1e-4)


def test_a_checkpoint_carries_the_settings_only(model, node):
    assert not model.state_dict(), "the user's file is not ours to hand on"
    again = registry.build(node, "shape_model")
    assert torch.equal(again(torch.ones(1, model.n_identity)), model(torch.ones(1, model.n_identity)))
    assert torch.equal(again.topology.uv, model.topology.uv)
    assert again.expression_names == model.expression_names


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_it_runs_on_the_gpu(node):
    model = registry.build(node, "shape_model").to("cuda")
    vertices = model(torch.zeros(1, model.n_identity, device="cuda"))
    assert vertices.device.type == model.encode(vertices).device.type == "cuda"
