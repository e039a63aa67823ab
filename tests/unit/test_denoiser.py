"""The 1-D UNet: Table 2 read back from the built network, its start, and what it refuses."""

import pytest
import torch

from fitdiff.diffusion import SpadeUNet1d
from fitdiff.diffusion.unet1d import CrossAttentionUNet1d, ResidualBlock, SelfAttention

SMALL = {"channels": 16, "channel_multipliers": (1, 2), "depth": 1, "heads": 2, "head_channels": 8, "spade_dim": 16}
LENGTH, DIM = 24, 6


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SpadeUNet1d(4254, 512), "length=4254 must be a multiple of 8 .* pad the latent to 4256"),
        (
            lambda: CrossAttentionUNet1d(LENGTH, DIM, **{**SMALL, "cond_dim": 7}),
            "cond_dim=7; a token .* is 8 positions",
        ),
        (
            lambda: SpadeUNet1d(LENGTH, DIM, **SMALL)(torch.zeros(2, 32), torch.zeros(2), None),
            r"got \(2, 32\), expected \(B, 24\)",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
