"""Two processes keep one codebook: that of a single process on the whole batch."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from fitdiff.autoencoder import VectorQuantiser


def train(rank: int, processes: int, folder: str) -> None:
    torch.set_num_threads(1)
    if processes > 1:
        dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=processes)
        assert dist.get_world_size() == processes
    torch.manual_seed(0)
    quantiser, data = VectorQuantiser(50, 1), torch.randn(5, 4, 1, 8, 8)
    for batch in data:
        quantiser(batch.chunk(processes)[rank])
    torch.save(quantiser.state_dict(), f"{folder}/{processes}_{rank}.pt")
    if processes > 1:
        dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    folder = str(tmp_path)
    mp.spawn(train, (2, folder), nprocs=2)
    threads = torch.get_num_threads()
    train(0, 1, folder)
    torch.set_num_threads(threads)
    one, first, second = (torch.load(f"{folder}/{name}.pt", weights_only=True) for name in ("1_0", "2_0", "2_1"))
    assert one["updates"] == 5
    for name, value in one.items():
        assert torch.equal(first[name], value), name
        assert torch.equal(second[name], value), name
