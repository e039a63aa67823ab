"""Killed at any moment, while a checkpoint is written too, a training continues to the same weights, bit for bit."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL, fork and file-size limits are Unix's")


def entries(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "samples_per_second"} for line in lines]


@pytest.mark.parametrize(("kills", "processes"), [(20, 1), (4, 2)])
def test_the_same_command_continues_bitwise(tmp_path, kills, processes):
    run("-m", "tests.smoke.killed_training", str(tmp_path), str(kills), str(processes))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert {p.name for p in whole.iterdir()} == {p.name for p in killed.iterdir()}  # no half-written file stays
    for path in whole.glob("step-*/state.safetensors"):
        expected, got = load_file(path), load_file(killed / path.relative_to(whole))
        assert expected.keys() == got.keys()
        assert all(torch.equal(value, got[name]) for name, value in expected.items())
    assert entries(whole) == entries(killed)
    (one,) = tmp_path.glob("one/step-00000240/state.safetensors")
    for name in ("whole", "split"):  # among processes, and each share into micro-batches
        got = load_file(tmp_path / name / "step-00000240" / "state.safetensors")
        assert all(torch.allclose(value, got[key], atol=1e-5) for key, value in load_file(one).items()), name
