"""Map latents on disk: the same however many processes write them, resumable, and read like the tensors they were."""

from types import SimpleNamespace

import pytest
import torch

from fitdiff.data.shards import MemorySamples, ShardedDataset, dequantise, shard_path
from fitdiff.storage import write_tensors
from fitdiff.training import latents
from fitdiff.training.latents import KEYS, encode_maps, open_latents, statistics, write_latents

N = 23


@pytest.fixture
def model():
    def encode(maps):
        return maps.mean((2, 3))[:, :4, None, None] ** 3

    return SimpleNamespace(autoencoder=SimpleNamespace(encode=encode), device="cpu", config={"resolution": 4})


@pytest.fixture
def people(tmp_path, monkeypatch):
    """23 people in files of 3; latents in files of at least 4, hence 6."""
    monkeypatch.setattr(latents, "PEOPLE_A_SHARD", 4)
    torch.manual_seed(0)
    for number in range(8):
        tensors = {"maps": torch.randint(256, (3, 9, 4, 4)).to(torch.uint8), "identity": torch.randn(3, 5)}
        write_tensors(shard_path(tmp_path / "people", number), tensors | {"embedding": 3 + torch.randn(3, 2, 6)})
    return ShardedDataset(tmp_path / "people", N, 3)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_one_process_writes_what_three_write(model, people, tmp_path):
    write_latents(model, people, tmp_path / "one")
    for process in (2, 0, 1):
        write_latents(model, people, tmp_path / "three", process, 3)
    assert len(contents(tmp_path / "one")) == 4
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


def test_an_interrupted_job_goes_on(model, people, tmp_path):
    write_latents(model, people, tmp_path / "whole")
    write_latents(model, people, tmp_path / "halted", 1, 2)
    with pytest.raises(FileNotFoundError, match=r"shard-000000.safetensors is missing, as are 1 others: .*train.py"):
        open_latents(people, tmp_path / "halted", 0)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "halted").iterdir()}
    write_latents(model, people, tmp_path / "halted")
    assert contents(tmp_path / "halted") == contents(tmp_path / "whole")
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())


def test_memory_decides_where_they_are_and_nothing_else(model, people, tmp_path):
    write_latents(model, people, tmp_path / "latents")
    bytes_a_person = 4 * (4 + 5 + 2 * 6)
    held = open_latents(people, tmp_path / "latents", N * bytes_a_person)
    read = open_latents(people, tmp_path / "latents", N * bytes_a_person - 1)
    assert isinstance(held, MemorySamples)
    assert isinstance(read, ShardedDataset)
    truth = {"latent": model.autoencoder.encode(dequantise(people.load("maps")))}
    truth |= {key: people.load(key) for key in ("identity", "embedding")}
    indices = [22, 0, 7, 7, 12]
    for samples in (held, read):
        assert len(samples) == N
        for key, value in samples.gather(indices, KEYS).items():
            assert torch.equal(value, truth[key][indices]), key
    assert torch.equal(encode_maps(model, people), truth["latent"])


def test_statistics_are_those_of_all_rows_together():
    torch.manual_seed(0)
    samples = MemorySamples({"latent": 100 + torch.randn(3000, 1, 2, 2), "embedding": torch.randn(3000, 2, 3)})
    for key, rows in (("latent", samples.load("latent")), ("embedding", samples.load("embedding").flatten(0, 1))):
        mean, std = statistics(samples, key)
        torch.testing.assert_close(mean, rows.double().mean(0), atol=1e-9, rtol=0)
        torch.testing.assert_close(std, rows.double().std(0), atol=1e-7, rtol=0)
    first, _ = statistics(samples, "latent", limit=10)
    torch.testing.assert_close(first, samples.load("latent")[:10].double().mean(0))
