"""The training benchmark: fair rivals, counted work, filled tables."""

from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from torch import nn

from fitdiff.training import bench, bench_steps, rivals
from fitdiff.training.bench import Bench, Measured, Options
from fitdiff.training.bench_steps import Contender, compose_scale, kinds_of_steps, network_step, period_of


@pytest.fixture
def quick(monkeypatch):
    """A bench on the CPU whose machine makes 4 GFLOP/s."""
    monkeypatch.setattr(bench, "matrix_peak", lambda device, dtype: 4e9)
    return Bench(Options(device="cpu", repeats=1, patience=0.0, n=86_400))


@pytest.mark.parametrize("scale", ["laptop", "base", "paper"])
def test_rivals_have_as_many_parameters_as_our_networks(scale):
    pytest.importorskip("denoising_diffusion_pytorch")
    config = compose_scale(scale)
    with torch.device("meta"):
        autoencoder = bench_steps.build(config.autoencoder, "autoencoder", resolution=config.resolution)
        denoiser = bench_steps.build(config.denoiser, "denoiser", length=160, embedding_dim=128)
        pairs = [
            (autoencoder, rivals.vq_model(config.autoencoder, config.resolution, rivals.count_parameters(autoencoder))),
            (denoiser, rivals.unet1d(config.denoiser, rivals.count_parameters(denoiser))),
        ]
    for ours, theirs in pairs:
        assert rivals.count_parameters(theirs) == pytest.approx(rivals.count_parameters(ours), rel=rivals.TOLERANCE)


def test_the_autoencoders_rival_has_the_same_latent():
    config = compose_scale("laptop")
    network = rivals.vq_model(config.autoencoder, 64, 1_500_000)
    with torch.no_grad():
        latent = network.encode(torch.zeros(1, 9, 64, 64)).latents
        assert latent.shape == (1, 1, 8, 8)
        assert network(torch.zeros(1, 9, 64, 64)).sample.shape == (1, 9, 64, 64)
    assert len(network.quantize.embedding.weight) == config.autoencoder.codebook_size


def test_no_rival_of_that_size_is_an_error():
    with pytest.raises(ValueError, match="nearest rival has 64 parameters, ours 100"):
        rivals.equal_size(lambda n: nn.Linear(n, n, bias=False), range(2, 9), 100)
    assert rivals.equal_size(lambda n: nn.Linear(n, n, bias=False), range(2, 30), 101).in_features == 10


def test_a_rival_that_is_not_installed_is_named_and_left_out(quick, monkeypatch):
    def missing(config, parameters):
        raise ImportError("it is missing: pip install it")

    monkeypatch.setattr(bench_steps, "unet1d", missing)
    config = compose_scale("laptop")
    contenders, message = bench_steps.denoisers(config, quick.accelerator, batch=1)
    assert list(contenders) == ["ours"]
    assert message == "it is missing: pip install it"


def test_flop_of_a_step_are_counted(quick):
    network, x = nn.Linear(8, 4, bias=False), torch.randn(5, 8)
    contender = network_step(network, lambda net: net(x).sum(), 5, quick.accelerator)
    measured = quick.measure({"linear": contender})["linear"]
    assert measured.flop == 2 * (2 * 5 * 8 * 4)  # forward, and the weight's gradient; the input needs none
    assert measured.fastest > 0


def test_a_row_says_what_was_measured(quick):
    ours = Measured(Contender(lambda: None, 10, (nn.Linear(1000, 1000, bias=False),)), 2.0, 3.0, 4e9, 5e6)
    theirs = Measured(ours.contender, 4.0, 4.0, 4e9, None)
    table = quick.table("title", {"ours": ours, "theirs": theirs}, "theirs", run=86_400)
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    assert rows[0] == ("ours", "1.00 M", "0.40", "200.0 / 300.0", "5.0", "2.00", "2", "50%", "5", "0.20")
    assert rows[1][5] == "1.00"
    assert rows[1][8] == ""


class Stage:
    """What the benchmark asks of the diffusion stage."""

    name, every = "diffusion", {"render": 3, "verts": 2}


def test_kinds_of_steps_and_their_shares():
    assert period_of(Stage()) == 6
    kinds = kinds_of_steps(Stage())
    assert kinds == {
        "with noise alone": (0, pytest.approx(1 / 3)),
        "with verts": (1, pytest.approx(1 / 3)),
        "with render": (2, pytest.approx(1 / 6)),
        "with render and verts": (5, pytest.approx(1 / 6)),
    }


def test_an_average_step_is_made_of_its_kinds():
    fast, slow = (Measured(Contender(lambda: None, 1, ()), t, 2 * t, 10 * t, t) for t in (1.0, 5.0))
    mean = bench._average({"fast": fast, "slow": slow}, {"fast": 0.75, "slow": 0.25})
    assert (mean.fastest, mean.median, mean.flop, mean.bytes) == (2.0, 4.0, 20.0, 5.0)


def test_a_run_is_as_long_as_its_stage():
    base, laptop = compose_scale("base"), compose_scale("laptop")
    assert bench_steps.samples_of_run(base, "autoencoder", 16_000) == 40 * 16_000
    assert bench_steps.samples_of_run(base, "diffusion", 16_000) == 200 * 16_000
    assert bench_steps.samples_of_run(laptop, "autoencoder", 16_000) == 700 * 16


def test_the_heaviest_step_has_all_terms():
    assert kinds_of_steps(Stage())["with render and verts"][0] == period_of(Stage()) - 1
    heavy = SimpleNamespace(name="autoencoder", adversarial_weight=0.8, steps=1, **bench.HEAVIEST["autoencoder"])
    assert kinds_of_steps(heavy)["with discriminator"] == (period_of(heavy) - 1, 1.0)


def test_compiled_networks_are_measured_in_steps_that_go_back_twice(quick, monkeypatch):
    seen = []

    def step():
        seen.append(torch._functorch.config.donated_buffer)

    quick.options.compile = True
    monkeypatch.setattr(bench, "peak_memory", lambda step, device: None)
    quick.measure({"it": Contender(step, 1, (nn.Linear(1, 1),))})
    assert len(seen) > 2
    assert not any(seen)


def test_unknown_precision():
    with pytest.raises(ValueError, match="mixed_precision is 'fp8'"):
        Bench(Options(device="cpu", mixed_precision="fp8"))


def test_both_networks_race(quick):
    pytest.importorskip("denoising_diffusion_pytorch")
    quick.options.batch = 1
    tables = list(bench.race(quick, "laptop", Console()))
    names = [list(table.columns[0].cells) for table in tables]
    assert names == [["ours", "diffusers VQModel"], ["ours", "lucidrains Unet1D"]]
    assert all("/" in cell for table in tables for cell in table.columns[3].cells)
