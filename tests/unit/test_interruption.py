"""Signals: at once where nothing is at stake, at the end of a step where something is."""

import multiprocessing
import os
import signal
import subprocess
import sys

import pytest

from fitdiff.training.interruption import InterruptedRun, Interruption, leave_signals_to_parent

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGUSR1, and kills by SIGTERM")


def receive(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_raises_and_handlers_come_back(number):
    before = signal.getsignal(number)
    with pytest.raises(InterruptedRun, match=f"stopped by {signal.Signals(number).name}"), Interruption():
        receive(number)
    assert signal.getsignal(number) == before


def run_deferred(work):
    """Do work within a block that defers signals."""
    with Interruption() as interruption, interruption.deferred():
        work(interruption)


def test_deferred_it_waits_for_the_end_of_the_block():
    seen = []

    def work(interruption):
        receive(signal.SIGTERM)
        seen.append(interruption.requested)

    with pytest.raises(InterruptedRun):
        run_deferred(work)
    assert seen == ["SIGTERM"]


def test_work_that_may_be_dropped_is_dropped_inside_a_deferred_block():
    seen = []

    def work(interruption):
        for part in range(3):
            try:
                with interruption.deferred(False):
                    seen.append(part)
                    if part == 1:
                        receive(signal.SIGUSR1)
                        seen.append("went on")
            except InterruptedRun:
                seen.append("dropped")

    with pytest.raises(InterruptedRun, match="SIGUSR1"):
        run_deferred(work)
    assert seen == [0, 1, "dropped", "dropped"]


def test_repeated_signals_change_nothing_but_a_second_ctrl_c():
    seen = []

    def work(_):
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            receive(number)
            seen.append(number)

    with pytest.raises(KeyboardInterrupt):
        run_deferred(work)
    assert seen == [signal.SIGTERM, signal.SIGTERM]


def test_an_error_is_not_hidden_by_a_signal():
    def work(_):
        receive(signal.SIGTERM)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_deferred(work)


def echo(pipe):
    """A worker that never ends by itself."""
    leave_signals_to_parent()
    while True:
        pipe.send(pipe.recv())


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="this system does not tell who sent a signal")
def test_a_worker_ends_when_its_parent_says_so_and_not_when_a_scheduler_does():
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    worker = context.Process(target=echo, args=(theirs,), daemon=True)
    worker.start()
    for word in ("TERM", "INT", "USR1", "TERM"):
        ours.send(word)
        assert ours.recv() == word
        subprocess.run(["kill", f"-{word}", str(worker.pid)], check=True)
    ours.send("still there")
    assert ours.recv() == "still there"
    while worker.exitcode is None:  # a signal that comes while another is pending is lost in it
        worker.terminate()
        worker.join(0.1)
    assert worker.exitcode == 0
