"""Synthetic people: reproducible, and as they are said to be distributed."""

import hashlib
import subprocess
import sys

import pytest
import torch
from scipy import stats

from fitdiff.shape_model import anny_population, sample_population


def test_a_person_does_not_depend_on_batch_or_order():
    together = sample_population(5, [3, 1, 4, 1])
    for row, i in enumerate([3, 1, 4, 1]):
        alone = sample_population(5, [i])
        assert all(torch.equal(getattr(alone, f)[0], getattr(together, f)[row]) for f in vars(alone))
    assert not torch.equal(sample_population(6, [3]).local, together.local[:1])


def test_a_person_does_not_depend_on_the_process():
    def digest(people):
        return hashlib.sha256(b"".join(value.numpy().tobytes() for value in vars(people).values())).hexdigest()

    code = (
        "import hashlib; from fitdiff.shape_model.anny_population import sample_population;"
        "p = sample_population(5, range(20));"
        "print(hashlib.sha256(b''.join(v.numpy().tobytes() for v in vars(p).values())).hexdigest())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert out.stdout.strip() == digest(sample_population(5, range(20)))


def test_phenotypes_follow_their_distributions():
    people, n = sample_population(1, range(4000)), 4000
    assert torch.allclose(people.race.sum(1), torch.ones(n), atol=1e-5)
    for value, (a, b) in {"gender": (0.4, 0.4), "age": (0.8, 1.3), "weight": (3, 3), "proportions": (2, 3)}.items():
        drawn, mean, variance = getattr(people, value), a / (a + b), a * b / (a + b) ** 2 / (a + b + 1)
        assert drawn.mean() == pytest.approx(mean, abs=4 * (variance / n) ** 0.5), value
        assert drawn.var() == pytest.approx(variance, rel=0.1), value


def test_phenotypes_have_the_quantiles_of_their_distributions():
    z = torch.linspace(-5, 5, 1001, dtype=torch.float64)
    for name, parameters in anny_population.BETAS.items():
        table = anny_population._quantiles()[name].double()
        exact = stats.beta(*parameters).ppf(stats.norm.cdf(z.numpy()))
        assert anny_population._interpolate(table, z).sigmoid().numpy() == pytest.approx(exact, abs=1e-5), name


def test_ancestries_follow_their_dirichlet_distribution():
    people = sample_population(1, range(4000))
    for share in people.race.T:
        assert stats.kstest(share.numpy(), stats.beta(0.45, 0.9).cdf).pvalue > 1e-3


def test_indices_may_be_a_tensor():
    assert torch.equal(sample_population(0, torch.arange(3)).local, sample_population(0, range(3)).local)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_people_are_the_same_on_a_gpu():
    here, there = (sample_population(3, torch.arange(50, device=device)) for device in ("cpu", "cuda"))
    assert there.local.is_cuda
    assert torch.allclose(there.local.cpu(), here.local, atol=1e-4)
    assert torch.allclose(there.race.cpu(), here.race, atol=1e-4)


def test_both_sides_of_a_face_change_alike():
    people, names = sample_population(2, range(500)), [m.name for m in anny_population.modifiers()]
    left, right = names.index("l-eye-scale-incr"), names.index("r-eye-scale-incr")
    assert torch.corrcoef(people.local[:, [left, right]].T)[0, 1] > 0.9
    unpaired = [i for i, m in enumerate(anny_population.modifiers()) if m.negative is None]
    assert (people.local[:, unpaired] >= 0).all()
    assert not [name for name in names if name.startswith("head-trans")]


def test_phenotype_weights_are_partitions_of_unity():
    people = sample_population(3, range(50))
    weights = anny_population.macro_weights(people)
    universal, race, height, proportions = weights.split([36, 12, 72, 72], 1)
    assert torch.allclose(universal.sum(1), torch.ones(50), atol=1e-5)
    assert torch.allclose(race.sum(1), torch.ones(50), atol=1e-5)
    assert torch.allclose(height.sum(1), (2 * people.height - 1).abs(), atol=1e-5)
    assert torch.allclose(proportions.sum(1), (2 * people.proportions - 1).abs(), atol=1e-5)
