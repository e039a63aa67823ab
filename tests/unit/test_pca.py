"""The PCA beside the autoencoder, against scikit-learn's on whole matrices."""

import pytest
import torch
from sklearn.decomposition import PCA

from fitdiff.data.shards import ShardedDataset, dequantise, shard_path
from fitdiff.evaluation import pca
from fitdiff.evaluation.chunks import chunks
from fitdiff.storage import write_tensors
from fitdiff.types import FaceMaps

NAMES = ("diffuse", "specular", "normals")


@pytest.fixture
def people(tmp_path):
    """60 and 8 people whose maps are mixtures of 20 fields, and a little noise."""
    generator = torch.Generator().manual_seed(0)
    fields = torch.randn(20, 9 * 8 * 8, generator=generator)
    for split, n in (("train", 60), ("held_out", 8)):
        maps = torch.randn(n, 20, generator=generator) @ fields + torch.randn(n, len(fields[0]), generator=generator)
        stored = (128 + 12 * maps).clamp(0, 255).to(torch.uint8).view(n, 9, 8, 8)
        stored[:, 8] = 250  # normals point outwards
        write_tensors(shard_path(tmp_path / split, 0), {"maps": stored})
    return ShardedDataset(tmp_path / "train", 60, 60), ShardedDataset(tmp_path / "held_out", 8, 8)


def reference(train, held_out, numbers, limit=60):
    maps, truth = (dequantise(data.load("maps")) for data in (train, held_out))
    fitted = PCA(numbers, svd_solver="full").fit(maps[:limit].flatten(1).double().numpy())
    decoded = torch.from_numpy(fitted.inverse_transform(fitted.transform(truth.flatten(1).double().numpy())))
    ours, theirs = (FaceMaps.from_tensor(x.float().view_as(truth)).to_images() for x in (decoded, truth))
    return [-10 * (ours[name] - theirs[name]).square().mean().log10().item() for name in NAMES]


@pytest.mark.parametrize("strip_values", [2**26, 9 * 8 * 68 * 3])
def test_it_is_scikit_learns(people, monkeypatch, strip_values):
    monkeypatch.setattr(pca, "STRIP_VALUES", strip_values)  # whole maps; strips of three rows, three, two
    found = pca.pca_psnr(*people, numbers=12)
    assert [found[name] for name in NAMES] == pytest.approx(reference(*people, 12), abs=2e-3)
    assert found["numbers"] == 12


@pytest.mark.parametrize(("n", "numbers"), [(1, 0), (2, 1)])
def test_one_person_is_enough(people, n, numbers):
    train, held_out = ShardedDataset(people[0].folder, n, n), ShardedDataset(people[1].folder, 1, 1)
    write_tensors(shard_path(train.folder, 0), {"maps": people[0].load("maps")[:n]})
    write_tensors(shard_path(held_out.folder, 0), {"maps": people[1].load("maps")[:1]})
    found = pca.pca_psnr(train, held_out, numbers=12)
    assert found["numbers"] == numbers
    if n == 1:  # the person itself is all that is known
        (ours,), (theirs,) = (dequantise(data.load("maps")) for data in (train, held_out))
        ours, theirs = (FaceMaps.from_tensor(x[None]).to_images() for x in (ours, theirs))
        expected = [-10 * (ours[name] - theirs[name]).square().mean().log10().item() for name in NAMES]
        assert [found[name] for name in NAMES] == pytest.approx(expected, abs=2e-3)


def test_people_and_memory_bound_the_components(people, monkeypatch):
    assert pca.pca_psnr(*people, numbers=500, limit=30)["numbers"] == 29
    monkeypatch.setattr(pca, "MOST_BYTES", 40 * 9 * 8 * 8)
    found = pca.pca_psnr(*people, numbers=12)
    assert [found[name] for name in NAMES] == pytest.approx(reference(*people, 12, limit=40), abs=2e-3)


def test_chunks_cover_everybody_within_the_budget():
    for resolution, most in ((32, 32), (64, 32), (256, 8), (512, 2), (2048, 1)):
        parts = chunks(70, resolution)
        assert [i for part in parts for i in part] == list(range(70))
        assert max(map(len, parts)) == most
    assert chunks(0, 64) == []
