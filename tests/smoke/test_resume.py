"""Kill a training run at any moment, run the same command again: the weights are those of a run that was not killed."""

import signal
import subprocess
import sys

import torch
from safetensors.torch import load_file

from tests.conftest import ROOT, TINY, run


def test_resume_after_sigkill_is_bitwise(tmp_path):
    cache = tmp_path / "cache"
    command = [
        "train.py",
        "model=autoencoder",
        *TINY,
        "trainer.checkpoint_every=1",
        "tracker=none",
        f"data.cache={cache}",
    ]
    run(*command, f"outputs={tmp_path / 'whole'}")
    killed = [*command, f"outputs={tmp_path / 'killed'}"]
    process = subprocess.Popen(
        [sys.executable, *killed], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None:
        if list((tmp_path / "killed").glob("stages/autoencoder-*/step-0000000[4-9]")):
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    assert not list((tmp_path / "killed").glob("stages/*/result.json")), "killed too late for the test to mean anything"
    run(*killed)
    whole, resumed = (
        load_file(next((tmp_path / name).glob("stages/autoencoder-*/weights.safetensors")))
        for name in ("whole", "killed")
    )
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
