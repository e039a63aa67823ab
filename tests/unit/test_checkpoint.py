"""Checkpoints: whole or not at all, never silently another's, and the newest good one is always found."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from fitdiff.storage import CheckpointError
from fitdiff.training import checkpoint as checkpoint_module
from fitdiff.training.checkpoint import Checkpoints
from tests.conftest import ROOT

CONFIG = {"denoiser": {"channels": 48, "mults": (1, 2)}, "seed": 0}
ORIGIN = {"data": "d1", "components": {"shape_model": "7"}, "git": {"commit": "abc", "changes": None}}


def trained(seed: int, optimiser=torch.optim.Adam):
    torch.manual_seed(seed)
    module = nn.Linear(3, 2)
    adam = optimiser(module.parameters(), lr=0.1)
    for _ in range(3):
        module(torch.randn(4, 3)).square().sum().backward()
        adam.step()
        adam.zero_grad()
    return {"net": module}, {"adam": adam}


def checkpoints(folder, config=CONFIG, origin=ORIGIN, **options) -> Checkpoints:
    return Checkpoints(folder, config, origin, **options)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("optimiser", [torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad])
def test_weights_and_optimiser_come_back_bitwise(tmp_path, optimiser):
    first = trained(0, optimiser)
    checkpoints(tmp_path).save(3, *first)
    second = trained(1, optimiser)
    assert checkpoints(tmp_path).resume(*second) == 3
    for x in (torch.ones(1, 3), torch.zeros(1, 3)):
        for modules, optimisers in (first, second):
            modules["net"](x).square().sum().backward()
            optimisers["adam"].step()
            optimisers["adam"].zero_grad()
    for mine, theirs in zip(first[0]["net"].parameters(), second[0]["net"].parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_without_checkpoints_training_starts_at_zero(tmp_path):
    assert checkpoints(tmp_path / "none").resume(*trained(0)) == 0
    assert not (tmp_path / "none").exists()


def test_a_checkpoint_tells_what_it_is(tmp_path):
    path = checkpoints(tmp_path).save(1200, *trained(0), {"psnr": 20.5})
    assert path == tmp_path / "step-00001200"
    assert names(path) == ["state.json", "state.safetensors"]
    state = json.loads((path / "state.json").read_text())
    assert (state["step"], state["metrics"], state["provenance"]) == (1200, {"psnr": 20.5}, ORIGIN)
    assert state["config"] == {"denoiser": {"channels": 48, "mults": [1, 2]}, "seed": 0}
    assert state["tensors"]["bytes"] == (path / "state.safetensors").stat().st_size


# --- what stays ------------------------------------------------------------------------------------------------------


def test_the_newest_and_the_best_stay(tmp_path):
    kept = checkpoints(tmp_path, keep_last=2, keep_best=1, monitor=("error", "min"))
    state = trained(0)
    for step, error in enumerate((3.0, 1.0, float("nan"), 2.0, 1.5, None), 1):
        kept.save(step, *state, {} if error is None else {"error": error})
    assert names(tmp_path) == ["step-00000002", "step-00000005", "step-00000006"]
    assert kept.best() == tmp_path / "step-00000002"
    assert kept.newest() == tmp_path / "step-00000006"
    most = checkpoints(tmp_path, keep_last=1, keep_best=1, monitor=("error", "max"))
    assert most.best() == tmp_path / "step-00000005"
    most.save(7, *state, {"error": 0.5})
    assert names(tmp_path) == ["step-00000005", "step-00000007"]


def test_nothing_is_best_without_a_metric(tmp_path):
    plain = checkpoints(tmp_path, keep_last=1, keep_best=3)
    for step in (1, 2, 3):
        plain.save(step, *trained(0), {"error": 1.0})
    assert names(tmp_path) == ["step-00000003"]
    assert plain.best() is None


@pytest.mark.parametrize("options", [{"keep_last": 0}, {"keep_best": -1}, {"monitor": ("error", "least")}])
def test_impossible_wishes_are_refused(tmp_path, options):
    with pytest.raises(ValueError, match="expected"):
        checkpoints(tmp_path, **options)


def test_folders_of_dead_processes_are_swept_and_of_the_living_are_not(tmp_path):
    path = checkpoints(tmp_path).save(1, *trained(0))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = os.uname().nodename
    left, used = (tmp_path / f".tmp-new-step-00000002-{host}-{pid}" for pid in (dead.pid, os.getpid()))
    fresh, old = (tmp_path / f".tmp-new-step-00000002-other-host{i}-7" for i in (1, 2))
    for folder in (left, used, fresh, old):
        shutil.copytree(path, folder)
    os.utime(old, (1e9, 1e9))
    assert checkpoints(tmp_path).resume(*trained(0)) == 1
    assert names(tmp_path) == sorted([used.name, fresh.name, path.name])


# --- damage ----------------------------------------------------------------------------------------------------------


def flip(path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << position % 8
    path.write_bytes(data)


DAMAGE = {
    "truncated tensors": (lambda p: os.truncate(p / "state.safetensors", 100), r"state.safetensors has 100 bytes, \d+"),
    "longer tensors": (lambda p: os.truncate(p / "state.safetensors", 10_000), "has 10000 bytes"),
    "no tensors": (lambda p: (p / "state.safetensors").unlink(), "state.safetensors is missing"),
    "a flipped weight": (lambda p: flip(p / "state.safetensors", -3), "state.safetensors has changed"),
    "a flipped header": (lambda p: flip(p / "state.safetensors", 40), "state.safetensors has changed"),
    "half JSON": (lambda p: os.truncate(p / "state.json", 200), "state.json is damaged"),
    "empty JSON": (lambda p: (p / "state.json").write_text(""), "state.json is damaged"),
    "other JSON": (lambda p: (p / "state.json").write_text("[1]"), "state.json is damaged"),
    "no JSON": (lambda p: (p / "state.json").unlink(), "state.json cannot be read"),
    "an empty folder": (lambda p: (shutil.rmtree(p), p.mkdir()), "state.json cannot be read"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(tmp_path, damage, capsys):
    good = trained(0)
    checkpoints(tmp_path).save(1, *good)
    bad = checkpoints(tmp_path).save(2, *trained(1))
    harm, message = DAMAGE[damage]
    harm(bad)
    mine = trained(2)
    assert checkpoints(tmp_path).resume(*mine) == 1
    assert torch.equal(mine[0]["net"].weight, good[0]["net"].weight)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(message, line), line
    assert line.startswith("warning:")
    assert "continues from step-00000001" in line
    assert names(tmp_path) == ["damaged-step-00000002", "step-00000001"]
    # Set aside, it counts no more: the good one is not deleted in favour of it.
    checkpoints(tmp_path, keep_last=1).save(2, *mine)
    assert checkpoints(tmp_path).resume(*mine) == 2


def test_every_flipped_bit_of_the_json_is_found(tmp_path):
    path = checkpoints(tmp_path).save(1, *trained(0), {"error": 0.25}) / "state.json"
    whole = path.read_bytes()
    kept = checkpoints(tmp_path, monitor=("error", "min"))
    for position in range(0, len(whole), 7):
        path.write_bytes(whole)
        flip(path, position)
        if whole.split() != path.read_bytes().split():  # other white space says the same
            assert kept.best() is None, f"byte {position}"
    path.write_bytes(whole)
    assert kept.best() is not None


@pytest.mark.parametrize("sealed", [True, False])
def test_a_checkpoint_of_another_version_is_refused_and_stays(tmp_path, sealed):
    kept = checkpoints(tmp_path)
    kept.save(1, *trained(0))
    path = kept.save(2, *trained(0)) / "state.json"
    state = json.loads(path.read_text()) | {"format": 1}
    del state["sha256"]
    if sealed:
        state["sha256"] = checkpoint_module._digest(state)
    path.write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match=r"state.json has format 1, this version reads 2: use the version"):
        kept.resume(*trained(1))
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_where_not_even_the_parent_is_there_the_message_is_the_same(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"step 1 could not be saved in .*/file/a/b: Not a directory. It needs"):
        checkpoints(tmp_path / "file" / "a" / "b").save(1, *trained(0))


def test_no_good_checkpoint_is_an_error_and_not_a_new_start(tmp_path):
    for step in (1, 2):
        os.truncate(checkpoints(tmp_path).save(step, *trained(0)) / "state.safetensors", 9)
    with pytest.raises(CheckpointError, match=r"no checkpoint of .* is good: .*step-00000002.*step-00000001.*delete"):
        checkpoints(tmp_path).resume(*trained(0))
    assert names(tmp_path) == ["step-00000001", "step-00000002"]  # so that the next run says so again


def test_a_damaged_checkpoint_is_written_anew_and_a_good_one_left_alone(tmp_path):
    path = checkpoints(tmp_path).save(1, *trained(0))
    before = (path / "state.json").stat().st_ino
    assert checkpoints(tmp_path).save(1, *trained(0)) == path
    assert (path / "state.json").stat().st_ino == before
    os.truncate(path / "state.safetensors", 9)
    checkpoints(tmp_path).save(1, *trained(0))
    assert checkpoints(tmp_path).resume(*trained(1)) == 1


# --- another's -------------------------------------------------------------------------------------------------------


def test_another_config_is_refused_with_every_difference(tmp_path):
    checkpoints(tmp_path, {"denoiser": {"channels": 32, "mults": [1, 2]}, "seed": 0, "old": True}).save(1, *trained(0))
    mine = trained(1)
    before = mine[0]["net"].weight.clone()
    with pytest.raises(CheckpointError) as refusal:
        checkpoints(tmp_path, {**CONFIG, "new": {"a": 1}}).resume(*mine)
    for difference in (
        "denoiser.channels: checkpoint 32, this run 48",
        "old: checkpoint True, this run nothing",
        "new: checkpoint nothing, this run {'a': 1}",
    ):
        assert difference in str(refusal.value)
    assert "mults" not in str(refusal.value)
    assert torch.equal(mine[0]["net"].weight, before)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"data": "d2"}, "data: checkpoint d1, this run d2"),
        ({"components": {"shape_model": "8"}}, "components.shape_model: checkpoint 7, this run 8"),
    ],
)
def test_other_data_and_components_are_refused(tmp_path, other, message):
    checkpoints(tmp_path).save(1, *trained(0))
    with pytest.raises(CheckpointError, match=message):
        checkpoints(tmp_path, origin={**ORIGIN, **other}).resume(*trained(0))


def test_other_code_is_a_notice(tmp_path, capsys):
    checkpoints(tmp_path).save(1, *trained(0))
    mine = {**ORIGIN, "git": {"commit": "def", "changes": None}}
    assert checkpoints(tmp_path, origin=mine).resume(*trained(0)) == 1
    assert "git.commit: checkpoint abc, this run def" in capsys.readouterr().err
    assert checkpoints(tmp_path).resume(*trained(0)) == 1
    assert capsys.readouterr().err == ""


def test_networks_and_optimisers_that_do_not_fit_are_named(tmp_path):
    modules, optimisers = trained(0)
    checkpoints(tmp_path).save(1, modules, optimisers)
    wide = nn.Linear(4, 2)
    with pytest.raises(CheckpointError, match=r"net/weight has shape \[2, 3\], expected \[2, 4\]"):
        checkpoints(tmp_path).resume({"net": wide}, {"adam": torch.optim.Adam(wide.parameters())})
    with pytest.raises(CheckpointError, match=r"ema/bias is missing; ema/weight is missing"):
        checkpoints(tmp_path).resume({**modules, "ema": nn.Linear(3, 2)}, optimisers)
    with pytest.raises(CheckpointError, match=r"net/bias is unknown; net/weight is unknown"):
        checkpoints(tmp_path).resume({}, optimisers)
    with pytest.raises(CheckpointError, match=r"optimisers \['adam'\], this run \['adam', 'other'\]"):
        checkpoints(tmp_path).resume(modules, {**optimisers, "other": optimisers["adam"]})
    fewer = torch.optim.Adam([modules["net"].weight])
    with pytest.raises(CheckpointError, match="optimiser 'adam' does not fit"):
        checkpoints(tmp_path).resume(modules, {"adam": fewer})


# --- failing disks ---------------------------------------------------------------------------------------------------


def check_full(error: str, folder, reason: str) -> None:
    assert f"step 2 could not be saved in {folder}: {reason}" in error
    assert "needs 1.0 MB" in error
    assert "MB are free" in error
    assert f"newest checkpoint is {folder / 'step-00000001'}" in error


def test_a_file_that_may_not_grow_leaves_no_half_and_the_old_one(tmp_path):
    modules = {"net": nn.Linear(500, 500)}  # 1 MB
    kept = checkpoints(tmp_path)
    kept.save(1, modules, {})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, limits[1]))
    try:
        with pytest.raises(CheckpointError) as refusal:
            kept.save(2, modules, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    check_full(str(refusal.value), tmp_path, "File too large")
    assert names(tmp_path) == ["step-00000001"]
    assert kept.resume(modules, {}) == 1
    kept.save(2, modules, {})  # there is room again
    assert kept.resume(modules, {}) == 2


def python(script: str, *arguments: object, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*launcher, sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


FILL_A_DISK = """
    import sys
    from pathlib import Path
    from torch import nn
    from fitdiff.training.checkpoint import Checkpoints
    folder = Path(sys.argv[1])
    kept = Checkpoints(folder, {}, {})
    kept.save(1, {"net": nn.Linear(200, 200)}, {})
    (folder / "other").write_bytes(bytes(600_000))
    try:
        kept.save(2, {"net": nn.Linear(500, 500)}, {})
    except ValueError as error:
        print(error)
        print(sorted(path.name for path in folder.iterdir()))
