"""The curves of a run are found from its folder, finished or not, and the table holds the log's numbers."""

import json

import pytest
from rich.console import Console

from experiments.training.curves import Options, _draw, smooth, tables

AUTOENCODER = [
    {"step": 10, "loss_l1": 0.5, "perplexity": 20.0},
    {"step": 20, "loss_l1": 0.25, "loss_generator": -0.1, "perplexity": 30.0},
    {"step": 20, "held_out/psnr_diffuse": 31.25, "held_out/psnr_diffuse_pca": 30.5, "held_out/perplexity": 12.0},
]
DIFFUSION = [
    {"step": 5, "loss_noise": 1.0, "loss_id": 0.0},
    {"step": 10, "held_out/noise_loss": 0.75, "held_out/noise_loss_predicting_nothing": 0.9},
    {"step": 20, "held_out/noise_loss": None, "held_out/noise_loss_predicting_nothing": 0.9},
    {"step": 30, "held_out/noise_loss": 0.5, "held_out/noise_loss_predicting_nothing": 0.9},
]


def run_of(folder, **logs):
    """A run's folder, and its stages beside it."""
    folders = {name: f"../stages/{name}-1" for name in ("autoencoder", "latents", "diffusion")}
    (folder / "run").mkdir()
    (folder / "run" / "stages.json").write_text(json.dumps(folders))
    for name, log in logs.items():
        (folder / "stages" / f"{name}-1").mkdir(parents=True)
        text = "".join(json.dumps(entry) + "\n" for entry in log)
        (folder / "stages" / f"{name}-1" / "log.jsonl").write_text(text)
    return folder / "run"


def drawn(run):
    _draw(Options(run=str(run), publish=False), Console(quiet=True))
    return {path.stem for path in (run / "curves").glob("*.png") if path.stat().st_size > 5000}


def test_a_finished_run(tmp_path):
    assert drawn(run_of(tmp_path, autoencoder=AUTOENCODER, diffusion=DIFFUSION)) == {"autoencoder", "diffusion"}


def test_a_run_that_has_just_begun(tmp_path):
    assert drawn(run_of(tmp_path, autoencoder=AUTOENCODER[:1])) == {"autoencoder"}


def test_the_table_has_the_first_a_middle_and_the_last_evaluation():
    of_autoencoder, of_diffusion = tables({"autoencoder": AUTOENCODER, "diffusion": DIFFUSION[:2] + DIFFUSION[3:]})
    assert "| psnr_diffuse | 31.25 | 31.25 | 31.25 |" in of_autoencoder
    assert "| diffusion, held-out people | step 10 | step 30 | step 30 |" in of_diffusion
    assert "| noise_loss | 0.75 | 0.5 | 0.5 |" in of_diffusion
    assert tables({"autoencoder": AUTOENCODER[:1]}) == []


def test_smoothing_is_the_mean_of_the_last():
    points = [(step, float(step)) for step in range(5)]
    assert smooth(points, window=2) == [(0, 0.0), *((step, pytest.approx(step - 0.5)) for step in range(1, 5))]
