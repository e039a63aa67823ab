"""A sweep of the real train.py, and of the grid through Hydra's joblib launcher."""

import json

import yaml

from tests.conftest import TINY, run


def test_a_sweep_of_tiny_trainings_shares_their_autoencoder(tiny_run, tmp_path):
    source = {
        "program": "train.py",
        "method": "grid",
        "metric": {"name": "diffusion/held_out/noise_loss", "goal": "minimize"},
        "command": ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"],
        "parameters": {"stage.diffusion.learning_rate": {"values": [1e-3, 2e-3]}},
    }
    (tmp_path / "rates.yaml").write_text(yaml.safe_dump(source))
    outputs = tiny_run.parent
    overrides = [word for word in TINY if not word.startswith("name=")]
    extra = " ".join([*overrides, f"data.cache={outputs}/cache", "tracker=none"])
    command = ["-m", "fitdiff.sweep", f"file={tmp_path}/rates.yaml", f"outputs={outputs}", f"overrides={extra}"]
    trained = set((outputs / "stages").glob("autoencoder-*"))

    first = run(*command, "trials=1", "poll=0.2")
    assert "1 of 1 done" in first.stderr
    rest = run(*command, "launcher=joblib")
    found = json.loads((outputs / "sweeps" / "rates" / "sweep.json").read_text())
    assert [trial["state"] for trial in found["trials"]] == ["done", "done"], rest.stderr
    assert found["best"]["value"] == min(trial["value"] for trial in found["trials"])
    for trial in found["trials"]:
        folder = outputs / "rates" / trial["name"]
        assert trial["value"] == json.loads((folder / "metrics.json").read_text())["diffusion"]["noise_loss"]
    assert len({trial["value"] for trial in found["trials"]}) == 2
    assert set((outputs / "stages").glob("autoencoder-*")) == trained
