"""The codebook experiment's own quantiser: VQGAN's loss by the book, and codes that gradients move."""

import pytest
import torch
import torch.nn.functional as nnf

from experiments.training.codebook import WAYS, GradientQuantiser, chart, table

CODES = torch.tensor([[-1.0], [0.0], [2.0]])


def by_gradients() -> GradientQuantiser:
    quantiser = GradientQuantiser(3, 1, commitment=0.25)
    quantiser.codebook.data.copy_(CODES)
    return quantiser


def test_both_terms_and_whom_they_move():
    quantiser, latent = by_gradients(), torch.tensor([0.3, 1.6, 2.4, -0.8]).view(4, 1, 1, 1).requires_grad_()
    output = quantiser(latent)
    assert output.codes.flatten().tolist() == [1, 2, 2, 0]
    error = torch.tensor([0.3, -0.4, 0.4, 0.2])  # latent minus code
    assert output.commitment_loss.item() == pytest.approx(1.25 * error.square().mean().item())
    output.commitment_loss.backward()
    torch.testing.assert_close(latent.grad.flatten(), 0.25 * 2 * error / 4)
    torch.testing.assert_close(quantiser.codebook.grad.flatten(), -2 / 4 * torch.tensor([0.2, 0.3, 0.0]))


def test_reconstruction_moves_the_latent_straight_through_and_no_code():
    quantiser, latent = by_gradients(), torch.tensor([0.3, 1.6]).view(2, 1, 1, 1).requires_grad_()
    nnf.mse_loss(quantiser(latent).latent, torch.zeros(2, 1, 1, 1)).backward()
    torch.testing.assert_close(latent.grad.flatten(), torch.tensor([0.0, 2.0]))
    assert quantiser.codebook.grad is None


def test_codes_that_no_latent_uses_stay_unless_they_are_re_seeded():
    latent = torch.linspace(0.9, 1.1, 64).view(4, 1, 4, 4)
    for way, make in WAYS.items():
        quantiser = make(8, 1).train()
        with torch.no_grad():
            quantiser.codebook.copy_(torch.linspace(-4, 3, 8)[:, None])
            quantiser(latent)
        unused = quantiser.codebook[:, 0] < 0
        assert unused.any() != ("ours" in way), way


def test_the_table_tells_the_last_measurement():
    row = {"codes": 4, "share": 0.5, "perplexity": 3.0, "diffuse": 30.0, "specular": 31.0, "normals": 45.0}
    curves = {(True, 8, "gradients"): [{"step": 1, **row}, {"step": 2, **row, "codes": 2, "share": 0.25}]}
    assert table(curves).splitlines()[-1] == "| yes | 8 | gradients | 2 | 25% | 3 | 30.0 | 31.0 | 45.0 |"
    assert len(chart(curves).axes[0].lines) == 1
