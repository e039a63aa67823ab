"""The branched PatchGAN and the adversarial losses."""

import pytest
import torch
from torch import nn

from fitdiff.autoencoder import BranchedDiscriminator
from fitdiff.autoencoder.losses import adaptive_weight, generator_loss, hinge_discriminator_loss


@pytest.fixture
def discriminator():
    torch.manual_seed(0)
    return BranchedDiscriminator(channels=4).eval()


def test_default_is_vqgans_patchgan():
    with torch.device("meta"):
        network = BranchedDiscriminator()
    for features, channels in ((network.albedo, 6), (network.normals, 3)):
        widths = [module.out_channels for module in features if isinstance(module, nn.Conv2d)]
        assert widths == [64, 128, 256, 512]
        assert features[0].in_channels == channels
    assert network.last.weight.shape == (1, 512, 4, 4)


def test_a_logit_sees_70_texels_of_its_own_maps(discriminator):
    x = torch.randn(1, 9, 128, 128, requires_grad=True)
    logits = discriminator(x)
    assert logits.shape == (1, 2, 14, 14)
    for branch, own, other in ((0, slice(0, 6), slice(6, 9)), (1, slice(6, 9), slice(0, 6))):
        (gradient,) = torch.autograd.grad(logits[0, branch, 7, 7], x, retain_graph=True)
        assert gradient[:, other].abs().max() == 0
        seen = gradient[0, own].abs().sum(0) > 0
        assert seen.any(0).sum() == seen.any(1).sum() == 70


def test_both_copies_share_the_last_convolution(discriminator):
    x = torch.randn(1, 9, 64, 64)
    before = discriminator(x)
    with torch.no_grad():
        discriminator.last.bias += 1
    torch.testing.assert_close(discriminator(x), before + 1)


def test_hinge_loss_is_zero_beyond_the_margins_and_linear_inside():
    assert hinge_discriminator_loss(torch.tensor([1.0, 3.0]), torch.tensor([-1.0, -5.0])) == 0
    assert hinge_discriminator_loss(torch.tensor([0.5]), torch.tensor([0.25])) == 0.5 * (0.5 + 1.25)
    assert generator_loss(torch.tensor([[1.0, 2.0]])) == -1.5


def test_adaptive_weight_equalises_the_gradients_at_the_last_layer():
    torch.manual_seed(0)
    last = nn.Linear(5, 5, bias=False).double()
    y = last(torch.randn(7, 5, dtype=torch.float64))
    reconstruction, adversarial = 30 * y.square().mean(), y.sin().mean()
    weight = adaptive_weight(reconstruction, adversarial, last.weight)
    (wanted,) = torch.autograd.grad(reconstruction, last.weight, retain_graph=True)
    (actual,) = torch.autograd.grad(weight * adversarial, last.weight)
    torch.testing.assert_close(actual.norm(), wanted.norm(), rtol=1e-2, atol=0)
    assert not weight.requires_grad
