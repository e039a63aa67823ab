"""SPADE, attention and the time embedding against their definitions."""

import math

import pytest
import torch

from fitdiff.diffusion.conditioning import (
    PATCH,
    CrossAttention,
    FilmModulation,
    SpadeModulation,
    TokenModulation,
    spade,
)
from fitdiff.diffusion.unet1d import SelfAttention, TimeEmbedding, Upsample


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_spade_normalises_without_parameters_then_modulates_every_position():
    h, gamma, beta = double(2, 48, 10), double(2, 48, 10), double(2, 48, 10)
    groups = h.view(2, 16, 3, 10)  # the most groups up to 32 that divide 48
    mean, variance = groups.mean((2, 3), keepdim=True), groups.var((2, 3), keepdim=True, unbiased=False)
    normal = ((groups - mean) / (variance + 1e-5).sqrt()).view_as(h)
    torch.testing.assert_close(spade(h, (gamma, beta)), (1 + gamma) * normal + beta)


def test_spade_forgets_scale_and_shift_of_its_input():
    h, zero = double(2, 32, 10), torch.zeros(2, 32, 10, dtype=torch.float64)
    torch.testing.assert_close(spade(1000 * h + 7, (zero, zero)), spade(h, (zero, zero)), rtol=1e-3, atol=1e-4)


def test_spade_gradients():
    layer = SpadeModulation(length=6, channels=4, layers=2, hidden=3).double()
    signal, h = double(2, 1, 5).requires_grad_(), double(2, 4, 6).requires_grad_()

    def through(signal, h, *_):
        first, second = layer(signal)
        return spade(spade(h, first), second)

    assert torch.autograd.gradcheck(through, (signal, h, *layer.parameters()))


def test_modulation_is_local_and_each_layer_has_its_own():
    layer = SpadeModulation(length=12, channels=4, layers=2, hidden=8).double()
    signal = double(1, 1, 12)
    changed = signal.clone()
    changed[..., 5] += 1
    for (gamma, beta), (other_gamma, other_beta) in zip(layer(signal), layer(changed), strict=True):
        assert gamma.shape == beta.shape == (1, 4, 12)
        for before, after in ((gamma, other_gamma), (beta, other_beta)):
            moved = (before != after).any(1)[0]
            assert moved.nonzero().flatten().tolist() == [4, 5, 6]
    (first, _), (second, _) = layer(signal)
    assert not torch.allclose(first, second)


def test_attention_equals_its_definition():
    layer = SelfAttention(8, heads=2, head_channels=3).double()
    torch.nn.init.normal_(layer.project.weight)
    x = double(2, 8, 5)
    query, key, value = layer.qkv(layer.norm(x)).view(2, 3, 2, 3, 5).unbind(1)  # (batch, heads, channels, positions)
    weights = torch.einsum("bhcl,bhcm->bhlm", query, key).div(math.sqrt(3)).softmax(-1)
    attended = torch.einsum("bhlm,bhcm->bhcl", weights, value).reshape(2, 6, 5)
    torch.testing.assert_close(layer(x), x + layer.project(attended))


def test_film_is_spade_whose_modulation_is_the_same_at_all_positions():
    layer = FilmModulation(cond_dim=5, channels=4, layers=2, hidden=3).double()
    signal, h = double(2, 1, 5).requires_grad_(), double(2, 4, 6).requires_grad_()
    for gamma, beta in layer(signal):
        assert gamma.shape == beta.shape == (2, 4, 1)
        everywhere = gamma.expand(-1, -1, 6), beta.expand(-1, -1, 6)
        torch.testing.assert_close(spade(h, (gamma, beta)), spade(h, everywhere))
    assert torch.autograd.gradcheck(lambda s, h, *_: spade(h, layer(s)[1]), (signal, h, *layer.parameters()))


def test_cross_attention_equals_its_definition():
    tokens, attention = TokenModulation(20, 6, 2, 5).double(), CrossAttention(8, heads=2, head_channels=3).double()
    h, signal = double(2, 8, 5), double(2, 1, 20)
    patches = signal[..., : 2 * PATCH].unflatten(2, (2, PATCH))[:, 0]  # 20 positions hold two tokens
    hidden = torch.einsum("bkp,hp->bhk", patches, tokens.hidden.weight[:, 0]) + tokens.hidden.bias[:, None]
    told = tokens.modulate(torch.nn.functional.silu(hidden + tokens.position))
    key, value = told[:, 12:18], told[:, 18:]  # of the second block
    for ours, expected in zip(tokens(signal)[1], (key, value), strict=True):
        torch.testing.assert_close(ours, expected)
    normal = torch.nn.functional.group_norm(h, 8)
    query, key, value = (x.unflatten(1, (2, 3)) for x in (attention.query(normal), key, value))
    weights = torch.einsum("bhcl,bhck->bhlk", query, key).div(math.sqrt(3)).softmax(-1)
    attended = torch.einsum("bhlk,bhck->bhcl", weights, value).flatten(1, 2)
    torch.testing.assert_close(attention(h, tokens(signal)[1]), normal + attention.project(attended))


def test_tokens_cannot_change_places_unseen():
    tokens, attention = TokenModulation(16, 6, 1, 5).double(), CrossAttention(8, 2, 3).double()
    h, signal = double(1, 8, 5), double(1, 1, 16)
    swapped = torch.cat([signal[..., 8:], signal[..., :8]], -1)
    assert not torch.allclose(attention(h, tokens(signal)[0]), attention(h, tokens(swapped)[0]))


def test_upsampling_repeats_each_position():
    layer = Upsample(1)
    torch.nn.init.zeros_(layer.convolve.bias)
    with torch.no_grad():
        layer.convolve.weight.copy_(torch.tensor([[[0.0, 1.0, 0.0]]]))
    assert layer(torch.tensor([[[1.0, 2.0]]])).tolist() == [[[1, 1, 2, 2]]]


def test_time_embedding_tells_all_steps_apart():
    embedded = TimeEmbedding(32)(torch.arange(1000))
    distance = torch.cdist(embedded, embedded) + torch.eye(1000) * 1e9
    assert distance.min() > 1e-4
