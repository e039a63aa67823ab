"""Statistics, presets and stored fits of experiments/fitting."""

import numpy as np
import pytest
import torch

from experiments.fitting import tables
from experiments.fitting.oracle import GIVEN
from experiments.fitting.presets import compose_preset
from experiments.fitting.rivals import GUIDED, Rival
from experiments.fitting.store import Store
from tests.numerics.test_fitting import problem


def test_every_photo_is_in_one_group_of_each_kind():
    yaw = np.array([-59.9, -40.0, -5.0, 0.0, 20.0, 39.0, 60.0 - 1e-6])
    groups = tables.groups_of(yaw, np.arange(7) % 2 == 0)
    assert sum(chosen for name, chosen in groups.items() if name.startswith("yaw")).tolist() == [1] * 7
    assert [int(chosen.sum()) for chosen in groups.values()] == [2, 2, 3, 4, 3]


def test_tables_hold_every_method_and_verdict():
    rng = np.random.default_rng(0)
    metrics = [*tables.METRICS, "facenet_novel_id"]
    scores = {name: {m: rng.normal(size=9) for m in metrics} for name in ("mean face", GUIDED, "guided without vgg")}
    text = tables.all_tables(scores, tables.groups_of(np.zeros(9), np.arange(9) > 4), (scores, [str(i) for i in range(9)]))  # fmt: skip # noqa: E501
    assert "facenet novel id" in text
    assert text.count("| guided without vgg |") == 5
    assert text.count("| mean face |") == 8


def test_presets_are_what_fit_py_would_take():
    preset = compose_preset("guidance=paper fitting=guided fitting.steps=7 guidance.mse.weight=3")
    assert preset.fitting["steps"] == 7
    assert preset.guidance["mse"]["weight"] == 3
    assert {name: node["weight"] for name, node in preset.guidance.items()} == {
        "id_cos": 1, "id_per": 50, "mse": 3, "landmarks": 200, "vgg": 1,
    }  # fmt: skip
    with pytest.raises(ValueError, match="steppes"):
        compose_preset("fitting.steppes=7")


def test_a_stored_fit_is_found_again_and_never_taken_for_another(tmp_path):
    target = torch.ones(2, 8)
    calls = []

    def solve(p):
        calls.append(1)
        return target.clone(), p.scene

    p = problem(target)
    store = Store(tmp_path, p.model, "weights", {"known": False})
    prepared = []
    rival = Rival(solve, {"method": "ones"}, 224, lambda: prepared.append(len(calls)))
    first, again = store.get(rival, ["a", "b"], p), store.get(rival, ["a", "b"], p)
    assert len(calls) == 1
    assert prepared == [0]  # before the clock runs, and not for a fit that is there
    assert torch.equal(first.z, again.z)
    assert torch.equal(again.scene.lighting.colours, p.scene.lighting.colours)
    paths = {
        store.path(rival, ["a", "b"]),
        store.path(rival, ["b", "a"]),
        store.path(Rival(solve, {"method": "twos"}, 224), ["a", "b"]),
        Store(tmp_path, p.model, "other weights", {"known": False}).path(rival, ["a", "b"]),
        Store(tmp_path, p.model, "weights", {"known": True}).path(rival, ["a", "b"]),
    }
    assert len(paths) == 5


def test_what_can_be_given_is_a_part_of_scene_or_z():
    known = {"landmarks", "camera", "lighting", "expression", "shape", "maps"}
    assert set().union(*GIVEN.values()) == known
