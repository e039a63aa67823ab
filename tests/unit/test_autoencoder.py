"""The branched VQGAN: Table 1 read back from the built network, branches that do not mix, gradients, training."""

import pytest
import torch
from torch import nn

from fitdiff.autoencoder import BranchedVQGAN
from fitdiff.autoencoder.layers import Downsample, ResidualBlock, SelfAttention, Upsample
from fitdiff.registry import build, config_of
from fitdiff.types import Autoencoder

SMALL = {"channels": 8, "channel_multipliers": (1, 2, 4), "res_blocks": 1, "codebook_size": 64}
DIFFUSE, SPECULAR, NORMALS = slice(0, 3), slice(3, 6), slice(6, 9)
STEMS = pytest.mark.parametrize("stem", ["conv", "patch"])


def small(stem="conv", **options):
    torch.manual_seed(0)
    return BranchedVQGAN(32, **{**SMALL, "stem": stem, "attention_resolutions": (8,), **options})


def paper(resolution):
    with torch.device("meta"):
        return BranchedVQGAN(resolution)


def modules(network, kind):
    return [module for module in network.modules() if isinstance(module, kind)]


def test_table_1_is_what_the_default_network_is_made_of():
    network = paper(512)
    assert network.latent_shape == (1, 64, 64)  # f = 8, embedding dim 1
    assert network.quantiser.codebook.shape == (16384, 1)  # |Z|, embedding dim
    assert network.to_code.in_channels == network.from_code.out_channels == 4  # z channels
    assert network.quantiser.commitment == 0.25
    assert [block.residual[2].out_channels for block in modules(network.encoder.branches, ResidualBlock)] == [
        3 * 128
    ] * 2
    trunk = [block.residual[2].out_channels for block in modules(network.encoder.trunk, ResidualBlock)]
    assert trunk == [128 * m for m in (2, 2, 2, 2, 4, 4)] + [512] * 2  # mult 1,2,2,4, two blocks a level, bottleneck
    up = [block.residual[2].out_channels for block in modules(network.decoder.trunk, ResidualBlock)]
    assert up == [512] * 2 + [128 * m for m in (4, 4, 4, 2, 2, 2, 2, 2, 2)]


@pytest.mark.parametrize(("resolution", "encoder", "decoder"), [(256, 3, 4), (512, 1, 1)])
def test_attention_at_resolution_32_and_in_the_bottleneck(resolution, encoder, decoder):
    network = paper(resolution)
    assert len(modules(network.encoder, SelfAttention)) == encoder
    assert len(modules(network.decoder, SelfAttention)) == decoder


