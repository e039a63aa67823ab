"""Samples: functions of (seed, index, condition), with known parts kept exactly."""

import numpy as np
import torch

from fitdiff import FitDiff
from fitdiff.diffusion.sampler import DDIM, DDPM, Known, sample
from fitdiff.diffusion.schedule import ScaledLinear
from fitdiff.faces import Faces, load_faces
from fitdiff.registry import config_of
from fitdiff.uses.sampling import ACROSS, Samples

SCHEDULE = ScaledLinear()


def wavy_eps(z, t):
    return torch.sin(z * 1.3 + t[:, None] * 0.01) * 0.5 + 0.7 * z


def noise(seed, rows=3, length=16):
    return torch.randn(rows, length, generator=torch.Generator().manual_seed(seed))


def test_with_all_of_z_known_it_is_returned():
    z = noise(0)
    known = Known(z, torch.ones(16, dtype=torch.bool))
    assert torch.equal(sample(wavy_eps, DDIM(), SCHEDULE, noise(1), 10, known=known), z)


def test_with_nothing_known_nothing_changes():
    plain = sample(wavy_eps, DDIM(), SCHEDULE, noise(1), 10)
    known = Known(noise(0), torch.zeros(16, dtype=torch.bool))
    assert torch.equal(sample(wavy_eps, DDIM(), SCHEDULE, noise(1), 10, known=known), plain)


def test_known_parts_keep_their_bits_each_row_its_own():
    mask = torch.rand(3, 16, generator=torch.Generator().manual_seed(2)) < 0.5
    z = noise(0)
    drawn = sample(wavy_eps, DDPM(), SCHEDULE, noise(1), 10, torch.Generator().manual_seed(0), Known(z, mask))
    assert torch.equal(drawn[mask], z[mask])
    assert not torch.isclose(drawn[~mask], z[~mask]).any()


def test_the_unknown_part_follows_the_known_one():
    """Two perfectly correlated Gaussian numbers: the second is what the first says, up to the replacement's lag."""

    def eps(z, t):
        signal, sigma = SCHEDULE.signal_and_noise(t, z)
        shared = z.mean(1, keepdim=True)  # the sufficient statistic of z0, whose variance is 1
        z0 = (signal * shared / (signal**2 + sigma**2 / 2)).expand_as(z)
        return SCHEDULE.predict_eps(z, t, z0)

    value = torch.linspace(-2, 2, 400)[:, None].expand(400, 2)
    known = Known(value, torch.tensor([True, False]))
    drawn = sample(eps, DDIM(), SCHEDULE, noise(4, 400, 2), 50, known=known)
    assert torch.corrcoef(drawn.T)[0, 1] > 0.95
    free = sample(eps, DDIM(), SCHEDULE, noise(4, 400, 2), 50)
    assert abs(torch.corrcoef(torch.stack([free[:, 1], value[:, 0]]))[0, 1]) < 0.15


def test_rows_of_people_repeat_side_by_side():
    known = Known(noise(0, 2, 4), noise(1, 2, 4) > 0).repeat(3)
    assert torch.equal(known.z[:3], known.z[:1].expand(3, -1))
    assert torch.equal(known.mask[3:], known.mask[3:4].expand(3, -1))


def test_more_samples_begin_with_the_fewer_and_are_written(tiny_run, tmp_path):
    model = FitDiff.load(tiny_run / "model", "cpu")
    few, many = (model.sample(n, steps=4, seed=2) for n in (2, 4))
    torch.testing.assert_close(many.z[:2], few.z, atol=1e-5, rtol=1e-5)
    assert torch.equal(model.sample(4, steps=4, seed=2).z, many.z)
    assert not torch.equal(model.sample(4, steps=4, seed=3).z, many.z)
    few.save(tmp_path, avatars=True)
    assert torch.equal(load_faces(model, tmp_path).z, few.z)
    assert torch.equal(load_faces(model, tmp_path / "01").z, few.z[1:])
    assert (tmp_path / "01" / "avatar.glb").exists()


def test_more_samples_begin_with_the_fewer_whatever_noise_is_added(tiny_run):
    model = FitDiff.load(tiny_run / "model", "cpu")
    few, many = (model.sample(n, steps=4, sampler=config_of("sampler", "ddpm")) for n in (2, 3))
    torch.testing.assert_close(many.z[:2], few.z, atol=1e-4, rtol=1e-4)
    kept = model.vary(Faces(few.z[:1]), "shape", 2, steps=4, sampler=config_of("sampler", "ddpm"))
    assert (kept.z[1:] - few.z).abs().mean() > 0.3  # its noise is not that of the samples


def test_many_faces_wrap_in_their_sheet(tiny_run):
    model = FitDiff.load(tiny_run / "model", "cpu")
    z = torch.zeros(ACROSS + 2, model.latent.length)
    captions = [f"{k}" for k in range(len(z))]
    wrapped = Samples(model, z, photo=torch.zeros(3, 8, 8), captions=captions).sheet(32)
    row = Samples(model, z[:ACROSS], photo=torch.zeros(3, 8, 8), captions=captions[:ACROSS]).sheet(32)
    assert wrapped.shape[1] == row.shape[1]
    assert row.shape[0] < wrapped.shape[0] < 2 * row.shape[0]  # the photo is shown once
    np.testing.assert_array_equal(wrapped[: len(row)], row)


def test_without_guidance_scale_the_identity_counts_for_nothing(tiny_run):
    model = FitDiff.load(tiny_run / "model", "cpu")
    embedding = model.embedding_mean + 0.1
    free, ignored = model.sample(2, steps=4), model.sample(2, embedding=embedding, steps=4, cfg_scale=0.0)
    torch.testing.assert_close(free.z, ignored.z)
    assert not torch.allclose(free.z, model.sample(2, embedding=embedding, steps=4).z)
