"""What the autoencoder's parts share: two processes keep what one process on the whole batch would."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from fitdiff.autoencoder import VectorQuantiser
from fitdiff.autoencoder.discriminator import WholeBatchNorm2d
from fitdiff.autoencoder.losses import adaptive_weight

PROCESSES = 2


def share(batch, rank, processes):
    return batch.chunk(processes)[rank]


def codebook(rank, processes, parts):
    """After five steps; and the perplexity of each step's batch, if it comes in one part."""
    torch.manual_seed(0)
    quantiser, data = VectorQuantiser(50, 1), torch.randn(5, 8, 1, 8, 8)
    quantiser.update_after = 8
    perplexities = [quantiser(part).perplexity for x in data for part in share(x, rank, processes).chunk(parts)]
    return {**quantiser.state_dict(), "perplexities": torch.stack(perplexities)}


def batch_norm(rank, processes, layer=WholeBatchNorm2d):
    """Output, gradients and running statistics of a loss that treats every map otherwise."""
    torch.manual_seed(0)
    norm, x, pull = layer(3).double(), 5 + torch.randn(4, 3, 6, 6).double(), torch.randn(4, 3, 6, 6).double()
    nn.init.normal_(norm.weight)
    mine = share(x, rank, processes).clone().requires_grad_()
    y = norm(mine)
    (y.sin() * share(pull, rank, processes)).sum().backward()
    return {"y": y.detach(), "x": mine.grad, "gain": norm.weight.grad, "shift": norm.bias.grad, **norm.state_dict()}


def weight_of_adversary(rank, processes):
    torch.manual_seed(0)
    layer, x = nn.Linear(5, 5).double(), torch.randn(8, 5).double()
    y = layer(share(x, rank, processes))
    return adaptive_weight(30 * y.square().mean(), y.sin().mean(), layer.weight)


def everything(rank, processes):
    return {
        "codebook": codebook(rank, processes, 1),
        "codebook in parts": codebook(rank, processes, 2),
        "norm": batch_norm(rank, processes),
        "adaptive weight": weight_of_adversary(rank, processes),
    }


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=PROCESSES)
    assert dist.get_world_size() == PROCESSES
    torch.save(everything(rank, PROCESSES), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    mp.spawn(work, (folder,), nprocs=PROCESSES)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(PROCESSES)]


def test_they_keep_one_codebook_bit_for_bit(together):
    one = codebook(0, 1, 1)
    assert one["updates"] == 5
    for found in together:
        for name, value in one.items():
            assert torch.equal(found["codebook"][name], value), name


def test_micro_batches_keep_it_too(together):
    one = codebook(0, 1, 1)
    for parts in (codebook(0, 1, 2), codebook(0, 1, 4), *(found["codebook in parts"] for found in together)):
        assert parts["updates"] == 5
        for name in ("codebook", "use"):
            assert torch.equal(parts[name], one[name]), name


def test_batch_normalisation_is_that_of_the_whole_batch(together):
    whole = batch_norm(0, 1, nn.BatchNorm2d)
    first, second = (found["norm"] for found in together)
    for name in ("y", "x"):
        torch.testing.assert_close(torch.cat([first[name], second[name]]), whole[name])
    for name in ("gain", "shift"):  # DistributedDataParallel sums these
        torch.testing.assert_close(first[name] + second[name], whole[name])
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        for found in (first, second):
            torch.testing.assert_close(found[name], whole[name], rtol=1e-6, atol=1e-7)


def test_the_adaptive_weight_is_that_of_the_whole_batch(together):
    for found in together:
        torch.testing.assert_close(found["adaptive weight"], weight_of_adversary(0, 1))
