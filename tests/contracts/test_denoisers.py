"""What every registered denoiser promises: conditioning, shapes, batches, gradients, precision, learning."""

import pytest
import torch
from torch import nn

from fitdiff import registry
from fitdiff.diffusion import ScaledLinear
from fitdiff.types import Denoiser

registry.load_plugins()
SMALL = {"channels": 16, "channel_multipliers": (1, 2), "depth": 1, "heads": 2, "head_channels": 8, "spade_dim": 16, "cond_dim": 16}  # fmt: skip # noqa: E501
LENGTH, DIM = 24, 6

pytestmark = pytest.mark.parametrize("name", registry.names("denoiser"))


def build_small(name, **options):
    torch.manual_seed(0)
    node = registry.config_of("denoiser", name, **{**SMALL, **options})
    return registry.build(node, "denoiser", length=LENGTH, embedding_dim=DIM)


def small(name, **options):
    """A small network whose zero-initialised layers were given values, so that it does something."""
    network = build_small(name, **options)
    for parameter in network.parameters():
        if parameter.abs().max() == 0:
            nn.init.normal_(parameter, std=0.1)
    return network.eval()


def inputs(batch=3):
    torch.manual_seed(1)
    return torch.randn(batch, LENGTH), torch.randint(1000, (batch,)), torch.randn(batch, DIM)


def test_output_depends_on_the_step_and_the_embedding(name):
    network, (z, t, embedding) = small(name), inputs()
    eps = network(z, t, embedding)
    assert eps.shape == z.shape
    assert not torch.allclose(network(z, (t + 500) % 1000, embedding), eps)
    difference = (network(z, t, embedding.flip(0)) - eps)[0].abs()
    assert (difference > 1e-6).all()  # at every position
    assert difference.std() > 0.1 * difference.mean()  # and not by a constant


def test_batch_equals_its_items(name):
    network, (z, t, embedding) = small(name), inputs()
    items = [network(z[i : i + 1], t[i : i + 1], embedding[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(network(z, t, embedding), torch.cat(items))


def test_condition_computed_once_equals_the_plain_call(name):
    network, (z, t, embedding) = small(name), inputs()
    torch.testing.assert_close(network(z, t, condition=network.condition(embedding)), network(z, t, embedding))
    torch.testing.assert_close(network(z, t, condition=network.condition(None)), network(z, t, None))
    shared = network.condition(embedding[:1])  # one photo, many samples
    torch.testing.assert_close(network(z, t, condition=shared), network(z, t, embedding[:1].expand(3, -1)))


def test_dropped_embeddings_give_the_null_condition(name):
    network, (z, t, embedding) = small(name), inputs()
    drop = torch.tensor([True, False, True])
    mixed = network(z, t, embedding, drop_B=drop)
    torch.testing.assert_close(mixed[drop], network(z, t, None)[drop])
    torch.testing.assert_close(mixed[~drop], network(z, t, embedding)[~drop])
    assert not torch.allclose(mixed[drop], network(z, t, embedding)[drop])
    mixed.sum().backward()
    assert network.null_embedding.grad.abs().max() > 0


def test_the_embedding_is_standardised(name):
    network, (z, t, embedding) = small(name), inputs()
    expected = network(z, t, embedding)
    mean, std = torch.randn(DIM), torch.rand(DIM) + 0.5
    network.set_embedding_statistics(mean, std)
    torch.testing.assert_close(network(z, t, embedding * std + mean), expected)


def test_gradients_reach_the_latent_the_embedding_and_every_parameter(name):
    network, (z, t, embedding) = small(name), inputs()
    z.requires_grad_()
    embedding.requires_grad_()
    network(z, t, embedding, drop_B=torch.tensor([True, False, False])).square().sum().backward()
    assert (z.grad.abs().amax(1) > 0).all()
    assert (embedding.grad.abs().amax(1) > 0).tolist() == [False, True, True]
    assert [name for name, p in network.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []


def test_noise_keeps_the_latents_precision(name):
    network, (z, t, embedding) = small(name), inputs()
    full = network(z, t, embedding)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = network(z, t, embedding)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, full, rtol=0, atol=0.05 * full.abs().max().item())
    double = network.double()(z.double(), t, embedding.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), full, rtol=1e-4, atol=1e-4)


def test_learns_one_batch(name):
    torch.manual_seed(0)
    network, schedule = build_small(name), ScaledLinear()
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


def test_registered_and_buildable_from_its_config(name):
    network = build_small(name)
    assert isinstance(network, Denoiser)
    assert network(*inputs()).shape == (3, LENGTH)
