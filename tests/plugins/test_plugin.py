"""An installed package adds a component that is selected, typed and built from the command line."""

import os
import subprocess
import sys

from tests.conftest import ROOT

MODULE = """
from fitdiff.registry import register
from fitdiff.tracker import Tracker


@register("tracker", "shouting")
class ShoutingTracker(Tracker):
    def __init__(self, *, volume: int = 3) -> None:
        self.volume = volume

    def start(self, run):
        print("!" * self.volume, run.name)
"""


def install(site):
    """Lay out a distribution as pip does: a module, and metadata that names the entry point."""
    (site / "fitdiff_shout.py").write_text(MODULE)
    info = site / "fitdiff_shout-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fitdiff-shout\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fitdiff.plugins]\nshout = fitdiff_shout\n")


def train(site, *overrides):
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "train.py", "--cfg", "job", *overrides]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_a_plugin_is_selected_and_typed(tmp_path):
    install(tmp_path)
    done = train(tmp_path, "tracker=shouting", "tracker.shouting.volume=5")
    assert done.returncode == 0, done.stderr
    assert "fitdiff_shout.ShoutingTracker" in done.stdout
    assert "volume: 5" in done.stdout
    wrong = train(tmp_path, "tracker=shouting", "tracker.shouting.volume=loud")
    assert wrong.returncode != 0
    assert "Integer" in wrong.stderr


def test_one_that_cannot_be_imported_is_named_in_a_line(tmp_path):
    install(tmp_path)
    (tmp_path / "fitdiff_shout.py").write_text("import no_such_package\n")
    done = train(tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for text in ("fitdiff-shout", "no_such_package", "pip uninstall fitdiff-shout"):
        assert text in done.stderr


def test_without_it_the_name_is_unknown_and_the_options_are_listed(tmp_path):
    done = train(tmp_path, "tracker=shouting")
    assert done.returncode != 0
    assert "wandb" in done.stderr