def test_first_down_and_last_up_stage_exist_three_times_and_the_rest_once():
    network = paper(512)
    downs, ups = modules(network.encoder, Downsample), modules(network.decoder, Upsample)
    assert [down.convolve.groups for down in downs] == [3, 1, 1]
    assert [up.convolve.out_channels // up.convolve.in_channels for up in ups] == [1, 1, 3]
    for stage, groups in ((network.encoder.branches, 3), (network.encoder.trunk, 1), (network.decoder.trunk, 1)):
        assert {convolution.groups for convolution in modules(stage, nn.Conv2d)} == {groups}


@STEMS
def test_three_branches_equal_three_separate_networks(stem):
    network = small(stem).eval()
    grouped = network.encoder.branches
    x = torch.randn(2, 9, 32, 32)
    together = grouped(x)
    for branch, channels in enumerate((DIFFUSE, SPECULAR, NORMALS)):
        alone = torch.randn_like(x)
        alone[:, channels] = x[:, channels]
        torch.testing.assert_close(grouped(alone).chunk(3, 1)[branch], together.chunk(3, 1)[branch])


@STEMS
def test_maps_meet_in_the_latent_only(stem):
    network = small(stem).eval()
    x = torch.randn(1, 9, 32, 32)
    latent = network.encode(x)
    before = network.decode(latent)
    for channels in (DIFFUSE, SPECULAR, NORMALS):
        changed = x.clone()
        changed[:, channels] += 1
        assert not torch.allclose(network.encode(changed), latent)  # the trunk sees all maps
    with torch.no_grad():  # with the latent fixed, the head of the normals reaches the normals only
        network.decoder.convolve_out.weight[2 * len(network.decoder.convolve_out.weight) // 3 :] += 1
    after = network.decode(latent)
    assert torch.equal(after[:, :6], before[:, :6])
    assert not torch.allclose(after[:, NORMALS], before[:, NORMALS])


@STEMS
def test_decode_gives_the_reconstruction_and_a_gradient(stem):
    network = small(stem).eval()
    output = network(torch.randn(3, 9, 32, 32))
    latent = output.latent.detach().requires_grad_()
    decoded = network.decode(latent)
    assert decoded.shape == (3, 9, 32, 32)
    assert latent.shape[1:] == network.latent_shape == (1, 8, 8)
    torch.testing.assert_close(decoded, output.reconstruction)
    decoded.square().sum().backward()
    assert (latent.grad.abs().amax((1, 2, 3)) > 0).all()


def test_decode_never_updates_the_codebook():
    network = small().train()
    before = network.quantiser.codebook.clone()
    network.decode(torch.randn(2, 1, 8, 8))
    assert torch.equal(network.quantiser.codebook, before)
    network(torch.randn(2, 9, 32, 32))
    assert not torch.equal(network.quantiser.codebook, before)


def test_statistics_standardise_the_input_and_are_undone_at_the_output():
    network = small().eval()
    x = torch.randn(2, 9, 32, 32)
    mean, std = torch.randn(9, 32, 32), torch.tensor([2.0, 0.5, 1e-6])
    latent, reconstruction = network.encode(x), network(x).reconstruction
    network.set_statistics(mean, std)
    scale = torch.tensor([2.0, 0.5, network.scale_floor]).repeat_interleave(3)[:, None, None]  # the normals' floor
    torch.testing.assert_close(network.encode(x * scale + mean), latent, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(network.decode(latent), reconstruction * scale + mean)


def test_batch_equals_its_items():
    network = small().eval()
    x = torch.randn(3, 9, 32, 32)
    batch = network(x)
    items = [network(x[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(batch.reconstruction, torch.cat([item.reconstruction for item in items]))
    assert torch.equal(batch.codes, torch.cat([item.codes for item in items]))


def test_latent_and_codes_keep_full_precision_under_autocast():
    network = small().eval()
    x = torch.randn(2, 9, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        output = network(x)
    full = network(x)
    assert output.latent.dtype == output.reconstruction.dtype == torch.float32
    torch.testing.assert_close(output.latent, full.latent, rtol=0, atol=0.05)
    torch.testing.assert_close(network.quantiser(output.latent).codes, output.codes)


def test_checkpointed_activations_give_the_same_gradients():
    gradients = []
    for checkpoint in (False, True):
        network = small(checkpoint_activations=checkpoint).double()
        torch.manual_seed(1)
        network(torch.randn(2, 9, 32, 32, dtype=torch.float64)).reconstruction.square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    torch.testing.assert_close(*gradients)


@STEMS
def test_learns_one_batch(stem):
    torch.manual_seed(0)
    network = BranchedVQGAN(16, **SMALL, stem=stem)
    x = nn.functional.interpolate(torch.randn(2, 9, 4, 4), 16, mode="bilinear")
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    losses = []
    for _ in range(60):
        output = network(x)
        loss = (output.reconstruction - x).abs().mean()
        optimiser.zero_grad()
        (loss + output.commitment_loss).backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0], losses[::10]


def test_registered_and_buildable_from_its_config():
    network = build(config_of("autoencoder", "vqgan", **SMALL), "autoencoder", resolution=64)
    assert isinstance(network, Autoencoder)
    assert network.latent_shape == (1, 16, 16)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BranchedVQGAN(60), "resolution=60 must be a multiple of 8"),
        (lambda: BranchedVQGAN(64, stem="fourier"), "use 'conv' or 'patch'"),
        (lambda: small().encode(torch.zeros(1, 9, 64, 64)), r"got \(1, 9, 64, 64\), expected \(B, \*\(9, 32, 32\)\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
