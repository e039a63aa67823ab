"""The order of samples: each once an epoch, files mixed only within a window, drawn once an epoch, not once a step."""

from itertools import pairwise

import pytest

from fitdiff.training import order
from fitdiff.training.order import global_batch, step_seed


def epoch(n, batch_size, number=0, **layout):
    """Indices of one epoch, whose batches fill it exactly."""
    steps = range(number * n // batch_size, (number + 1) * n // batch_size)
    return [i for step in steps for i in global_batch(n, batch_size, seed=1, step=step, **layout)]


@pytest.mark.parametrize("layout", [{}, {"shard_size": 7, "window": 3}, {"shard_size": 7, "window": 1}])
def test_an_epoch_visits_every_sample_once(layout):
    first, second = epoch(100, 4, 0, **layout), epoch(100, 4, 1, **layout)
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second


def test_batches_run_on_across_the_end_of_an_epoch():
    seen = [i for step in range(10) for i in global_batch(7, 3, seed=0, step=step)]
    assert sorted(seen[:7]) == list(range(7))
    assert sorted(seen[7:14]) == list(range(7))


def test_a_batch_may_be_larger_than_the_data():
    batch = global_batch(3, 8, seed=0, step=0)
    assert [batch.count(i) for i in range(3)] in ([3, 3, 2], [3, 2, 3], [2, 3, 3])


def test_a_window_is_the_most_shards_in_use_at_once():
    """Shards of 50 from first to last use: never more than 4 overlap, their samples mix, and new ones come evenly."""
    shards = [i // 50 for i in epoch(1000, 10, shard_size=50, window=4)]
    first = {shard: shards.index(shard) for shard in set(shards)}
    last = {shard: len(shards) - 1 - shards[::-1].index(shard) for shard in first}
    in_use = [sum(first[s] <= place <= last[s] for s in first) for place in range(1000)]
    assert 3 <= max(in_use) <= 4
    assert len({*shards[450:500]}) > 3
    starts = sorted(first.values())[4:]
    assert all(20 < after - before < 90 for before, after in pairwise(starts))


def test_a_window_over_everything_is_a_permutation_of_all():
    assert epoch(100, 5, shard_size=10, window=10) == epoch(100, 5, shard_size=7, window=15) == epoch(100, 5)


def test_an_order_is_drawn_once_an_epoch(monkeypatch):
    drawn, randperm = [], order.torch.randperm
    monkeypatch.setattr(order.torch, "randperm", lambda *a, **k: drawn.append(a) or randperm(*a, **k))
    order._epoch.cache_clear()
    epoch(1000, 10)
    assert len(drawn) == 1


def test_step_seeds_differ():
    seeds = {step_seed(s, t, r) for s in range(3) for t in range(50) for r in range(3)}
    assert len(seeds) == 450
