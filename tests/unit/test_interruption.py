"""Signals: at once where nothing is at stake, at the end of a step where something is."""

import os
import signal
import sys

import pytest

from fitdiff.training.interruption import InterruptedRun, Interruption

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGUSR1, and kills by SIGTERM")


def receive(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_raises_and_handlers_come_back(number):
    before = signal.getsignal(number)
    with pytest.raises(InterruptedRun, match=f"stopped by {signal.Signals(number).name}"), Interruption():
        receive(number)
    assert signal.getsignal(number) == before


def test_deferred_it_waits_for_the_end_of_the_block():
    reached = False
    with Interruption() as interruption, pytest.raises(InterruptedRun):
        with interruption.deferred():
            receive(signal.SIGTERM)
            assert interruption.requested == "SIGTERM"
            reached = True
    assert reached


def test_work_that_may_be_dropped_is_dropped_inside_a_deferred_block():
    with Interruption() as interruption, pytest.raises(InterruptedRun, match="SIGUSR1"):
        with interruption.deferred():
            with pytest.raises(InterruptedRun), interruption.deferred(False):
                receive(signal.SIGUSR1)
            with pytest.raises(InterruptedRun), interruption.deferred(False):
                pytest.fail("begun although a stop is requested")


def test_repeated_signals_change_nothing_but_a_second_ctrl_c():
    with Interruption() as interruption, pytest.raises(KeyboardInterrupt), interruption.deferred():
        receive(signal.SIGTERM)
        receive(signal.SIGTERM)
        receive(signal.SIGINT)


def test_an_error_is_not_hidden_by_a_signal():
    with Interruption() as interruption, pytest.raises(ZeroDivisionError), interruption.deferred():
        receive(signal.SIGTERM)
        _ = 1 / 0
