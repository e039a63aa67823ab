"""`python -m experiments.people.measure` end to end on a few tiny people."""

import json

from experiments.people.survey import PORTRAITS
from tests.conftest import ROOT, run

FEW = ["n=20", "controls=4", "views=2", "size=64", "portrait=96", "resamples=5", "publish=false"]


def test_the_command_measures_everything(tmp_path):
    readme = (ROOT / "experiments" / "people" / "README.md").read_text()
    done = run("-m", "experiments.people.measure", *FEW, f"out={tmp_path}")
    results = json.loads((tmp_path / "results.json").read_text())
    for kind in PORTRAITS:
        value, low, high = results["separation"][kind]["auc"]
        assert 0.5 < value <= 1
        assert low <= value <= high
    assert results["detector"]["all"]["stored"]["portraits"] == 40
    assert abs(sum(results["tone"]["shares"].values()) - 1) < 1e-9
    assert results["real"]["faces"]["astronaut"]["distance"] > results["real"]["held_out"]["min"]
    for name in ("people.jpg", "extremes.jpg", "nearest_free.jpg", "separation.png", "tones.png", "learning.png"):
        assert (tmp_path / name).stat().st_size > 1000, name
    assert results["run"]["hash"] in (tmp_path / "table.md").read_text()
    assert results["run"]["hash"] in done.stdout
    assert (ROOT / "experiments" / "people" / "README.md").read_text() == readme
