import math

import pytest
import torch
import trimesh

from fitdiff.avatar.relight import PORTRAIT_FOCAL, frontal_camera, light_from, standard_views, studio_lighting
from fitdiff.geometry import project, to_camera_space
from fitdiff.renderer import TorchRenderer
from fitdiff.types import FaceMaps, Scene, Topology


def head(batch: int = 1) -> tuple[torch.Tensor, Topology]:
    """An egg of 140 x 190 x 160 mm away from the origin, with a one-texel texture."""
    sphere = trimesh.creation.icosphere(subdivisions=3)
    vertices = torch.tensor(sphere.vertices, dtype=torch.float32) * torch.tensor([70.0, 95.0, 80.0])
    uv = torch.tensor(sphere.vertices[:, :2] * [0.5, -0.5] + 0.5, dtype=torch.float32)
    weights = torch.tensor([1.0, 0.0, 0.0]).repeat(68, 1)
    topology = Topology(torch.tensor(sphere.faces), uv, torch.zeros(68, 3).long(), weights)
    sizes = torch.linspace(1.0, 1.3, batch)[:, None, None]
    return vertices * sizes + torch.tensor([5.0, -30.0, 12.0]), topology


def grey(side: int = 4) -> FaceMaps:
    up = torch.zeros(1, 3, side, side)
    up[:, 2] = 1
    return FaceMaps(torch.full_like(up, 0.4), torch.full_like(up, 0.35), up)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "direction"),
    [(0, 0, (0, 0, 1)), (-90, 0, (-1, 0, 0)), (90, 0, (1, 0, 0)), (0, 90, (0, 1, 0)), (30, 0, (0.5, 0, 0.75**0.5))],
)
def test_light_from(azimuth, elevation, direction):
    lighting = light_from(azimuth, elevation, batch=3, intensity=0.7, ambient=0.1)
    torch.testing.assert_close(lighting.directions, torch.tensor(direction).float().expand(3, 1, 3))
    torch.testing.assert_close(lighting.colours, torch.full((3, 1, 3), 0.7))
    torch.testing.assert_close(lighting.ambient, torch.full((3, 3), 0.1))


def test_studio_light_is_white_and_does_not_burn_out_a_facing_surface():
    lighting = studio_lighting(2)
    assert lighting.colours.shape[:2] == lighting.directions.shape[:2]
    facing = lighting.ambient[0] + (lighting.directions[0, :, 2:].clamp_min(0) * lighting.colours[0]).sum(0)
    assert 0.7 < facing[0] < 1
    assert facing.unique().numel() == 1


def test_portrait_focal_is_the_diagonal_field_of_view_of_an_85_mm_lens():
    diagonal = math.hypot(36, 24)
    assert math.atan(math.sqrt(2) / PORTRAIT_FOCAL) == pytest.approx(math.atan(diagonal / 2 / 85))


@pytest.mark.parametrize("yaw", [0.0, -40.0])
def test_frontal_camera_just_frames_each_face(yaw):
    vertices, _ = head(3)
    camera = frontal_camera(vertices, yaw=yaw, fill=0.8)
    points = to_camera_space(vertices, camera)
    ndc = project(points, camera)
    assert (points[..., 2] < 0).all()
    torch.testing.assert_close(ndc.abs().amax((1, 2)), torch.full((3,), 0.8))


def test_yaw_turns_the_nose_to_the_right_of_the_image():
    vertices, _ = head()
    nose = vertices[:, vertices[0, :, 2].argmax()][:, None]
    frontal, turned = (frontal_camera(vertices, yaw=yaw) for yaw in (0.0, 30.0))
    assert abs(project(to_camera_space(nose, frontal), frontal)[0, 0, 0]) < 0.02
    assert project(to_camera_space(nose, turned), turned)[0, 0, 0] > 0.2


def test_frontal_camera_keeps_dtype_and_has_no_gradient():
    camera = frontal_camera(head()[0].double().requires_grad_())
    assert {x.dtype for x in (camera.rotation, camera.translation, camera.focal, camera.principal_point)} == {
        torch.float64
    }
    assert not camera.translation.requires_grad


def test_light_from_the_left_brightens_the_left_half_of_the_image():
    vertices, topology = head()
    scene = Scene(frontal_camera(vertices), studio_lighting(), torch.zeros(1, 0))
    views = standard_views(TorchRenderer(topology), vertices, vertices, grey(), scene, 64)
    left, right = views["relit_left"].image.mean((0, 1, 2)).split(32)
    assert left.mean() > 2 * right.mean()
    torch.testing.assert_close(views["fit"].image, views["frontal"].image)
    assert views["relit_left"].mask.sum() == views["fit"].mask.sum() > 1000
