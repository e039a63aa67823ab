"""The quantiser against brute force and the moving average's definition."""

import math

import pytest
import torch

from fitdiff.autoencoder import VectorQuantiser


def quantiser(size=32, dim=1, **options):
    torch.manual_seed(0)
    return VectorQuantiser(size, dim, **options).double()


def latents(batch=4, dim=1, side=6):
    return torch.randn(batch, dim, side, side, dtype=torch.float64)


@pytest.mark.parametrize("dim", [1, 3])
@pytest.mark.parametrize("size", [1, 2, 257])
def test_nearest_code_equals_brute_force(size, dim):
    q = quantiser(size, dim)
    vectors = torch.randn(500, dim, dtype=torch.float64)
    brute = (vectors[:, None] - q.codebook).square().sum(2).argmin(1)
    assert torch.equal(q.nearest(vectors), brute)


def test_nearest_of_duplicate_codes_is_still_a_nearest():
    q = quantiser(4)
    q.codebook[:, 0] = torch.tensor([1.0, 1.0, -1.0, 1.0])
    nearest = q.codebook[q.nearest(torch.tensor([[0.4], [-0.4], [1.0]], dtype=torch.float64))]
    assert nearest.flatten().tolist() == [1, -1, 1]


def test_the_gradient_passes_straight_through():
    q, z = quantiser().eval(), latents().requires_grad_()
    upstream = torch.randn_like(z)
    for quantised in (q.quantise(z), q(z).latent):
        (gradient,) = torch.autograd.grad(quantised, z, upstream)
        assert torch.equal(gradient, upstream)
        assert (quantised.reshape(-1, 1) - q.codebook[:, 0]).abs().min(1).values.max() < 1e-12


@pytest.mark.parametrize("dim", [1, 3])
def test_commitment_loss_and_its_gradient(dim):
    q, z = quantiser(dim=dim).eval(), latents(dim=dim).requires_grad_()
    out = q(z)
    (gradient,) = torch.autograd.grad(out.commitment_loss, z)
    difference = z - out.latent
    torch.testing.assert_close(out.commitment_loss, 0.25 * difference.square().mean())
    torch.testing.assert_close(gradient, 0.25 * 2 * difference / z.numel())
    torch.testing.assert_close(q.codebook[out.codes].movedim(-1, 1), out.latent)


def test_perplexity_counts_the_codes_in_use():
    q = quantiser(8).eval()
    q.codebook[:, 0] = torch.arange(8)
    four = torch.tensor([0.0, 1.0, 2.0, 3.0]).double().view(1, 1, 2, 2)
    assert q(four).perplexity == pytest.approx(4)
    assert q(torch.zeros_like(four)).perplexity == pytest.approx(1)


@pytest.mark.parametrize("dim", [1, 2])
def test_the_codebook_is_the_moving_average_of_its_latents(dim):
    q = quantiser(5, dim, decay=0.9, dead_below=0.0)
    initial = q.codebook.clone()
    sums, counts = torch.zeros(5, dim, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    for _ in range(4):
        z = latents(dim=dim)
        codes = q(z).codes.flatten()
        vectors = z.movedim(1, -1).reshape(-1, dim)
        for code in range(5):
            sums[code] = 0.9 * sums[code] + 0.1 * vectors[codes == code].sum(0)
            counts[code] = 0.9 * counts[code] + 0.1 * (codes == code).sum()
        expected = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp_min(1e-9), initial)
        torch.testing.assert_close(q.codebook, expected)
        torch.testing.assert_close(q.use, counts)


def test_unused_codes_are_reseeded_with_latents_of_the_batch():
    q = quantiser(64)
    q.codebook += 1000
    z = latents()
    q(z)
    distance = (q.codebook - z.flatten()).abs().min(1).values
    # One code, the nearest of all those far ones, took every latent and moved to their mean.
    assert (distance < 1e-12).sum() >= 63
    assert q(z).perplexity > 30


def test_reseeding_spreads_over_the_batch_and_differs_from_update_to_update():
    q = quantiser(64)
    vectors = torch.zeros(4096, 1)
    first = q._order(vectors)
    q.updates += 1
    second = q._order(vectors)
    for chosen in (8, 64, 1000):
        assert torch.histc(first[:chosen].double(), 8, 0, 4096).sub(chosen / 8).abs().max() <= 2
    assert not set(first[:64].tolist()) & set(second[:64].tolist())
    q.updates += 10**9  # no overflow far on
    assert q._order(vectors).sort().values.equal(torch.arange(4096))


def test_no_latent_seeds_two_codes():
    """A batch smaller than the codebook seeds as many codes as it has latents; the others wait for the next."""
    q, z = quantiser(256), latents()
    q.codebook += 1000
    q(z)
    near = q.codebook[q.codebook[:, 0] < 500].flatten()
    # One code, the nearest of all those far ones, took every latent and moved to their mean.
    assert len(near.unique()) == len(near) == z.numel() + 1
    q(latents() + 1)
    assert (q.codebook[:, 0] < 500).sum() > len(near)


def test_training_touches_no_random_generator():
    books = []
    for seed in (1, 2):
        q, z = quantiser(300), latents()
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        q(z)
        assert torch.equal(torch.get_rng_state(), before)
        books.append(q.codebook)
    assert torch.equal(*books)


def test_evaluation_changes_nothing():
    q = quantiser().eval()
    before = {name: value.clone() for name, value in q.state_dict().items()}
    q(latents())
    assert all(torch.equal(before[name], value) for name, value in q.state_dict().items())


def test_codes_live_and_come_near_the_best_possible_error():
    q = quantiser(128, decay=0.9)
    for _ in range(100):
        out = q(latents(16))
    assert q.usage > 0.95
    assert out.perplexity > 90
    z = latents(64, side=30)
    # K codes for a unit Gaussian cannot err less than pi sqrt(3) / (2 K^2) (Panter & Dite 1951): 128 learned codes
    # beat the best 32.
    assert (q.quantise(z) - z).square().mean() < math.pi * math.sqrt(3) / 2 / 32**2
