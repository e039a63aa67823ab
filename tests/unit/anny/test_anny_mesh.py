"""Mesh, texture coordinates, landmarks and regions of the embedded face."""

import numpy as np
import pytest
import torch

from fitdiff import types
from fitdiff.shape_model import makehuman, surface
from fitdiff.shape_model.unwrap import signed_areas

JAW, BROWS, NOSE, EYES, MOUTH = range(17), range(17, 27), range(27, 36), range(36, 48), range(48, 68)
MIRRORED = [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39, 38]
MIRRORED += [37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]


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


@pytest.mark.parametrize("subdivisions", [0, 1])
def test_both_sides_are_exact_mirror_images(face, tiny, subdivisions):
    model = (tiny, face)[subdivisions]
    mirror, flip = model.mirror, torch.tensor([-1.0, 1, 1])
    assert torch.equal(mirror[mirror], torch.arange(len(mirror)))
    assert torch.equal(model.mean[mirror] * flip, model.mean)
    assert _unordered(mirror[model.topology.faces]) == _unordered(model.topology.faces), "faces map to faces"
    uv = model.topology.uv
    assert torch.allclose(uv[mirror] * torch.tensor([-1.0, 1]) + torch.tensor([1.0, 0]), uv, atol=1e-7)
    for mask in model.topology.regions.values():
        assert torch.equal(mask[mirror], mask)


def test_expressions_of_both_sides_are_mirror_images(face):
    for name in face.expression_names:
        other = name.replace("Left", "~").replace("Right", "Left").replace("~", "Right")
        own, mirrored = (face.expression_basis[face.expression_names.index(n)] for n in (name, other))
        assert torch.allclose(mirrored[face.mirror] * torch.tensor([-1.0, 1, 1]), own, atol=1e-4), name


def _unordered(faces):
    return set(map(tuple, np.sort(faces.numpy(), 1).tolist()))


def test_the_subjects_left_is_positive_x(face, act):
    """MakeHuman names sides itself: the check does not rest on our own reading of them."""
    base = makehuman.read_base_mesh()
    assert base.vertices[base.groups["helper-l-eye"]][:, 0].min() > 0
    assert face.eye_centres[0, 0] > 0
    assert (act(eyeBlinkLeft=1.0)[0] - face.mean).norm(dim=1)[face.mean[:, 0] > 5].max() > 5
    assert (act(eyeBlinkLeft=1.0)[0] - face.mean).norm(dim=1)[face.mean[:, 0] < -5].max() < 0.5


def test_eyeballs_are_spheres_behind_the_lids(face):
    eyes = face.mean[face.topology.regions["eyes"]]
    centre = face.eye_centres[(eyes[:, 0] < 0).long()]
    radius = (eyes - centre).norm(dim=1)
    assert (radius / face.eye_radius - 1).abs().max() < 0.05


def test_regions_name_the_right_places(face, marks):
    regions = face.topology.regions
    centre = {name: face.mean[mask].mean(0) for name, mask in regions.items()}
    assert {"nose", "mouth", "forehead", "cheek", "lips", "eyes", "inner_mouth", "teeth", "tongue", "skin"} <= set(
        regions
    )
    assert (centre["nose"] - marks[NOSE].mean(0)).norm() < 12
    assert (centre["lips"] - marks[48:60].mean(0)).norm() < 8
    assert (centre["eyes"][1] - marks[EYES, 1].mean()).abs() < 3
    assert face.mean[regions["forehead"], 1].min() > marks[BROWS, 1].max()
    assert not (regions["nose"] & regions["mouth"]).any()
    assert not (regions["inner_mouth"] & regions["skin"]).any()
    assert ((regions["teeth"] | regions["tongue"]) <= regions["inner_mouth"]).all()
    assert face.mean[regions["teeth"], 2].min() > face.mean[regions["tongue"], 2].mean() + 10, "teeth before the tongue"


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
