"""The linear path: a PCA in a given metric as scikit-learn's, and a prediction of what it has no numbers for."""

import pytest
import torch
from sklearn.decomposition import PCA

from fitdiff.autoencoder.layers import GridLinear
from fitdiff.autoencoder.linear_path import PREDICTED, LinearPath
from fitdiff.autoencoder.vqgan import BranchedVQGAN

SMALL = {"channels": 8, "channel_multipliers": (1, 1, 2, 2), "res_blocks": 1, "attention_resolutions": ()}
ALIKE = torch.ones(9)


def correlated_maps(n: int, resolution: int) -> torch.Tensor:
    """Maps that a few numbers explain."""
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(n, 12, generator=generator) * torch.linspace(3, 0.5, 12)
    maps = factors @ torch.randn(12, 9 * resolution**2, generator=generator) * 0.02
    return (maps - maps.mean(0)).view(n, 9, resolution, resolution)


def bent_maps(n: int) -> torch.Tensor:
    """8x8 maps on a surface: small directions that follow, not linearly, from two large ones."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, n, generator=generator) * 4 - 2
    factors = torch.stack([a, b, 0.3 * a * b, 0.2 * (a * a - 4 / 3), 0.2 * (b * b - 4 / 3)], 1)
    directions, _ = torch.linalg.qr(torch.randn(9 * 64, 5, generator=generator))
    maps = factors @ directions.T
    return (maps - maps.mean(0)).view(n, 9, 8, 8)


@pytest.mark.parametrize(
    "weight", [ALIKE, torch.tensor([2.0, 2, 2, 1, 1, 1, 0.5, 0.5, 0.5])], ids=["alike", "weighted"]
)
def test_its_leading_components_are_a_pca_in_the_metric_with_whitened_numbers(weight):
    maps = correlated_maps(200, 16)
    path = LinearPath(9 * 16**2, 6, width=64)
    path.fit(maps, weight)
    latent = path.encode(maps)
    assert torch.allclose(latent.square().mean(0), torch.ones(6), atol=1e-3)
    weighted = (maps * weight[:, None, None]).flatten(1).numpy()
    pca = PCA(6).fit(weighted)
    expected = torch.from_numpy(pca.inverse_transform(pca.transform(weighted))).float().view_as(maps)
    linear = (latent @ path.decoder[:, :6].T).view_as(maps)
    assert torch.allclose(linear * weight[:, None, None], expected, atol=2e-3)


def test_it_predicts_what_follows_from_its_numbers_also_of_others():
    maps = bent_maps(1500)
    path = LinearPath(9 * 64, 2, width=64)
    path.fit(maps[:1200], ALIKE)
    latent = path.encode(maps[1200:])
    linear = (latent @ path.decoder[:, :2].T).view(-1, 9, 8, 8)
    missing = (maps[1200:] - linear).square().sum()
    assert (maps[1200:] - path.decode(latent).view_as(linear)).square().sum() < 0.05 * missing


def test_noise_is_not_predicted():
    """Where nothing follows from the numbers, guessing costs little."""
    noise = torch.randn(1500, 9, 8, 8, generator=torch.Generator().manual_seed(0))
    path = LinearPath(9 * 64, 2, width=64)
    path.fit(noise[:1200] - noise[:1200].mean(0), ALIKE)
    latent = path.encode(noise[1200:])
    linear = (latent @ path.decoder[:, :2].T).view(-1, 9, 8, 8)
    errors = [(noise[1200:] - guess).square().mean() for guess in (path.decode(latent).view_as(linear), linear)]
    assert errors[0] < 1.05 * errors[1]


def test_fitting_is_deterministic_and_leaves_the_generator_alone():
    maps = correlated_maps(200, 16)
    before = torch.random.get_rng_state()
    torch.manual_seed(3)
    first, second = LinearPath(9 * 16**2, 6, width=64), LinearPath(9 * 16**2, 6, width=64)
    second.load_state_dict(first.state_dict())
    first.fit(maps, ALIKE)
    after = torch.random.get_rng_state()
    torch.manual_seed(9)
    second.fit(maps, ALIKE)
    assert all(torch.equal(a, second.state_dict()[name]) for name, a in first.state_dict().items())
    torch.manual_seed(3)
    LinearPath(9 * 16**2, 6, width=64), LinearPath(9 * 16**2, 6, width=64)
    assert torch.equal(after, torch.random.get_rng_state())
    torch.random.set_rng_state(before)


def test_too_few_people_are_refused():
    with pytest.raises(ValueError, match=f"got 5 people for {6 + PREDICTED}"):
        LinearPath(9 * 16**2, 6, width=64).fit(correlated_maps(5, 16), ALIKE)


def test_the_autoencoder_starts_as_its_linear_path():
    maps = correlated_maps(200, 32)
    autoencoder = BranchedVQGAN(32, **SMALL, linear_path=True, codebook_size=4096).eval()
    autoencoder.set_statistics(maps.mean(0), maps.square().mean().sqrt().expand(3))
    autoencoder.linear.fit(autoencoder.standardise(maps), ALIKE)
    latent = autoencoder.encode(maps)
    autoencoder.quantiser.codebook[:, 0] = torch.linspace(-4, 4, 4096)
    linear = autoencoder.linear.decode(latent.flatten(1)).view_as(maps) * autoencoder.scale[0] + autoencoder.mean
    assert (autoencoder.decode(latent) - linear).abs().max() < 1e-3
    assert (autoencoder.decode(latent) - maps).square().mean() < 0.05 * maps.square().mean()


def test_networks_learn_beside_the_path():
    maps = correlated_maps(200, 32)
    autoencoder = BranchedVQGAN(32, **SMALL, linear_path=True, codebook_size=256)
    autoencoder.linear.fit(maps, ALIKE)
    adam = torch.optim.Adam(autoencoder.parameters(), 1e-3)
    frozen = autoencoder.linear.encoder.clone()
    for _ in range(3):
        output = autoencoder(maps[:40])
        (output.reconstruction - maps[:40]).abs().mean().backward()
        adam.step()
        adam.zero_grad()
    assert autoencoder.decoder.convolve_out.weight.abs().max() > 0
    assert autoencoder.to_code.linear.weight.abs().max() > 0
    assert torch.equal(autoencoder.linear.encoder, frozen)


def test_the_decoder_refines_what_it_sees():
    """The same code beside other maps is decoded to another addition, and the paper's network sees none."""
    decoder = BranchedVQGAN(32, **SMALL, linear_path=True, codebook_size=8).eval().decoder
    torch.nn.init.normal_(decoder.convolve_out.weight)
    z, maps = torch.randn(1, 4, 4, 4), torch.randn(2, 9, 32, 32)
    added = decoder(z.expand(2, -1, -1, -1), maps) - maps
    assert (added[0] - added[1]).abs().mean() > 0.01
    assert BranchedVQGAN(32, **SMALL, codebook_size=8).decoder.see is None


def test_a_linear_layer_mixes_all_positions_of_a_grid():
    layer, x = GridLinear(2, 3, grid=(4, 5)), torch.randn(2, 2, 4, 5)
    expected = torch.einsum("opcij,bcij->bop", layer.linear.weight.view(3, 20, 2, 4, 5), x)
    assert layer(x).shape == (2, 3, 4, 5)
    torch.testing.assert_close(layer(x).flatten(2), expected + layer.linear.bias.view(3, 20))
