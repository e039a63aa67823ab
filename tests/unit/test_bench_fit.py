"""Costs that are known in closed form, and the benchmark of a fit from end to end."""

import json

import pytest
import torch
from rich.console import Console

from fitdiff.fitting import bench
from fitdiff.fitting.cost import Cost, Part, cost_of


def test_a_matrix_product_costs_what_the_book_says():
    weight = torch.randn(8, 16)
    cost = cost_of(Part(lambda x: x @ weight.t(), (torch.randn(4, 16),)))
    assert cost.flop == 2 * (2 * 4 * 8 * 16)  # the product, and the gradient of its input
    products = 4 * ((4 * 16 + 8 * 16 + 4 * 8) + (4 * 8 + 8 * 16 + 4 * 16))
    assert products <= cost.bytes <= 2 * products  # and the copy, the sum and its gradient


def test_views_are_free_and_a_closed_form_takes_precedence():
    x = torch.randn(1000, 1000)
    assert cost_of(Part(lambda x: x.t()[:1, :1], (x,))).bytes < 5 * x.nbytes
    assert cost_of(Part(lambda x: x * 2, (x,), bytes=7.0)).bytes == 7


def test_gradients_of_a_part_are_those_of_its_sum():
    x, y = torch.randn(3), torch.randn(3)
    gradients = Part(lambda a, b: (a * b, a), (x, y)).backward()
    torch.testing.assert_close(gradients, (y + 1, x))


def test_the_slower_of_arithmetic_and_traffic_is_the_limit():
    assert Cost(flop=10, bytes=1).limit(peak=5, bandwidth=1) == 2
    assert Cost(flop=10, bytes=9).limit(peak=5, bandwidth=1) == 9


def test_the_benchmark_tells_parts_and_fits(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "matrix_peak", lambda device, dtype: 1e11)
    monkeypatch.setattr(bench, "copy_bandwidth", lambda device: 1e10)
    options = bench.Options(batch=[2], steps=1, repeats=1, fits=1, size=64, device="cpu", threads=1, out=str(tmp_path))
    bench._run(options, Console(quiet=True))
    report = json.loads((tmp_path / "bench.json").read_text())
    names = [row["name"] for row in report["parts, batch 2"]]
    assert names[:4] == ["denoiser", "decoder", "shape model", "renderer"]
    assert all(row["flop"] > 0 for row in report["parts, batch 2"] if "network" in row["name"])
    assert set(report["fits"]["2"]) == {"through the denoiser", "stopped at z0_hat"}


def test_an_unknown_device_is_named(tmp_path):
    with pytest.raises(ValueError, match="warp9"):
        bench._run(bench.Options(device="warp9", out=str(tmp_path)), Console(quiet=True))
