"""Separate models for shape and reflectance: one budget, no crossing, and to callers one denoiser."""

import copy
import itertools

import pytest
import torch
from torch import nn

from fitdiff.diffusion import ScaledLinear, conditioned
from fitdiff.diffusion import separate as separate_module
from fitdiff.diffusion.separate import SeparateDenoiser, build_separate, equal_budget_widths
from fitdiff.diffusion.velocity import VelocityDenoiser
from fitdiff.latent import LatentSpace
from fitdiff.registry import build, config_of
from fitdiff.types import Denoiser

DIM = 6
LATENT = LatentSpace(5, (1, 4, 4))  # 5 + 16 used of 24: both parts and z itself are padded
SHAPE, MAPS = LATENT.parts
NODE = config_of(
    "denoiser", "spade_unet1d", channels=32, channel_multipliers=[1, 2], depth=1, heads=2, head_channels=8,
    spade_dim=8, cond_dim=8,
)  # fmt: skip


def separate() -> SeparateDenoiser:
    """Two networks whose zero-initialised layers were given values, so that they do something."""
    torch.manual_seed(0)
    denoiser = build_separate(NODE, LATENT.parts, LATENT.length, LATENT.multiple, DIM)
    for parameter in denoiser.parameters():
        if parameter.abs().max() == 0:
            nn.init.normal_(parameter, std=0.1)
    return denoiser.eval()


def inputs(batch=3):
    torch.manual_seed(1)
    return torch.randn(batch, LATENT.length), torch.randint(1000, (batch,)), torch.randn(batch, DIM)


def test_each_network_predicts_its_own_part():
    denoiser, (z, t, embedding) = separate(), inputs()
    shape, maps = denoiser.networks
    eps = denoiser(z, t, embedding)
    padded = torch.cat([z[:, SHAPE], torch.zeros(3, 3)], 1)
    torch.testing.assert_close(eps[:, SHAPE], shape(padded, t, embedding)[:, :5])
    torch.testing.assert_close(eps[:, MAPS], maps(z[:, MAPS], t, embedding))
    assert eps.shape == z.shape
    assert (eps[:, LATENT.used :] == 0).all()


def test_nothing_crosses_between_the_networks():
    denoiser, (z, t, embedding) = separate(), inputs()
    z.requires_grad_()
    shape, maps = denoiser.networks
    for own, other, part, rest in ((shape, maps, SHAPE, MAPS), (maps, shape, MAPS, SHAPE)):
        z.grad = None
        denoiser.zero_grad()
        denoiser(z, t, embedding, drop_B=torch.tensor([True, False, False]))[:, part].square().sum().backward()
        assert all(parameter.grad.any() for parameter in own.parameters())
        assert all(parameter.grad is None or not parameter.grad.any() for parameter in other.parameters())
        assert z.grad[:, part].any()
        assert not z.grad[:, rest].any()


def test_condition_drop_out_guidance_and_statistics_reach_both():
    denoiser, (z, t, embedding) = separate(), inputs()
    assert isinstance(denoiser, Denoiser)
    torch.testing.assert_close(denoiser(z, t, condition=denoiser.condition(embedding)), denoiser(z, t, embedding))
    null = denoiser(z, t, None)
    for part in LATENT.parts:
        assert not torch.allclose(null[:, part], denoiser(z, t, embedding)[:, part])
    mixed = denoiser(z, t, embedding, drop_B=torch.tensor([True, False, True]))
    torch.testing.assert_close(mixed[::2], null[::2])
    guided = conditioned(VelocityDenoiser(denoiser, ScaledLinear()), embedding, 3.0)(z, t)
    plain = VelocityDenoiser(denoiser, ScaledLinear())
    torch.testing.assert_close(guided, plain(z, t, None) + 3 * (plain(z, t, embedding) - plain(z, t, None)))
    expected, mean, std = denoiser(z, t, embedding), torch.randn(DIM), torch.rand(DIM) + 0.5
    copied = copy.deepcopy(denoiser)  # as the moving average does
    copied.set_embedding_statistics(mean, std)
    torch.testing.assert_close(copied(z, t, embedding * std + mean), expected)
    assert torch.equal(copied.embedding_mean, mean)


def test_networks_without_a_condition_to_precompute():
    class Plain(nn.Module):
        def forward(self, z, t, embedding):
            return z * (0 if embedding is None else embedding[:, :1])

    z, t, embedding = inputs()
    denoiser = VelocityDenoiser(SeparateDenoiser([Plain(), Plain()], LATENT.parts, (3, 0)), ScaledLinear())
    assert not hasattr(denoiser, "condition")
    torch.testing.assert_close(conditioned(denoiser, embedding)(z, t), denoiser(z, t, embedding))


@pytest.mark.parametrize("channels", [24, 32, 40, 64])
def test_two_networks_have_the_parameters_of_one(channels):
    def count(width, length):
        network = build({**NODE, "channels": width}, "denoiser", length=length, embedding_dim=DIM)
        return sum(parameter.numel() for parameter in network.parameters())

    widths = equal_budget_widths({**NODE, "channels": channels}, (8, 16), 24, DIM)
    together = sum(count(width, length) for width, length in zip(widths, (8, 16), strict=True))
    assert together == pytest.approx(count(channels, 24), rel=0.02)
    assert widths[0] <= widths[1] < channels


@pytest.mark.parametrize(("channels", "lengths"), [(40, (8, 16)), (56, (8, 64)), (96, (16, 16))])
def test_the_widths_are_the_best_of_all(channels, lengths):
    """The most equal pair within 2%, then the closest one: all pairs of the roundest widths are tried."""

    def count(width, length):
        with torch.device("meta"):
            network = build({**NODE, "channels": width}, "denoiser", length=length, embedding_dim=DIM)
        return sum(parameter.numel() for parameter in network.parameters())

    budget = count(channels, sum(lengths))
    for step in (4, 2):
        widths = range(-(-channels // (2 * step)) * step, channels, step)
        counts = [{width: count(width, length) for width in widths} for length in lengths]
        pairs = [(a, b) for a, b in itertools.product(widths, widths) if a <= b]
        errors = {(a, b): abs((counts[0][a] + counts[1][b]) / budget - 1) for a, b in pairs}
        good = [(b - a, error, (a, b)) for (a, b), error in errors.items() if error <= 0.02]
        if good:
            break
    assert equal_budget_widths({**NODE, "channels": channels}, lengths, sum(lengths), DIM) == min(good)[2]


def test_few_networks_are_built_for_it(monkeypatch):
    built = []
    monkeypatch.setattr(separate_module, "build", lambda *_, **options: built.append(0) or build(*_, **options))
    equal_budget_widths({**NODE, "channels": 512}, (8, 16), 24, DIM)
    assert len(built) < 30


def test_without_a_width_to_narrow_the_message_says_so():
    with pytest.raises(ValueError, match=r"model\.separate narrows denoiser.channels, and some\.Net has none"):
        equal_budget_widths({"_target_": "some.Net"}, (8, 16), 24, DIM)
    with pytest.raises(ValueError, match=r"no 2 widths below denoiser\.channels=4 .* choose another"):
        equal_budget_widths({**NODE, "channels": 4}, (8, 16), 24, DIM)
