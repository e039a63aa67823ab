"""What benchmarks share: turns, memory, and the speed of a matrix product."""

import time

import torch

from fitdiff.benchmark import matrix_peak, peak_memory, take_turns

CPU = torch.device("cpu")


def test_contenders_take_turns_and_the_first_round_does_not_count():
    calls = []
    contenders = {name: {"task": lambda name=name: calls.append(name)} for name in "ab"}
    times = take_turns(contenders, 3, CPU)
    assert calls == list("abababab")
    assert [len(times[name]["task"]) for name in "ab"] == [3, 3]
    assert len(take_turns(contenders, 3, CPU, warm_up=False)["a"]["task"]) == 3
    assert len(calls) == 8 + 6


def test_patience_ends_the_rounds_but_leaves_one():
    for warm_up in (True, False):
        times = take_turns({"a": {"task": lambda: None}}, 5, CPU, warm_up=warm_up, patience=0.0)
        assert len(times["a"]["task"]) == 1


def test_seconds_are_those_of_the_call():
    times = take_turns({"a": {"task": lambda: time.sleep(0.02)}}, 1, CPU)
    assert times["a"]["task"][0] >= 0.02


def test_peak_memory_is_that_of_the_call():
    peak = peak_memory(lambda: torch.zeros(50_000_000).sum(), CPU)
    assert peak is None or 190e6 < peak < 260e6


def test_matrix_peak_counts_a_product_and_a_sum_for_each_pair(monkeypatch):
    monkeypatch.setattr("fitdiff.benchmark.seconds", lambda function, device: 0.5)
    assert matrix_peak(CPU, torch.float32) == 2 * 2048**3 / 0.5