"""


def test_a_full_disk_leaves_no_half_and_the_old_one(tmp_path):
    setup = f"mount -t tmpfs -o size=1500k tmpfs '{tmp_path}'"
    own_mounts = ("unshare", "--mount", "--map-root-user", "sh", "-c")
    if not shutil.which("unshare") or subprocess.run([*own_mounts, setup], capture_output=True).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    done = python(FILL_A_DISK, tmp_path, launcher=(*own_mounts, f'{setup} && exec "$@"', "sh"))
    assert done.returncode == 0, done.stderr
    error, left = done.stdout.strip().splitlines()
    check_full(error, tmp_path, "No space left on device")
    assert left == "['other', 'step-00000001']"


DIE_AT_EVERY_CALL = """
    import os, signal, sys
    from pathlib import Path
    from torch import nn
    from fitdiff.training.checkpoint import Checkpoints

    def run(folder, calls):
        def counted(function):
            def call(*args, **options):
                nonlocal calls
                calls -= 1
                if calls < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **options)
            return call
        for name in ("fsync", "replace", "unlink", "rmdir", "mkdir", "chmod"):
            setattr(os, name, counted(getattr(os, name)))
        kept, net = Checkpoints(folder, {}, {}, keep_last=1), nn.Linear(3, 2)
        for step in (1, 2, 3):
            nn.init.constant_(net.weight, step)
            kept.save(step, {"net": net}, {})

    for calls in range(100):  # importing once and forking is what makes this cheap
        folder = Path(sys.argv[1]) / str(calls)
        folder.mkdir()
        child = os.fork()
        if not child:
            run(folder, calls)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            break
"""


def test_killed_at_any_moment_of_saving_a_good_checkpoint_is_left(tmp_path):
    done = python(DIE_AT_EVERY_CALL, tmp_path)
    assert done.returncode == 0, done.stderr
    steps = []
    for calls in range(len(names(tmp_path))):
        folder, net = tmp_path / str(calls), nn.Linear(3, 2)
        steps.append(checkpoints(folder, {}, {}).resume({"net": net}, {}))
        assert steps[-1] == 0 or (net.weight == steps[-1]).all()
        assert all(name.startswith("step-") for name in names(folder)), names(folder)
    assert steps == sorted(steps), "a later death left less"
    assert {0, 1, 2, 3} == set(steps)
    assert len(steps) > 30, "few calls were counted"
