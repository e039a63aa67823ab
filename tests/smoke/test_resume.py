"""Stop a training run, politely or not, and run the same command again: the weights are those of an undisturbed run."""

import signal
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import TINY, run, stage_folder, stop_when


def weights(outputs, stage):
    return load_file(stage_folder(outputs, stage) / "weights.safetensors")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows kills by SIGTERM")
def test_after_sigkill_and_sigterm_the_same_command_continues_bitwise(tiny_run, tmp_path):
    # Saving and evaluating at other steps than the undisturbed run changes nothing.
    often = ["trainer.checkpoint_every=1", "trainer.evaluate_every=100", "tracker=none"]
    command = ["train.py", *TINY, *often, f"data.cache={tiny_run.parent}/cache", f"outputs={tmp_path}"]
    killed = stop_when(tmp_path, "stages/autoencoder-*/step-0000000[4-9]", signal.SIGKILL, sys.executable, *command)
    assert killed.returncode == -signal.SIGKILL
    stopped = stop_when(tmp_path, "stages/diffusion-*/step-0000000[2-6]", signal.SIGTERM, sys.executable, *command)
    assert stopped.returncode == 0, stopped.stderr
    assert "autoencoder continues after step" in stopped.stderr
    assert "of 8 of diffusion, which is saved; the same command continues" in stopped.stderr
    assert not list(tmp_path.glob("stages/diffusion-*/result.json")), "stopped too late for the test to mean anything"
    run(*command)
    for stage in ("autoencoder", "diffusion"):
        whole, resumed = weights(tiny_run.parent, stage), weights(tmp_path, stage)
        assert whole.keys() == resumed.keys()
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)
