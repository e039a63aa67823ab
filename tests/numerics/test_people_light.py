"""Light, cameras and expressions of portraits against physics, projection and their promises."""

import math

import pytest
import torch

from fitdiff.data.people.expressions import ACTIONS, sample_expressions
from fitdiff.data.people.lighting import sample_lighting, white_balance
from fitdiff.data.people.options import Portraits
from fitdiff.data.people.scenes import _to_axis_angle, sample_cameras, sample_scenes
from fitdiff.data.people.views import Views
from fitdiff.geometry import project, rotation_matrix, to_camera_space
from fitdiff.renderer.lights import harmonic_basis

VIEWS = Views.of(0, range(1500), 2)
NAMES = ("browInnerUp", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft",
         "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "jawOpen",
         "mouthSmileLeft", "mouthSmileRight")  # fmt: skip


def sphere(n: int = 2000) -> torch.Tensor:
    i = torch.arange(n) + 0.5
    z, turn = 1 - 2 * i / n, i * math.pi * (1 + 5**0.5)
    level = (1 - z * z).sqrt()
    return torch.stack([level * turn.cos(), level * turn.sin(), z])


def test_no_normal_receives_less_than_nothing_from_the_surroundings():
    lighting = sample_lighting(VIEWS, Portraits(surroundings=1.0, lamps=0.0, near_lamps=0.0))
    harmonics = torch.einsum("kp,nkc->ncp", harmonic_basis(sphere()), lighting.harmonics)
    received = lighting.ambient[..., None] + harmonics
    assert (received >= 0.09 * lighting.ambient[..., None]).all()
    assert received.amax(2).div(lighting.ambient).median() > 1.3
    torch.testing.assert_close(received.mean(2), lighting.ambient, atol=2e-3, rtol=0)


def test_kinds_of_light_come_with_their_odds():
    lighting = sample_lighting(VIEWS, Portraits(lamps=1.0, near_lamps=2.0, surroundings=1.0))
    near = (lighting.proximity > 0).all(1)
    around = (lighting.harmonics != 0).any(2).any(1)
    assert abs(near.float().mean() - 0.5) < 0.04
    assert abs(around.float().mean() - 0.25) < 0.04
    assert not (near & around).any()
    assert lighting.proximity.max() <= 1 / 350


def test_exposure_is_plausible():
    lighting = sample_lighting(VIEWS, Portraits())
    total = (lighting.ambient + lighting.colours.sum(1)).mean(1)
    assert 1.1 < total.median() < 1.3
    assert ((total > 0.5) & (total < 2.6)).all()
    assert ((lighting.ambient >= 0).all() and (lighting.colours >= 0).all()).item()
    grey = sample_lighting(VIEWS, Portraits(tint=0.0)).ambient
    tinted = lighting.ambient
    assert (grey.std(1) / grey.mean(1)).mean() < 0.5 * (tinted.std(1) / tinted.mean(1)).mean()


@pytest.mark.parametrize("kelvin", [2500.0, 4000.0, 9000.0])
def test_tints_are_those_of_black_bodies(kelvin):
    """Planck's law; Wien's is its limit for short waves, 1% off at 2500 K and a few at 9000 K and 612 nm."""

    def planck(t):
        return [w**-5 / math.expm1(1.4388e7 / (w * t)) for w in (612.0, 549.0, 464.0)]

    expected = torch.tensor([a / b for a, b in zip(planck(kelvin), planck(5500.0), strict=True)])
    got = white_balance(torch.tensor(1e6 / kelvin - 1e6 / 5500))
    torch.testing.assert_close(got / got[1], expected / expected[1], rtol=0.05, atol=0)


def test_axis_angle_is_the_product_of_the_three_rotations():
    yaw, pitch, roll = torch.tensor([[0.7, -1.0, 0.0], [0.2, -0.4, 0.0], [-0.3, 0.1, 0.0]])

    def about(axis, angle):
        return rotation_matrix(angle[:, None] * torch.eye(3)[axis])

    expected = about(2, roll) @ about(0, pitch) @ about(1, yaw)
    torch.testing.assert_close(rotation_matrix(_to_axis_angle(yaw, pitch, roll)), expected)


def test_cameras_frame_the_face_and_cover_the_lenses():
    options = Portraits()
    camera, angles = sample_cameras(VIEWS, options)
    field_of_view = torch.rad2deg(2 * torch.atan(1 / camera.focal))
    assert field_of_view.min() < 16.2 < 15.9 + 0.4
    assert 44 < field_of_view.max() <= 45.001
    corners = torch.tensor([[0.0, 105.0, 0.0], [0.0, -105.0, 0.0], [0.0, 0.0, 0.0]]).expand(len(VIEWS), 3, 3)
    top, bottom, middle = project(to_camera_space(corners, camera), camera).unbind(1)
    assert middle.abs().max() < 0.15
    height = (top - bottom).norm(dim=1) / 2
    frontal = angles.abs().amax(1) < 0.2
    assert ((height[frontal] > 0.55) & (height[frontal] < 0.95)).all()
    yaw = torch.rad2deg(angles[:, 0])
    assert yaw.abs().max() <= 60
    assert 0.04 < (yaw.abs() > 40).float().mean() < 0.1


def test_eyes_share_one_gaze_and_a_third_is_neutral():
    _, angles = sample_cameras(VIEWS, Portraits())
    expression = sample_expressions(VIEWS, Portraits(), NAMES, angles)
    weight = dict(zip(NAMES, expression.unbind(1), strict=True))
    for a, b in (("InLeft", "OutRight"), ("OutLeft", "InRight"), ("UpLeft", "UpRight"), ("DownLeft", "DownRight")):
        assert torch.equal(weight[f"eyeLook{a}"], weight[f"eyeLook{b}"])
    assert not (weight["eyeLookInLeft"] * weight["eyeLookOutLeft"]).any()
    assert ((expression >= 0) & (expression <= 1)).all()
    assert abs((expression == 0).all(1).float().mean() - 0.33) < 0.03
    smile = torch.stack([weight["mouthSmileLeft"], weight["mouthSmileRight"]])
    assert torch.corrcoef(smile)[0, 1] > 0.8


def test_people_who_look_at_the_camera_turn_their_eyes_against_the_head():
    turned = torch.tensor([0.4, 0.0]).expand(len(VIEWS), 2)  # towards the subject's left
    expression = sample_expressions(VIEWS, Portraits(expressive=1.0), NAMES, turned)
    weight = dict(zip(NAMES, expression.mean(0), strict=True))
    assert weight["eyeLookOutRight"] > 3 * weight["eyeLookOutLeft"]


def test_actions_name_known_weights():
    from fitdiff.registry import build, config_of

    names = build(config_of("shape_model", "anny_face"), "shape_model").expression_names
    used = {key.replace("*", side) for _, weights in ACTIONS.values() for key in weights for side in ("Left", "Right")}
    assert used <= set(names)


def test_scenes_depend_on_the_view_alone():
    one = sample_scenes(Views.of(0, [7], 2), Portraits(), NAMES)
    many = sample_scenes(Views.of(0, range(10), 2), Portraits(), NAMES)[torch.tensor([14, 15])]
    for key, value in one.to_tensors().items():
        assert torch.equal(value, many.to_tensors()[key]), key
    assert not torch.equal(one.camera.rotation[0], one.camera.rotation[1])
