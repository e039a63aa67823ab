"""Random numbers against the published test vectors, against themselves, and against what chance should give."""

import math

import pytest
import torch

from fitdiff.randomness import WORD, Draws, _normals_compiled, _normals_torch, draw_normals, philox

VECTORS = {  # the file kat_vectors that comes with the paper's own library, Random123
    ((0, 0, 0, 0), (0, 0)): (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ((WORD, WORD, WORD, WORD), (WORD, WORD)): (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)): (
        0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("vector", VECTORS.items())
def test_philox_gives_the_published_words(vector):
    (counter, key), expected = vector
    assert tuple(word.item() for word in philox(tuple(map(torch.tensor, counter)), key)) == expected


def test_compiled_loops_and_torch_give_the_same_numbers():
    index = torch.tensor([0, 5, WORD, WORD + 1, 1_000_000_005, 2**62 + 3])
    stream = torch.tensor([0, 1, 2, 3, 100, WORD])
    for seed in (0, 3, 2**64 - 1):
        compiled, vectorised = (f(seed, index, stream, range(7, 300)) for f in (_normals_compiled, _normals_torch))
        torch.testing.assert_close(compiled, vectorised, atol=2e-6, rtol=0)


def test_numbers_depend_on_seed_person_and_stream_alone():
    both = draw_normals(3, torch.tensor([7, 1_000_000_005]), 2, (4, 5))
    assert torch.equal(both[1:], draw_normals(3, torch.tensor([1_000_000_005]), 2, (4, 5)))
    assert torch.equal(both[:, :2].flatten(1), draw_normals(3, torch.tensor([7, 1_000_000_005]), 2, (10,)))
    assert torch.equal(both.flatten(1)[:, 8:], draw_normals(3, torch.tensor([7, 1_000_000_005]), 2, (12,), first=8))
    for other in (draw_normals(4, torch.tensor([7]), 2, (4, 5)), draw_normals(3, torch.tensor([7]), 1, (4, 5))):
        assert (other != both[:1]).all()


def test_a_stream_of_each_person_is_that_stream():
    index, stream = torch.tensor([4, 4, 9]), torch.tensor([1, 2, 1])
    rows = draw_normals(0, index, stream, (6,))
    assert torch.equal(rows[1:2], draw_normals(0, index[1:2], 2, (6,)))


def test_numbers_are_normal():
    x = draw_normals(1, torch.arange(1000), 0, (1000,)).flatten().double()
    n = len(x)
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3), (6, 15)):
        deviation = math.sqrt(math.prod(range(1, 2 * power, 2)) - moment**2)  # E x^2p = (2p - 1)!!
        assert abs(x.pow(power).mean() - moment) < 4.5 * deviation / math.sqrt(n), power
    expected = torch.special.ndtr(torch.linspace(-3, 3, 25, dtype=torch.float64)) * n
    found = torch.searchsorted(x.sort().values, torch.linspace(-3, 3, 25, dtype=torch.float64))
    assert (found - expected).abs().max() < 1.7 * math.sqrt(n)  # Kolmogorov: exceeded with probability 0.6%
    assert 4.5 < x.abs().max() < 6.7


@pytest.mark.parametrize("axis", ["person", "seed", "stream", "number"])
def test_neighbours_are_uncorrelated(axis):
    """Products and products of squares: Box and Muller's radius and angle come from different words."""
    index = torch.arange(300)
    draw = {
        "person": lambda i: draw_normals(2, index * 2 + i, 0, (1000,)),
        "seed": lambda i: draw_normals(2 + i, index, 0, (1000,)),
        "stream": lambda i: draw_normals(2, index, 7 + i, (1000,)),
        "number": lambda i: draw_normals(2, index, 0, (2000,))[:, i::2],
    }[axis]
    a, b = draw(0).double(), draw(1).double()
    limit = 4.5 / math.sqrt(a.numel())
    assert abs((a * b).mean()) < limit
    assert abs(((a**2 - 1) * (b**2 - 1)).mean() / 2) < limit


def test_draws_have_the_asked_distributions():
    draws = Draws(0, torch.arange(4000), 9)
    normal, uniform, chance = draws.normal(2.0, 0.5), draws.uniform(-1.0, 3.0), draws.chance(0.3)
    assert abs(normal.mean() - 2) < 0.03
    assert abs(normal.std() - 0.5) < 0.03
    assert abs(uniform.mean() - 1) < 0.1
    assert abs(uniform.std() - 4 / math.sqrt(12)) < 0.05
    assert abs(chance.mean() - 0.3) < 0.03


def test_draws_do_not_run_out():
    draws = Draws(0, torch.arange(2), 9)
    taken = torch.stack([draws.normal() for _ in range(3 * Draws.AT_ONCE)], 1)
    assert torch.equal(taken, draw_normals(0, torch.arange(2), 9, (3 * Draws.AT_ONCE,)))


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_named(seed):
    with pytest.raises(ValueError, match=rf"seed is {seed}: give an integer in \[0, 2\^64\)"):
        draw_normals(seed, torch.tensor([0]), 0, (1,))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_draws_the_same_numbers():
    index = torch.arange(50) + 1_000_000_000
    there = draw_normals(3, index.cuda(), 5, (1000,))
    torch.testing.assert_close(there.cpu(), draw_normals(3, index, 5, (1000,)), atol=2e-6, rtol=0)
