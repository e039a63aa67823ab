"""The linear path is a PCA: same reconstruction as scikit-learn's, and the start of the autoencoder that has it."""

import pytest
import torch
from sklearn.decomposition import PCA

from fitdiff.autoencoder.linear_path import LinearPath
from fitdiff.autoencoder.vqgan import BranchedVQGAN

SMALL = {"channels": 8, "channel_multipliers": (1, 1, 2, 2), "res_blocks": 1, "attention_resolutions": ()}


def correlated_maps(n: int, resolution: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(n, 12, generator=generator) * torch.linspace(3, 0.5, 12)
    maps = factors @ torch.randn(12, 9 * resolution**2, generator=generator) * 0.02
    return (maps - maps.mean(0)).view(n, 9, resolution, resolution)


def test_it_reconstructs_as_a_pca_does_with_whitened_numbers():
    maps = correlated_maps(60, 16)
    path = LinearPath(9 * 16**2, 6)
    path.fit(maps)
    latent = path.encode(maps)
    assert torch.allclose(latent.square().mean(0), torch.ones(6), atol=1e-3)
    pca = PCA(6).fit(maps.flatten(1).numpy())
    expected = pca.inverse_transform(pca.transform(maps.flatten(1).numpy()))
    assert torch.allclose(path.decode(latent), torch.from_numpy(expected).float(), atol=2e-3)


def test_fitting_is_deterministic_and_leaves_the_generator_alone():
    maps, first, second = correlated_maps(60, 16), LinearPath(9 * 16**2, 6), LinearPath(9 * 16**2, 6)
    before = torch.random.get_rng_state()
    first.fit(maps)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(9)
    second.fit(maps)
    assert torch.equal(first.encoder, second.encoder)


def test_too_few_people_are_refused():
    with pytest.raises(ValueError, match="got 5 people for 6"):
        LinearPath(9 * 16**2, 6).fit(correlated_maps(5, 16))


def test_the_autoencoder_starts_as_its_linear_path():
    maps = correlated_maps(60, 32)
    autoencoder = BranchedVQGAN(32, **SMALL, linear_path=True, codebook_size=4096).eval()
    autoencoder.set_statistics(maps.mean(0), maps.square().mean().sqrt().expand(3))
    autoencoder.linear.fit(autoencoder.standardise(maps))
    latent = autoencoder.encode(maps)
    autoencoder.quantiser.codebook[:, 0] = torch.linspace(-4, 4, 4096)
    linear = autoencoder.linear.decode(latent.flatten(1)).view_as(maps) * autoencoder.scale[0] + autoencoder.mean
    assert (autoencoder.decode(latent) - linear).abs().max() < 1e-3
    assert (autoencoder.decode(latent) - maps).square().mean() < 0.05 * maps.square().mean()


def test_networks_learn_beside_the_path():
    maps = correlated_maps(40, 32)
    autoencoder = BranchedVQGAN(32, **SMALL, linear_path=True, codebook_size=256)
    autoencoder.linear.fit(maps)
    adam = torch.optim.Adam(autoencoder.parameters(), 1e-3)
    frozen = autoencoder.linear.encoder.clone()
    for _ in range(3):
        output = autoencoder(maps)
        (output.reconstruction - maps).abs().mean().backward()
        adam.step()
        adam.zero_grad()
    assert autoencoder.decoder.convolve_out.weight.abs().max() > 0
    assert autoencoder.to_code.weight.abs().max() > 0
    assert torch.equal(autoencoder.linear.encoder, frozen)
