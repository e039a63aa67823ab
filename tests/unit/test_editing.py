"""Faces made of faces, by what must hold whatever the model has learned."""

import pytest
import torch

from fitdiff import FitDiff
from fitdiff.faces import Faces, UseError
from fitdiff.fitting import first_noise
from fitdiff.registry import config_of
from fitdiff.uses.editing import invert, slerp
from fitdiff.uses.sampling import draw

STEPS = 8


@pytest.fixture(scope="module")
def model(tiny_run):
    return FitDiff.load(tiny_run / "model", "cpu")


@pytest.fixture(scope="module")
def people(model):
    generator = torch.Generator().manual_seed(5)
    embedding = model.embedding_mean + 0.05 * torch.randn(2, model.identity.dim, generator=generator)
    return Faces(model.sample(2, embedding=embedding[0], steps=STEPS, seed=3).z, embedding)


@pytest.mark.parametrize(("keep", "part"), [("shape", 0), ("reflectance", 1)])
def test_the_kept_part_keeps_its_bits_and_the_other_changes(model, people, keep, part):
    samples = model.vary(people[:1], keep, 3, steps=STEPS)
    kept, other = model.latent.parts[part], model.latent.parts[1 - part]
    assert torch.equal(samples.z[:, kept], people.z[:1, kept].expand(4, -1))
    assert torch.equal(samples.z[0], people.z[0])
    assert (samples.z[1:, other] - people.z[:1, other]).abs().mean() > 0.3
    assert torch.equal(samples.z, model.vary(people[:1], keep, 3, steps=STEPS).z)
    assert not torch.equal(samples.z, model.vary(people[:1], keep, 3, steps=STEPS, seed=1).z)


def test_slerp_stays_on_the_sphere_and_lengths_are_linear():
    a, b = 2 * torch.eye(3)[0], 4 * torch.eye(3)[1]
    half = slerp(a, b, torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(half, torch.stack([a, torch.tensor([3.0, 3, 0]) / 2**0.5, b]), atol=1e-6, rtol=0)
    assert torch.equal(slerp(a, a, torch.tensor([0.3]))[0], a)


def test_a_walk_between_identities_ends_in_their_own_samples(model, people):
    first, second = (Faces(embedding=people.embedding[i : i + 1]) for i in (0, 1))
    walk = model.interpolate(first, second, 4, steps=STEPS, seed=7)
    for end, faces in ((0, first), (-1, second)):
        alone = model.sample(1, embedding=faces.embedding, steps=STEPS, seed=7)
        torch.testing.assert_close(walk.z[end], alone.z[0], atol=1e-4, rtol=1e-4)
    assert (walk.z[1] - walk.z[0]).abs().max() > 1e-6


def test_a_walk_between_faces_begins_and_ends_with_them(model, people):
    walk = model.interpolate(people[:1], people[1:], 5, steps=STEPS)
    assert torch.equal(walk.z[[0, -1]], people.z)
    steps = walk.z.diff(dim=0).norm(dim=1)
    assert steps.max() < 0.6 * (people.z[1] - people.z[0]).norm()  # none of the four steps is a jump


def test_inversion_finds_the_noise(model):
    noise = first_noise(model, 1, 2)
    z = draw(model, noise, steps=50, sampler={**model.config["sampler"], "clip": None})
    found = invert(model, z, steps=50)
    assert (found - noise).abs().mean() < 0.05 * (z - noise).abs().mean()


def test_edits_move_what_they_name_and_nothing_else(model, people):
    name = model.shape_model.expression_names[3]
    samples = model.edit(people[:1], {"shape_2": 1.5, name: 0.5}, 3)
    moved = samples.z - people.z[:1]
    torch.testing.assert_close(moved[:, 2], torch.tensor([0, 0.75, 1.5]), atol=1e-6, rtol=0)
    assert moved.abs().sum(1)[1] == pytest.approx(0.75, abs=1e-5)
    torch.testing.assert_close(samples.expression.sum(1), torch.tensor([0, 0.25, 0.5]))
    assert samples.expression[-1, 3] == 0.5
    assert torch.equal(model.edit(people[:1], {"shape_2": 1.5}, 1).z[0], samples.z[-1])


def test_mistakes_are_named(model, people):
    with pytest.raises(UseError, match="jawOpen"):
        model.edit(people[:1], {"jawopen": 1})
    with pytest.raises(UseError, match="shape, reflectance"):
        model.vary(people[:1], "hair", 1)
    with pytest.raises(UseError, match="n=2 or more"):
        model.interpolate(people[:1], people[1:], 1)
    with pytest.raises(UseError, match="identity and the other none"):
        model.interpolate(people[:1], Faces(people.z[1:]), 3)
    with pytest.raises(UseError, match="an identity alone"):
        model.interpolate(people[:1], Faces(embedding=people.embedding[1:]), 3)
    with pytest.raises(UseError, match="adds no noise"):
        model.interpolate(people[:1], people[1:], 3, sampler=config_of("sampler", "ddpm"))


def test_inversion_takes_the_samplers_own_steps(model):
    noise = first_noise(model, 1, 2)
    options = {"steps": 50, "sampler": config_of("sampler", "ddim", clip=None, spacing="trailing")}
    z = draw(model, noise, **options)
    found, elsewhere = invert(model, z, **options), invert(model, z, steps=50)
    error = (found - noise).abs().mean()
    assert error < 0.05 * (z - noise).abs().mean()
    assert error < 0.5 * (elsewhere - noise).abs().mean()
