"""File names work as a person types them."""

import errno
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fitdiff.cli import guarded, hydra_word, quote_path
from fitdiff.training.health import TrainingError
from fitdiff.training.interruption import InterruptedRun

NAMES = [
    "me.jpg",
    "my photo.jpg",
    "a,b=c (1) [2] {3}.jpg",
    "Zoë Müller – 东京.png",
    "it's.jpg",
    'a "quoted" name.jpg',
    "back\\slash.jpg",
    "ends with backslash\\",
    "${home}.jpg",
    "$5.jpg",
    "100%.jpg",
    "?.jpg",
    " leading.jpg",
    "@#!~^&*;:<>|.jpg",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["photo", "out", "checkpoint", "outputs", "data.path", "benchmark.images"])
def test_any_file_name_survives_hydras_grammar(name, key):
    override = OverridesParser.create().parse_override(quote_path(f"{key}={name}"))
    config = OmegaConf.create({"value": override.value()})
    assert config.value == name


def test_other_arguments_and_quoted_values_are_left_alone():
    for argument in ("fitting.steps=3", "photo='my photo.jpg'", 'out="x y"', "photo=null", "out=", "-m", "--help"):
        assert quote_path(argument) == argument


@pytest.mark.parametrize("entry", ["train.py", "fit.py", "sample.py"])
def test_help_shows_groups_and_overrides(entry):
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, entry, "--help"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "== Groups" in done.stdout
    assert "Common overrides" in done.stdout
    assert "renderer" in done.stdout if entry == "train.py" else "photo" in done.stdout


def run_guarded(error):
    @guarded
    def main(config):
        raise error

    with pytest.raises(SystemExit) as caught:
        main(OmegaConf.create())
    return caught.value.code


@pytest.mark.parametrize(
    "error",
    [TrainingError("NaN [3]\nsaid"), OSError(errno.ENOSPC, "NaN [3]\nsaid"), FileNotFoundError("NaN [3] said")],
)
def test_what_a_user_can_mend_is_one_line(error, capsys, monkeypatch):
    assert run_guarded(error) == 2
    assert re.fullmatch(r"error: .*NaN \[3\] ?.*said\n", capsys.readouterr().err)
    monkeypatch.setenv("RANK", "3")
    assert run_guarded(error) == 2
    assert capsys.readouterr().err.startswith("error (process 3): ")


def test_a_stopped_run_ends_well_and_says_how_to_go_on(capsys, monkeypatch):
    assert run_guarded(InterruptedRun("stopped by SIGTERM")) == 0
    assert capsys.readouterr().err == "stopped by SIGTERM; the same command continues\n"
    monkeypatch.setenv("RANK", "3")
    assert run_guarded(InterruptedRun("stopped by SIGTERM")) == 0
    assert capsys.readouterr().err == ""


def test_other_errors_keep_their_traceback():
    @guarded
    def main(config):
        raise PermissionError(errno.EACCES, "no")

    with pytest.raises(PermissionError):
        main(OmegaConf.create())


def test_mappings_are_merged_and_everything_else_is_as_typed():
    assert hydra_word("factors={mse: 0}") == "++factors={mse: 0}"
    assert hydra_word("edit={jawOpen: 0.5}") == "++edit={jawOpen: 0.5}"
    assert hydra_word("++factors={mse: 0}") == "++factors={mse: 0}"
    assert hydra_word("seed=1") == "seed=1"
