"""benchmark=people on truths: who is the person has no error, the mean face has the one that is computed directly."""

import numpy as np
import pytest
import torch
from rich.console import Console

from fitdiff import FitDiff
from fitdiff.evaluation.benchmark import BenchmarkError, Context
from fitdiff.evaluation.methods import Fit
from fitdiff.evaluation.metrics import METRICS, facts_of, shape_error
from fitdiff.evaluation.people_benchmark import People
from fitdiff.evaluation.people_scores import PeopleScores
from fitdiff.evaluation.people_surface import scan_errors
from fitdiff.evaluation.portraits import BLOCK, HeldOutPeople
from fitdiff.registry import ComponentError, config_of

N = 3


@pytest.fixture(scope="module")
def model(tiny_run):
    return FitDiff.load(tiny_run / "model", "cpu")


def context_of(model, out, **options):
    choices = {
        "fitting": config_of("fitting", "guided", steps=2, size=96),
        "guidance": {"mse": model.config["guidance"]["mse"]},
    }
    return Context(lambda: model, choices, out, Console(quiet=True), batch=2, **options)


@pytest.fixture(scope="module")
def evaluation(model, tmp_path_factory):
    asked = People(n=N, methods=("mean_face", "landmarks", "unguided", "fit"), known=True, pictures=1)
    return asked(context_of(model, tmp_path_factory.mktemp("people")))


def truth_of(model, n=N):
    return HeldOutPeople(model, "hard").gather(range(n))


def test_the_true_face_in_the_true_scene_has_no_error(model, tmp_path):
    scores = PeopleScores(People(n=N, methods=("mean_face",), known=True), context_of(model, tmp_path))
    rows, problem, truth = scores.problem(range(2))
    z = torch.zeros(2, model.latent.length)
    z[:, model.latent.parts[0]] = truth.identity
    found = scores.score(Fit(z, problem.scene, 0.0), problem, truth, rows)
    for name in ("shape_mm", "nose_mm", "true_landmarks", "light_degrees", "light_stops"):
        limit = 0.05 if name == "light_degrees" else 2e-3
        assert found[name].abs().max() < limit, name
    assert found["photo_id"].shape == (2,)


@pytest.mark.parametrize(
    ("judge", "message"), [("nosuch", "identity=nosuch is unknown"), ("dlib", "were guided by it")]
)
def test_a_judge_that_cannot_judge_is_told_before_anything_is_made(model, tmp_path, judge, message, monkeypatch):
    monkeypatch.setattr(HeldOutPeople, "missing", lambda *_: pytest.fail("portraits were made"))
    with pytest.raises((BenchmarkError, ComponentError), match=message):
        People(n=N, judge=judge)(context_of(model, tmp_path))


def test_the_mean_face_s_shape_error_is_the_direct_one(model, evaluation):
    identity = truth_of(model)["identity"]
    direct = shape_error(model.shape_model(torch.zeros_like(identity)), model.shape_model(identity))
    ours = [row["mean_face/shape_mm"] for row in evaluation.rows]
    np.testing.assert_allclose(ours, direct, rtol=1e-4)
    assert evaluation.summary["mean_face/shape_mm"] == pytest.approx(float(direct.mean()), rel=1e-4)
    assert float(direct.min()) > 0.5  # people differ


def test_the_last_method_is_judged_and_every_metric_is_known(evaluation):
    assert [row["name"] for row in evaluation.rows] == ["person 0", "person 1", "person 2"]
    assert METRICS.keys() - {"seconds", "all_mm"} <= evaluation.rows[0].keys() | {f"{r}_scan_mm" for r in ("nose", "mouth", "forehead", "cheek")}  # fmt: skip # noqa: E501
    plain, of_mean = evaluation.rows[0]["shape_mm"], evaluation.rows[0]["mean_face/shape_mm"]
    assert plain != of_mean
    assert facts_of("mean_face/shape_mm") == METRICS["shape_mm"]
    assert [row[0] for row in evaluation.tables["people"].rows] == ["mean_face", "landmarks", "unguided", "fit"]
    assert [row[0] for row in evaluation.tables["paired"].rows] == ["mean_face", "landmarks", "unguided"]
    assert evaluation.summary["faces_found"] == N
    height, width, _ = evaluation.pictures["people"].shape
    assert width > 6 * 100  # name, photo, truth, four methods
    assert height > 200


def test_what_is_done_is_kept_and_other_settings_are_made_anew(model, tmp_path, monkeypatch):
    asked = People(n=N, methods=("mean_face", "unguided"), known=True, pictures=0)
    first = asked(context_of(model, tmp_path))
    made = []
    real = PeopleScores.make
    monkeypatch.setattr(PeopleScores, "make", lambda s, m, b: made.append((m.name, b)) or real(s, m, b))
    again = asked(context_of(model, tmp_path))
    assert made == []
    assert again.rows == first.rows
    next(tmp_path.glob("parts/00002-*unguided*")).unlink()  # as if it had been stopped there
    again = asked(context_of(model, tmp_path))
    assert made == [("unguided", range(2, 3))]
    assert [row["shape_mm"] for row in again.rows] == [row["shape_mm"] for row in first.rows]
    made.clear()
    People(n=N, methods=("unguided",), known=True, pictures=0)(context_of(model, tmp_path, seed=1))
    assert len(made) == 2


def test_people_whose_faces_are_not_found_have_no_figures(model, tmp_path, monkeypatch):
    from fitdiff.evaluation import people_scores

    real = people_scores.find_faces
    monkeypatch.setattr(people_scores, "find_faces", lambda *a: [None, *real(*a)[1:]])
    evaluation = People(n=4, methods=("mean_face",), pictures=2)(context_of(model, tmp_path))
    values = [row.get("shape_mm", float("nan")) for row in evaluation.rows]
    assert np.isnan(values[0])
    assert np.isnan(values[2])
    assert np.isfinite(values).sum() == evaluation.summary["faces_found"] <= 2
    assert "faces found" in evaluation.notes[0]


def test_a_surface_that_is_the_persons_has_no_scan_error(model):
    vertices = model.shape_model(truth_of(model, 1)["identity"])
    turned = vertices.flip(2) * torch.tensor([1.0, 1.0, -1.0])  # another pose: x and z swapped, no reflection
    errors = scan_errors(model, 1.3 * turned, vertices, [0])
    assert set(errors) == {f"{name}_scan_mm" for name in ("nose", "mouth", "forehead", "cheek")}
    assert all(values[0] < 0.02 for values in errors.values()), errors


def test_people_are_the_same_in_any_range_and_have_one_clean_view(model):
    people = HeldOutPeople(model, "hard")
    some, more = people.gather(range(1, 3)), people.gather(range(0, N))
    assert torch.equal(some["identity"], more["identity"][1:])
    assert torch.equal(some["image"], more["image"][1:])
    assert people.missing(BLOCK) == []
    assert HeldOutPeople(model, "usual").folder != people.folder
    with pytest.raises(ValueError, match="give one of hard, usual"):
        HeldOutPeople(model, "odd")


def test_several_samples_are_refused(model, tmp_path):
    with pytest.raises(BenchmarkError, match="fits each person once"):
        People()(context_of(model, tmp_path, samples=2))
