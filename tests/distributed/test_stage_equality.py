"""What a stage learns does not depend on how its batch is split: two processes, or micro-batches, beside one whole."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from tests.tiny_stages import BATCH, PEOPLE, STEPS, autoencoder_stage, diffusion_stage, make_people


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    make_people(folder)
    return folder


def without_adversary(folder):
    return autoencoder_stage(folder, adversarial_weight=0.0)


CASES = {
    "autoencoder": (autoencoder_stage, 1),
    "autoencoder, micro-batches": (without_adversary, 2),  # an adversary sees the statistics of micro-batches
    "diffusion": (diffusion_stage, 1),
    "diffusion, micro-batches": (diffusion_stage, 2),
}
"""Stage, and micro-batches of each of two processes."""


def train(stage, rank=0, processes=1, parts=1):
    """Plain gradient descent on a stage's losses, split as the trainer splits them.

    Not Adam: it divides by the gradient's size, which makes a whole step of the rounding of a gradient that is zero.

    Returns:
        For each step, what was logged by each micro-batch; and the final weights.
    """
    raw = {name: module.train() for name, module in stage.modules.items()}
    if processes > 1:
        stage.modules.update({name: DistributedDataParallel(module) for name, module in raw.items()})
    descent = [torch.optim.SGD(module.parameters(), 0.01) for module in raw.values()]
    logs = []
    for step in range(STEPS):
        torch.manual_seed(1000 * rank + step)  # nothing may depend on a process's own generator
        order = torch.randperm(PEOPLE, generator=torch.Generator().manual_seed(step))[:BATCH].tolist()
        logs.append([])
        for rows in torch.arange(BATCH).view(processes, parts, -1)[rank]:
            batch = {**stage.batch([order[row] for row in rows.tolist()], rows, step), "row": rows}
            values = {}
            for name, loss, terms in stage.losses(batch, step):
                (loss / parts).backward()
                values |= {f"total_{name}": loss.item(), **{key: value.item() for key, value in terms.items()}}
            logs[-1].append(values)
        for optimiser in descent:
            optimiser.step()
            optimiser.zero_grad()
    return logs, {name: dict(module.state_dict()) for name, module in raw.items()}


def train_together(rank, folder, out):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{out}/rendezvous", rank=rank, world_size=2)
    assert dist.get_world_size() == 2
    found = {case: train(stage(folder), rank, 2, parts) for case, (stage, parts) in CASES.items()}
    torch.save(found, out / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def together(people, tmp_path_factory):
    """What each of two processes found, by case: logs and weights."""
    out = tmp_path_factory.mktemp("together")
    mp.spawn(train_together, (people, out), nprocs=2)
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_learn_what_one_learns(people, together, case):
    (stage, parts), ((first_logs, first), (second_logs, second)) = CASES[case], (found[case] for found in together)
    whole_logs, whole = train(stage(people))
    for (values,), here, there in zip(whole_logs, first_logs, second_logs, strict=True):
        for part in (*here, *there):
            assert part.keys() == values.keys()
        for key in values.keys() - ({"perplexity"} if parts > 1 else set()):  # of micro-batches, not of the batch
            mean = sum(part[key] for part in (*here, *there)) / (2 * parts)
            # Sums in another order: 1e-7 of the largest addend in float32, which six steps multiply.
            assert mean == pytest.approx(values[key], rel=2e-5, abs=1e-6), key
    for name, weights in whole.items():
        for key, value in weights.items():
            torch.testing.assert_close(first[name][key], second[name][key], rtol=0, atol=0)
            # Rounding of single precision: 1e-7 of gradients that add up to some ten, in six steps of 0.01.
            torch.testing.assert_close(first[name][key], value, rtol=2e-5, atol=5e-6, msg=lambda m, k=key: f"{k}: {m}")


def test_what_could_differ_was_there(together):
    for found in together:
        logs, _ = found["autoencoder"]
        assert all(("adaptive_weight" in values) == (step >= 2) for step, (values,) in enumerate(logs))
        logs, _ = found["diffusion, micro-batches"]
        assert all(("loss_id" in part) == (step % 2 == 1) for step, parts in enumerate(logs) for part in parts)
    # Three of eight rows are rendered: the four micro-batches of two rows hold none, one, one and one.
    shares = [part["loss_id"] > 0 for found in together for part in found["diffusion, micro-batches"][0][1]]
    assert shares == [False, True, True, True]
