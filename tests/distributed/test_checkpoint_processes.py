"""Two processes save and resume together: one writes, both read the same step, and both fail when one does."""

import json
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

import fitdiff.training.checkpoint as checkpoint_module
from fitdiff.storage import CheckpointError
from fitdiff.training.checkpoint import Checkpoints
from fitdiff.training.processes import is_main, on_all, on_main


def caught(work) -> str:
    try:
        return f"no error: {work()}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


class TwoWordsError(Exception):
    """Pickles, but cannot be unpickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def two_words() -> None:
    raise TwoWordsError("no", "luck")


def scenario(rank: int, folder) -> dict[str, object]:
    seen: dict[str, object] = {"world": dist.get_world_size(), "main": is_main()}
    net = nn.Linear(3, 2)
    nn.init.constant_(net.weight, 1.0 + rank)  # only the main process's is written
    adam = torch.optim.Adam(net.parameters())
    state = {"net": net}, {"adam": adam}
    kept = Checkpoints(folder / "run", {"a": 1}, {})
    seen["saved"] = [kept.save(step, *state).name for step in (1, 2)]
    seen["resumed"] = kept.resume(*state)
    seen["weight"] = net.weight[0, 0].item()
    seen["best"], seen["newest"] = kept.best(), kept.newest().name
    seen["refused"] = caught(lambda: Checkpoints(folder / "run", {"a": 2}, {}).resume(*state))
    unwritable = folder / "file"
    if is_main():
        unwritable.touch()
    seen["unwritable"] = caught(lambda: Checkpoints(unwritable / "run", {}, {}).save(1, *state))
    sharded = nn.Module()
    mesh = init_device_mesh("cpu", (2,))
    sharded.register_buffer("rows", distribute_tensor(torch.arange(6.0), mesh, [Shard(0)]))
    seen["half"] = len(sharded.rows.to_local())
    Checkpoints(folder / "sharded", {}, {}).save(1, {"net": sharded}, {})
    if rank == 1:  # this process alone sees another content, as with a stale network share
        real = checkpoint_module.read_tensors
        checkpoint_module.read_tensors = lambda path, seal: real(path, {**seal, "bytes": 7})
    seen["unreadable"] = caught(lambda: kept.resume(*state))
    seen["on_main"] = on_main(lambda: rank)
    seen["on_main fails"] = caught(lambda: on_main(lambda: 1 // 0))
    seen["on_all"] = on_all(lambda: rank)
    seen["stays here"] = caught(lambda: on_main(two_words))
    seen["no message"] = caught(lambda: on_all(lambda: b"\xff".decode() if rank else ""))
    return seen


def process(rank: int, folder) -> None:
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=120))
    (folder / f"seen-{rank}.json").write_text(json.dumps(scenario(rank, folder)))
    dist.destroy_process_group()


def test_two_processes_agree(tmp_path):
    mp.spawn(process, (tmp_path,), nprocs=2)
    first, second = (json.loads((tmp_path / f"seen-{rank}.json").read_text()) for rank in (0, 1))
    assert [first.pop("main"), second.pop("main")] == [True, False]
    assert first["world"] == second["world"] == 2
    assert [first.pop("on_all"), second.pop("on_all")] == [0, 1]
    for seen in (first, second):
        assert seen["saved"] == ["step-00000001", "step-00000002"]
        assert seen["resumed"] == 2
        assert seen["weight"] == 1.0
        assert seen["newest"] == "step-00000002"
        assert seen["refused"].startswith(f"{CheckpointError.__name__}: ")
        assert "a: checkpoint 1, this run 2" in seen["refused"]
        assert "step 1 could not be saved" in seen["unwritable"]
        assert "bytes, 7 were written" in seen["unreadable"]
        assert seen["on_main"] == 0
        assert seen["on_main fails"].startswith("ZeroDivisionError")
    assert [first.pop("stays here"), second.pop("stays here")] == [
        "TwoWordsError: no luck",
        "RuntimeError: TwoWordsError: no luck",
    ]
    undecodable = "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff"
    assert first.pop("no message").startswith(f"RuntimeError: process 1: {undecodable}")
    assert second.pop("no message").startswith(undecodable)
    assert first.pop("unreadable") == second.pop("unreadable").replace(": ", ": process 1: ", 1)
    assert first == second
    assert first["half"] == 3
    assert load_file(tmp_path / "sharded/step-00000001/state.safetensors")["net/rows"].tolist() == list(range(6))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["step-00000001", "step-00000002"]
