"""Two real processes through train.py: they learn what one learns, and stop and continue together."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from fitdiff.training.log import read_log
from tests.conftest import ROOT, TINY, run, stage_folder, stop_when

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows kills by SIGTERM")

NETWORK = {"autoencoder": "autoencoder", "diffusion": "denoiser"}


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def launch(*arguments):
    """The launcher's command for two processes on a CPU: `--multi_gpu` is its word for many, `--cpu` starts one."""
    port = free_port()
    flags = ["--multi_gpu", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    launcher = ["-m", "accelerate.commands.launch", *flags, "--num_processes=2", f"--main_process_port={port}"]
    return [*launcher, str(ROOT / "train.py"), *arguments]


def losses(outputs, stage):
    """Step and loss of each line of the log."""
    path = stage_folder(outputs, stage) / "log.jsonl"
    loss = f"total_{NETWORK[stage]}"
    return torch.tensor([[entry["step"], entry[loss]] for entry in read_log(path) if loss in entry])


def weights(outputs, stage):
    """All of a stage in one vector, but the codebook: there, latents that lie between two codes may flip."""
    path = stage_folder(outputs, stage) / "weights.safetensors"
    return torch.cat([v.float().flatten() for k, v in load_file(path).items() if "quantiser" not in k])


def test_two_processes_learn_what_one_learns_and_stop_together(tiny_run, tmp_path):
    often = ["trainer.checkpoint_every=1", "tracker=none"]
    arguments = [*TINY, *often, f"data.cache={tiny_run.parent}/cache", f"outputs={tmp_path}"]
    seen = "stages/diffusion-*/step-0000000[2-5]"
    stopped = stop_when(tmp_path, seen, signal.SIGTERM, sys.executable, *launch(*arguments))
    assert "2 × cpu" in stopped.stderr
    assert stopped.returncode == 1, "the launcher's word for a signal, whatever its processes say"
    assert re.search(r"stopped after step \d of 8 of diffusion, which is saved; the same command", stopped.stderr)
    assert not list(tmp_path.glob("stages/diffusion-*/result.json")), "stopped too late for the test to mean anything"
    run(*launch(*arguments))
    for stage in NETWORK:
        one, two = losses(tiny_run.parent, stage), losses(tmp_path, stage)
        torch.testing.assert_close(one, two, rtol=1e-3, atol=0)
        # The steps of the warm-up add up to 7e-4 and more; Adam makes steps of the rounding of tiny gradients, too.
        difference = weights(tiny_run.parent, stage) - weights(tmp_path, stage)
        assert difference.square().mean().sqrt() < 3e-5


def test_processes_that_a_scheduler_starts_and_stops_end_with_0(tiny_run, tmp_path):
    """The recipe of docs/cluster.md: no launcher, every process gets the signal."""
    run_of = [*TINY, "tracker=none", "trainer.checkpoint_every=1", f"data.cache={tiny_run.parent}/cache"]
    command, port = [sys.executable, "train.py", *run_of, f"outputs={tmp_path}"], str(free_port())
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [
        subprocess.Popen(
            command, cwd=ROOT, env=os.environ | group | {"RANK": rank, "LOCAL_RANK": rank}, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )
        for rank in "01"
    ]  # fmt: skip
    while not list(tmp_path.glob("stages/autoencoder-*/step-0000000[2-6]")) and ranks[0].poll() is None:
        time.sleep(0.01)
    for process in ranks:
        process.send_signal(signal.SIGTERM)
    told = [process.communicate()[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], told
    assert "2 × cpu" in told[0]
    (step,) = re.findall(r"stopped after step (\d+) of 12 of autoencoder, which is saved", told[0])
    assert list(tmp_path.glob(f"stages/autoencoder-*/step-{step:0>8}"))
