"""Jobs of `prepare.py` that a launcher runs in processes of their own make what `train.py` makes for itself."""

import json
import os
import signal
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir

from fitdiff.cli import run_prepare
from fitdiff.config import register_schemas
from fitdiff.data import sources
from fitdiff.data.shard_file import DataError
from fitdiff.registry import load_plugins
from fitdiff.training.interruption import InterruptedRun
from tests.conftest import ROOT, TINY, run

DATA = [word for word in TINY if word.startswith("data.")]


def composed(*overrides, **options):
    load_plugins()
    register_schemas()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("prepare", overrides=list(overrides), **options)


def prepare(*overrides):
    run_prepare(composed(*overrides))


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


def test_jobs_of_a_launcher_make_what_one_process_makes(tiny_run, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="pip install hydra-joblib-launcher")
    jobs = ["shards=2", "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "shard=range(2)"]
    run("prepare.py", *DATA, f"data.cache={tmp_path}/cache", f"outputs={tmp_path}/outputs", *jobs)
    made = files(tmp_path / "cache")
    assert made == files(tiny_run.parent / "cache")
    assert len(made) == 4  # two of people to train on, one held out, and the manifest


def test_it_writes_nothing_into_the_folder_of_a_training():
    config = composed("outputs=there", "name=run", return_hydra_config=True)
    assert config.hydra.run.dir == "there/prepare"


def test_a_scheduler_may_stop_it(monkeypatch):
    data = SimpleNamespace(prepare=lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr(sources, "build_data", lambda *_: (data, ""))
    with pytest.raises(InterruptedRun, match="stopped by SIGTERM"):
        prepare()


@pytest.mark.parametrize(("option", "message"), [
    ("data.n=0", "data.n is 0; give 1 or more"),
    ("data.portrait_size=33", "data=people: got portrait_size=33"),
    ("data.augmentation.bust=2", "augmentation.bust is 2"),
    ("resolution=100", "data=people: got a map size of 100"),
])  # fmt: skip
def test_what_a_user_can_mend_is_one_line(option, message, tmp_path):
    done = run("prepare.py", option, f"data.cache={tmp_path}", f"outputs={tmp_path}", check=False)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_what_other_jobs_have_left_is_named(tmp_path):
    options = [*DATA, "data.portrait_size=64", f"data.cache={tmp_path}", "shards=3"]
    with pytest.raises(DataError, match=r"3 files are missing, the first is .*train/shard-000000.*: run the jobs"):
        prepare(*options, "check=true")
    prepare(*options, "shard=1")
    (folder,) = tmp_path.iterdir()
    assert [path.name for path in (folder / "train").iterdir()] == ["shard-000001.safetensors"]
    assert not (folder / "manifest.json").exists()
    with pytest.raises(DataError, match=r"2 files are missing"):
        prepare(*options, "check=true")
    for shard in (0, 2):
        prepare(*options, f"shard={shard}")
    prepare(*options, "check=true")
    assert json.loads((folder / "manifest.json").read_text())["train"]["shards"] == 2
    with pytest.raises(DataError, match=r"shard=3; with shards=3 give 0 to 2"):
        prepare(*options, "shard=3")
