"""Tests run on the CPU, offline, on one thread a worker (two workers on two cores would otherwise fight)."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["WANDB_MODE"] = "offline"
os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "")

import pytest
import torch

from fitdiff import registry

torch.set_num_threads(1)
ROOT = Path(__file__).parents[1]

TINY = [
    "name=tiny", "autoencoder.linear_path=false",
    "data.n=20", "data.held_out=10", "data.shard_size=10", "data.workers=1",
    "stage.autoencoder.steps=12", "stage.autoencoder.batch_size=4", "stage.autoencoder.discriminator_start=8",
    "stage.diffusion.steps=8", "stage.diffusion.batch_size=4", "stage.diffusion.render_every=4",
    "stage.diffusion.render_samples=2", "trainer.checkpoint_every=4", "trainer.preview_every=100",
    "trainer.log_every=4", "trainer.cpu=true",
]  # fmt: skip
"""Overrides of a training run that takes seconds: everything real, nothing learned."""


def write_exr(path: Path, channels: dict) -> None:
    """Write arrays as an OpenEXR file: {"RGB": (H, W, 3)} or {"Y": (H, W)}."""
    import OpenEXR

    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, channels).write(str(path))


def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run an entry point as a user does, from the repository's root."""
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done


def stop_when(folder: Path, pattern: str, number: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command from the repository's root, and signal it as soon as a file of that name is in the folder."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        if list(folder.glob(pattern)):
            process.send_signal(number)
            break
        time.sleep(0.01)
    _, stderr = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, None, stderr)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """Run folder of a tiny training of all stages, with its people in a cache of its own beside it."""
    folder = tmp_path_factory.mktemp("tiny")
    run("train.py", *TINY, f"outputs={folder}", f"data.cache={folder}/cache")
    return folder / "tiny"


def built_in(kind: str) -> list[str]:
    """Names of fitdiff's own components: those of installed plug-ins promise what they want."""
    registry.load_plugins()
    return [n for n in registry.names(kind) if registry.config_of(kind, n)["_target_"].startswith("fitdiff.")]


def stage_folder(outputs: Path, stage: str) -> Path:
    """Folder of a stage of the run `tiny`; stages of other runs may lie beside it."""
    run_folder = outputs / "tiny"
    return run_folder / json.loads((run_folder / "stages.json").read_text())[stage]
