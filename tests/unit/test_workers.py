"""Parallel work: what ends it early cancels what waits, and workers leave Ctrl-C to their parent."""

import fcntl
import multiprocessing
import os
import signal
import time

import pytest
import torch

from fitdiff.data import workers
from fitdiff.data.workers import cores, make_shards

N = 40


class Maker:
    """Makes quickly, but for the first sample, which does `first` to the maker's process."""

    def __init__(self, first):
        self.first = first

    def make(self, indices):
        if 0 in indices:
            self.first()
        time.sleep(0.05)
        return {"index": torch.tensor(indices)}


def nothing():
    pass


def fault():
    raise ValueError("no such person")


def fall_over():
    raise ArithmeticError("fell over")


def interrupt_the_parent():
    os.kill(os.getppid(), signal.SIGINT)


def interrupt_itself():
    os.kill(os.getpid(), signal.SIGINT)


def terminate_itself():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(autouse=True)
def ctrl_c_interrupts():
    """A shell's background jobs start with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def shards(first, folder):
    """Make N shards of one sample in two processes; the messages."""
    return make_shards(Maker(first), [(folder / f"{i}.safetensors", [i]) for i in range(N)], 2, "making")


@pytest.mark.parametrize(("first", "error"), [(fall_over, ArithmeticError), (interrupt_the_parent, KeyboardInterrupt)])
def test_what_ends_the_work_cancels_what_waits(first, error, tmp_path):
    with pytest.raises(error):
        shards(first, tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) < N / 2


def test_a_worker_survives_ctrl_c(tmp_path):
    assert shards(interrupt_itself, tmp_path) == []
    assert len(list(tmp_path.glob("*.safetensors"))) == N


def test_a_worker_survives_what_a_scheduler_sends_to_all(tmp_path):
    assert shards(terminate_itself, tmp_path) == []
    assert len(list(tmp_path.glob("*.safetensors"))) == N


class Lingering:
    """Says through a pipe that it is at work, and does not end by itself before it has lived too long."""

    def __init__(self, folder):
        self.folder = folder

    def make(self, indices):
        with (self.folder / f"lock-{indices[0]}").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (self.folder / f"pipe-{indices[0]}").write_text("at work")
            time.sleep(20)
        (self.folder / "survived").touch()
        return {}


def linger(folder):
    make_shards(Lingering(folder), [(folder / f"{i}.safetensors", [i]) for i in range(2)], 2, "lingering")


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    for i in range(2):
        os.mkfifo(tmp_path / f"pipe-{i}")
    parent = multiprocessing.get_context("spawn").Process(target=linger, args=(tmp_path,))
    parent.start()
    assert [(tmp_path / f"pipe-{i}").read_text() for i in range(2)] == ["at work"] * 2
    parent.kill()
    parent.join()
    for i in range(2):
        with (tmp_path / f"lock-{i}").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # free when the worker is gone
    assert not (tmp_path / "survived").exists()


def test_faults_are_collected_and_the_rest_is_made(tmp_path):
    assert shards(fault, tmp_path) == ["no such person"]
    assert len(list(tmp_path.glob("*.safetensors"))) == N - 1


def test_cores_are_counted_where_the_system_does_not_say_which_are_ours(monkeypatch):
    assert cores() >= 1
    monkeypatch.delattr(workers.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(workers.os, "cpu_count", lambda: 7)
    assert cores() == 7
    monkeypatch.setattr(workers.os, "cpu_count", lambda: None)
    assert cores() == 1
