"""The 1-D UNet: Table 2 read back from the built network, conditioning, shapes, gradients, training."""

import pytest
import torch
from torch import nn

from fitdiff.diffusion import ScaledLinear, SpadeUNet1d
from fitdiff.diffusion.unet1d import ResidualBlock, SelfAttention
from fitdiff.registry import build, config_of
from fitdiff.types import Denoiser

SMALL = {"channels": 16, "channel_multipliers": (1, 2), "depth": 1, "heads": 2, "head_channels": 8, "spade_dim": 16}
LENGTH, DIM = 24, 6


def small(**options):
    """A small network whose zero-initialised layers were given values, so that it does something."""
    torch.manual_seed(0)
    network = SpadeUNet1d(LENGTH, DIM, **{**SMALL, "cond_dim": 12, **options})
    for parameter in network.parameters():
        if parameter.abs().max() == 0:
            nn.init.normal_(parameter, std=0.1)
    return network.eval()


def inputs(batch=3):
    torch.manual_seed(1)
    return torch.randn(batch, LENGTH), torch.randint(1000, (batch,)), torch.randn(batch, DIM)


def modules(network, kind):
    return [module for module in network.modules() if isinstance(module, kind)]


def test_table_2_is_what_the_default_network_is_made_of():
    with torch.device("meta"):
        network = SpadeUNet1d(4256, 512)
    assert network.convolve_in.weight.shape[:2] == (192, 1)  # channels, input channels
    assert network.project.out_features == 1048  # cond dim
    assert {modulation.hidden.out_channels for modulation in network.modulations} == {128}  # SPADE dim
    widths = [[block.convolve_out.out_channels for block in modules(stage, ResidualBlock)] for stage in network.down]
    assert widths == [[192 * m] * 2 for m in (1, 2, 4, 8)]  # channels, mult, depth
    widths = [[block.convolve_out.out_channels for block in modules(stage, ResidualBlock)] for stage in network.up]
    assert widths == [[192 * m] * 3 for m in (8, 4, 2, 1)]
    assert {attention.qkv.out_channels for attention in modules(network, SelfAttention)} == {3 * 4 * 32}  # heads
    assert [modulation.length for modulation in network.modulations] == [4256, 2128, 1064, 532]
    assert not modules(network.down[0], SelfAttention)
    assert all(len(modules(stage, SelfAttention)) == 2 for stage in list(network.down)[1:])
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert 180e6 < parameters < 240e6


def test_starts_by_predicting_no_noise():
    z, t, embedding = inputs()
    assert SpadeUNet1d(LENGTH, DIM, **SMALL)(z, t, embedding).abs().max() == 0


def test_output_depends_on_the_step_and_the_embedding():
    network, (z, t, embedding) = small(), inputs()
    eps = network(z, t, embedding)
    assert eps.shape == z.shape
    assert not torch.allclose(network(z, (t + 500) % 1000, embedding), eps)
    difference = (network(z, t, embedding.flip(0)) - eps)[0].abs()
    assert (difference > 1e-6).all()  # at every position
    assert difference.std() > 0.1 * difference.mean()  # and not by a constant


def test_batch_equals_its_items():
    network, (z, t, embedding) = small(), inputs()
    items = [network(z[i : i + 1], t[i : i + 1], embedding[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(network(z, t, embedding), torch.cat(items))


def test_condition_computed_once_equals_the_plain_call():
    network, (z, t, embedding) = small(), inputs()
    torch.testing.assert_close(network(z, t, condition=network.condition(embedding)), network(z, t, embedding))
    torch.testing.assert_close(network(z, t, condition=network.condition(None)), network(z, t, None))
    shared = network.condition(embedding[:1])  # one photo, many samples
    torch.testing.assert_close(network(z, t, condition=shared), network(z, t, embedding[:1].expand(3, -1)))


def test_dropped_embeddings_give_the_null_condition():
    network, (z, t, embedding) = small(), inputs()
    drop = torch.tensor([True, False, True])
    mixed = network(z, t, embedding, drop_B=drop)
    torch.testing.assert_close(mixed[drop], network(z, t, None)[drop])
    torch.testing.assert_close(mixed[~drop], network(z, t, embedding)[~drop])
    assert not torch.allclose(mixed[drop], network(z, t, embedding)[drop])
    mixed.sum().backward()
    assert network.null_embedding.grad.abs().max() > 0


def test_the_embedding_is_standardised():
    network, (z, t, embedding) = small(), inputs()
    expected = network(z, t, embedding)
    mean, std = torch.randn(DIM), torch.rand(DIM) + 0.5
    network.set_embedding_statistics(mean, std)
    torch.testing.assert_close(network(z, t, embedding * std + mean), expected)


def test_gradients_reach_the_latent_the_embedding_and_every_parameter():
    network, (z, t, embedding) = small(), inputs()
    z.requires_grad_()
    embedding.requires_grad_()
    network(z, t, embedding, drop_B=torch.tensor([True, False, False])).square().sum().backward()
    assert (z.grad.abs().amax(1) > 0).all()
    assert (embedding.grad.abs().amax(1) > 0).tolist() == [False, True, True]
    assert [name for name, p in network.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []


def test_noise_keeps_the_latents_precision():
    network, (z, t, embedding) = small(), inputs()
    full = network(z, t, embedding)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = network(z, t, embedding)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, full, rtol=0, atol=0.05 * full.abs().max().item())
    double = network.double()(z.double(), t, embedding.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), full, rtol=1e-4, atol=1e-4)


def test_learns_one_batch():
    torch.manual_seed(0)
    network, schedule = SpadeUNet1d(LENGTH, DIM, **SMALL, cond_dim=12), ScaledLinear()
    z0, t, embedding = inputs(8)
    eps = torch.randn_like(z0)
    z_t = schedule.add_noise(z0, t, eps)
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    losses = []
    for _ in range(150):
        loss = (network(z_t, t, embedding) - eps).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0], losses[::15]


def test_registered_and_buildable_from_its_config():
    network = build(config_of("denoiser", "spade_unet1d", **SMALL), "denoiser", length=LENGTH, embedding_dim=DIM)
    assert isinstance(network, Denoiser)
    assert network(*inputs()).shape == (3, LENGTH)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SpadeUNet1d(4254, 512), "length=4254 must be a multiple of 8 .* pad the latent to 4256"),
        (lambda: small()(torch.zeros(2, 32), torch.zeros(2), None), r"got \(2, 32\), expected \(B, 24\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
