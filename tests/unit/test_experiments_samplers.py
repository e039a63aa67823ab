"""The experiment's arithmetic on numbers whose answer is known."""

import pytest
import torch

from experiments.samplers.compare import REFUSED, against, frechet, refused, unguided_table
from fitdiff.diffusion.schedule import ScaledLinear


def test_frechet_distance_of_shifted_and_scaled_samples():
    torch.manual_seed(0)
    a = torch.randn(4000, 5)
    assert frechet(a, a) == 0
    assert frechet(a + 3, a) == pytest.approx(3, abs=1e-5)
    assert frechet(2 * a, a) == pytest.approx(1, abs=0.05)


def test_paired_differences_have_an_interval_of_their_own():
    mean, half = against([1.0, 5.0, 9.0], [0.5, 4.5, 8.5])
    assert (mean, half) == (0.5, 0.0)
    mean, half = against([1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0])
    assert mean == 2.5
    assert half == pytest.approx(1.96 * (5 / 3) ** 0.5 / 2, abs=1e-5)


def test_solvers_on_a_scaled_latent_are_refused():
    assert refused(ScaledLinear()) == list(REFUSED)


def test_a_row_a_sampler_and_number_of_steps():
    row = {"identity": [0.5, 0.7], "shape_mm": [2.0, 3.0], "frechet": [0.1], "diversity": [1.0], "distance": [0.2, 0.4]}
    table = unguided_table({"ddim": {10: row, 50: row}})
    assert "| ddim | 10 | 0.600 | +0.000 ± 0.000 | 2.50 | +0.000 ± 0.000 | 0.100 | 1.00 | 0.300 |" in table
