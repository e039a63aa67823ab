"""Expressions of the embedded face model: jaw, lips, lids, gaze, and what opens behind them."""

import pytest
import torch

from fitdiff.shape_model import AnnyFace, anny_eyes, sample_population


def test_neutral_is_no_expression(face):
    code = torch.zeros(2, face.n_identity)
    assert torch.equal(face(code), face(code, torch.zeros(2, face.n_expression)))
    assert "tongueOut" not in face.expression_names


def test_jaw_open_lowers_the_chin_and_parts_the_lips(face, marks, act):
    moved = face.topology.landmarks(act(jawOpen=1.0))[0]
    assert (moved - marks)[8, 1] < -15
    assert (moved[62] - moved[66])[1] > (marks[62] - marks[66])[1] + 15
    assert (moved - marks)[[27, 36, 45]].norm(dim=1).max() < 0.5


@pytest.mark.parametrize(("side", "upper", "lower"), [("Right", (37, 38), (41, 40)), ("Left", (43, 44), (47, 46))])
def test_a_blink_just_closes_everyones_lids_over_a_resting_eyeball(face, act, side, upper, lower):
    """MakeHuman's blink is one displacement, which closes narrow eyes twice over and leaves wide ones open."""
    codes = face.identity_of(sample_population(5, range(100)))
    marks = face.topology.landmarks(face(codes))
    vertices = act(codes, **{f"eyeBlink{side}": 1.0})
    closed = face.topology.landmarks(vertices)
    gaps = [(m[:, list(upper), 1] - m[:, list(lower), 1]).mean(1) for m in (marks, closed)]
    assert gaps[0].max() > 1.5 * gaps[0].min()
    assert torch.allclose(gaps[1], torch.tensor(-anny_eyes.BLINK_OVERLAP), atol=0.1)
    eyes = face.topology.regions["eyes"]
    assert (vertices - face(codes))[:, eyes].norm(dim=-1).max() < 1e-3


@pytest.mark.parametrize("actions", [{"eyeBlinkLeft": w} for w in (0.25, 0.5, 0.75, 1.0)] + [{"eyeLookDownLeft": 1.0}])
def test_lids_slide_over_the_eyeballs_of_all_people(face, act, actions):
    """Straight ways of the lids lead up to 1.6 mm into some people's eyeballs."""
    codes = face.identity_of(sample_population(6, range(200)))
    skin = face.eyes.sliding_vertices[0]
    neutral, moved = (_clearance(face, vertices)[:, skin] for vertices in (face(codes), act(codes, **actions)))
    assert (moved > neutral.clamp_max(anny_eyes.LID_CLEARANCE) - 2e-3).all()
    assert (neutral > 0).float().mean() > 0.8


def _clearance(face, vertices):
    """mm by which vertices (B, V) lie outside of the left eyeball, which is a sphere in the rig's coordinates."""
    frame = face.eyes.frames(vertices)[:, 0]
    points = (vertices - frame[:, None, 3]) @ torch.linalg.inv(frame[:, :3])
    return points.norm(dim=-1) - face.eyes.eye_rest[0, 0].norm()


def test_a_smile_raises_and_widens_the_corners(face, marks, act):
    moved = face.topology.landmarks(act(mouthSmileLeft=1.0, mouthSmileRight=1.0))[0, [48, 54]]
    assert (moved - marks[[48, 54]])[:, 1].min() > 3
    assert moved[1, 0] - moved[0, 0] > marks[54, 0] - marks[48, 0] + 3


def test_gaze_turns_the_eyeball(face, act):
    moved = act(eyeLookOutLeft=1.0)[0]
    ball = face.eyes.eye_vertices[0]
    assert ((moved - face.mean)[ball, 0] > 2).float().mean() > 0.9, "to the subject's left"
    assert torch.equal(act(eyeLookOutLeft=1.0)[0, face.eyes.eye_vertices[1]], face.mean[face.eyes.eye_vertices[1]])


@pytest.mark.parametrize("weight", [0.3, 1.0])
@pytest.mark.parametrize("gaze", [("Out",), ("In", "Up"), ("Out", "Down")])
def test_eyeballs_keep_their_shape_in_any_gaze(face, act, gaze, weight):
    codes = face.identity_of(sample_population(8, range(20)))
    moved = act(codes, **{f"eyeLook{way}Left": weight for way in gaze})
    frame = face.eyes.frames(face(codes))[:, 0]
    points = (moved[:, face.eyes.eye_vertices[0]] - frame[:, None, 3]) @ torch.linalg.inv(frame[:, :3])
    radius = face.eyes.eye_rest[0].norm(dim=1)
    assert torch.allclose(points.norm(dim=-1), radius.expand(20, -1), rtol=1e-4)
    assert (radius / radius.mean() - 1).abs().max() < 1e-4, "a sphere"


def test_lower_teeth_go_with_the_jaw_and_upper_ones_stay(face, act):
    offset = act(jawOpen=1.0)[0] - face.mean
    teeth = face.topology.regions["teeth"]
    lower = teeth & (offset[:, 1] < -10)
    assert offset[teeth & ~lower].norm(dim=1).max() < 0.5
    assert 0.3 < lower.sum() / teeth.sum() < 0.7
    assert face.mean[teeth & ~lower, 1].mean() > face.mean[lower, 1].mean() + 3
    assert offset[face.topology.regions["tongue"], 1].max() < -5


def test_what_is_behind_the_lips_does_not_pierce_closed_ones(face):
    codes = face.identity_of(sample_population(9, range(100)))
    vertices = face(codes)
    seam = vertices[:, face.topology.landmark_vertices[[61, 62, 63], 0], 2].mean(1)
    assert (vertices[:, face.topology.regions["teeth"], 2].amax(1) < seam + 1).all()


def test_gradients_are_exact():
    few = AnnyFace(n_identity=3, n_expression=13)  # up to a blink and a gaze
    torch.manual_seed(0)
    code = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    expression = torch.rand(2, 13, dtype=torch.float64, requires_grad=True)
    probe = torch.randn(2, 5, len(few.mean), 3, dtype=torch.float64)

    def project(code, expression):
        vertices = few(code, expression)
        return torch.einsum("bvx,bpvx->bp", vertices, probe), few.encode(vertices)

    assert few(code, expression).dtype == torch.float64
    assert torch.autograd.gradcheck(project, (code, expression))
