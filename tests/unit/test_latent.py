"""z packs and unpacks without loss, standardised per position."""

import torch

from fitdiff.latent import LatentSpace


def test_round_trip_and_padding():
    space = LatentSpace(5, (1, 4, 4))
    assert (space.used, space.length) == (21, 24)
    latents = 3 * torch.randn(50, 1, 4, 4) + torch.arange(16.0).view(1, 1, 4, 4)
    space.set_statistics(latents.mean(0), latents.std(0))
    codes = torch.randn(50, 5)
    z = space.pack(codes, latents)
    assert z.shape == (50, 24)
    assert torch.all(z[:, 21:] == 0)
    assert torch.allclose(z[:, 5:21].mean(0), torch.zeros(16), atol=1e-5)
    assert torch.allclose(z[:, 5:21].std(0), torch.ones(16), atol=1e-5)
    back_codes, back_latents = space.unpack(z)
    assert torch.equal(back_codes, codes)
    assert torch.allclose(back_latents, latents, atol=1e-5)


def test_rows_are_flattened_row_by_row():
    space = LatentSpace(0, (1, 2, 3), multiple=1)
    z = space.pack(torch.zeros(1, 0), torch.arange(6.0).view(1, 1, 2, 3))
    assert z[0].tolist() == [0, 1, 2, 3, 4, 5]


def test_dead_positions_are_not_blown_up():
    space = LatentSpace(0, (1, 1, 4), multiple=1)
    latents = torch.randn(1000, 1, 1, 4) * torch.tensor([1.0, 1.0, 1.0, 1e-6])
    space.set_statistics(latents.mean(0), latents.std(0))
    assert space.std[0, 0, 3] > 0.03
