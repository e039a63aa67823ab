"""A training that is killed again and again: `python -m tests.smoke.killed_training FOLDER KILLS PROCESSES`.

Attempts are forks of one process that has imported everything; each but the last kills itself, by SIGKILL at a random
event (before or after a write reaches the disk, a rename, an update, ...), or within a write, by the kernel at a random
size of the file. Nothing depends on the clock.
"""

import os
import random
import resource
import shutil
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

import torch

from fitdiff import storage
from fitdiff.tracker import NoTracker
from fitdiff.training import log
from fitdiff.training.ema import Ema
from fitdiff.training.trainer import Trainer
from tests.toy_stage import ToyStage

EVENTS = (
    (os, "fsync"), (os, "replace"), (os, "unlink"), (shutil, "rmtree"), (Path, "mkdir"), (storage, "_umask"),
    (torch.optim.Adam, "step"), (Ema, "update"), (log.Log, "write"), (ToyStage, "evaluate"),
)  # fmt: skip
STEPS = 240


def kill_at(event: int) -> None:
    """SIGKILL this process before or after one of the events."""
    left = event

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def counting(function):
        def wrapper(*arguments, **options):
            count()
            result = function(*arguments, **options)
            count()
            return result

        return wrapper

    for owner, name in EVENTS:
        setattr(owner, name, counting(getattr(owner, name)))


def kill_at_size(size: int) -> None:
    """Let the kernel kill this process once it writes beyond a size of any file."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def train(folder: Path, parts: int) -> None:
    every = {"log_every": 5, "evaluate_every": 4, "checkpoint_every": 3, "preview_every": 50}
    trainer = Trainer(cpu=True, gradient_accumulation=parts, ema_half_life=80, **every)
    trainer.run(ToyStage(STEPS), folder, {"steps": STEPS}, {}, 0, NoTracker())


def attempt(folder: Path, processes: int, sabotage=None, victim: int = 0, parts: int = 1) -> bool:
    """Train in forked processes, one of them sabotaged; True if they came to the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            if processes > 1:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            if sabotage and rank == victim:
                sabotage()
            train(folder, parts)
            os._exit(0)
        children.append(child)
    well = os.waitstatus_to_exitcode(os.wait()[1]) == 0
    for child in children if not well else ():
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)  # as a launcher ends the others
    for _ in children[1:]:
        well &= os.waitstatus_to_exitcode(os.wait()[1]) == 0
    return well


def main(folder: Path, kills: int, processes: int) -> None:
    torch.set_num_threads(1)
    draw = random.Random(processes)
    assert attempt(folder / "whole", processes)
    assert attempt(folder / "split", processes, parts=2)
    assert attempt(folder / "one", 1)
    size = next((folder / "whole").glob("step-*/state.safetensors")).stat().st_size
    for kill in range(kills):
        number = draw.randrange(1, size) if kill % 4 == 3 else draw.randrange(1, 120)
        sabotage = (lambda: kill_at_size(number)) if kill % 4 == 3 else (lambda: kill_at(number))  # noqa: B023
        victim = 0 if kill % 4 == 3 else draw.randrange(processes)  # only the first writes
        assert not attempt(folder / "killed", processes, sabotage, victim), f"kill {kill} missed"
    assert attempt(folder / "killed", processes)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
