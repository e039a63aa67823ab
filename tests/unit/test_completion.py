"""Completion: known texels stay, the rest is found; the visible part of a photo is the albedo without the light."""

import numpy as np
import pytest
import torch
from PIL import Image

from fitdiff import FitDiff
from fitdiff.avatar.relight import frontal_camera
from fitdiff.colour import linear_to_srgb, srgb_to_linear
from fitdiff.faces import Faces, UseError
from fitdiff.types import Lighting, Prediction, Scene
from fitdiff.uses.completion import KnownTexels, at_size, read_texture
from fitdiff.uses.visible_texture import PartialTexture, seen_texels, visible_texture


@pytest.fixture(scope="module")
def model(tiny_run):
    return FitDiff.load(tiny_run / "model", "cpu")


@pytest.fixture(scope="module")
def face(model):
    return torch.randn(1, model.latent.length, generator=torch.Generator().manual_seed(1))


def left_half(model, z):
    albedo = model.maps(z).diffuse_albedo
    known = torch.zeros_like(albedo[:, :1], dtype=torch.bool)
    known[..., : known.shape[-1] // 2] = True
    return PartialTexture(albedo, known)


def test_the_term_is_the_mean_squared_difference_of_known_texels(model, face):
    texture = left_half(model, face)
    term = KnownTexels(texture)
    other = model.maps(-face)
    expected = (linear_to_srgb(other.diffuse_albedo) - linear_to_srgb(texture.diffuse_albedo)).square()
    torch.testing.assert_close(
        term(Prediction(None, None, other)), expected[..., : expected.shape[-1] // 2].mean()[None]
    )
    assert term(Prediction(None, None, model.maps(face))) == 0


def test_known_texels_are_kept_and_met_to_within_the_autoencoders_error(model, face):
    """The truth is what the autoencoder can say, plus a pattern that it cannot: what it leaves of that is its error."""
    texture = left_half(model, face)
    pattern = 0.03 * torch.randn(texture.diffuse_albedo.shape, generator=torch.Generator().manual_seed(2))
    srgb = (linear_to_srgb(texture.diffuse_albedo) + pattern).clamp(0, 1)
    texture = PartialTexture(srgb_to_linear(srgb), texture.known)
    mask = texture.known.expand(-1, 3, -1, -1)
    samples = model.complete(texture, steps=8)
    assert torch.equal(samples.maps.diffuse_albedo[mask], texture.diffuse_albedo[mask])
    error, rebuilt, unguided = (
        (linear_to_srgb(model.maps(z).diffuse_albedo) - srgb)[mask].square().mean()
        for z in (samples.z, face, model.sample(1, steps=8).z)
    )
    assert error.sqrt() < 1.1 * rebuilt.sqrt()
    assert error - rebuilt < 0.2 * (unguided - rebuilt)  # of what can be met at all


def test_shape_can_be_kept_and_completion_is_reproducible(model, face):
    texture = left_half(model, face)
    options = {"faces": Faces(face), "keep_shape": True, "steps": 4, "n": 2}
    first, again = (model.complete(texture, **options) for _ in range(2))
    assert torch.equal(first.z[:, : model.latent.n_identity], face[:, : model.latent.n_identity].expand(2, -1))
    assert torch.equal(first.z, again.z)
    assert not torch.equal(first.z[0], first.z[1])


def test_next_to_nothing_known_is_refused(model, face):
    texture = left_half(model, face)
    with pytest.raises(UseError, match="0 texels are known"):
        model.complete(PartialTexture(texture.diffuse_albedo, texture.known & False))


def test_partial_maps_are_read_by_alpha_or_mask(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (16, 16, 4), np.uint8)
    levels[..., 3] = np.where(np.arange(16) < 8, 255, 0)
    Image.fromarray(levels).save(tmp_path / "a.png")
    texture = read_texture(tmp_path / "a.png", None, 16)
    assert texture.known[0, 0].sum() == 128
    np.testing.assert_array_equal(
        (linear_to_srgb(texture.diffuse_albedo[0]) * 255).round().byte().numpy(), levels[..., :3].transpose(2, 0, 1)
    )
    Image.fromarray(255 - levels[..., 3]).save(tmp_path / "m.png")
    assert torch.equal(read_texture(tmp_path / "a.png", tmp_path / "m.png", 16).known, ~texture.known)
    Image.fromarray(levels[..., :3]).save(tmp_path / "b.png")
    with pytest.raises(UseError, match="no alpha channel"):
        read_texture(tmp_path / "b.png", None, 16)
    with pytest.raises(FileNotFoundError, match="no such image"):
        read_texture(tmp_path / "c.png", None, 16)
    Image.fromarray(levels[:8]).save(tmp_path / "d.png")
    with pytest.raises(UseError, match="squares of one size"):
        read_texture(tmp_path / "d.png", None, 16)


def test_greys_of_16_bits_keep_their_values_also_as_a_mask(tmp_path):
    levels = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    Image.fromarray(np.full((16, 16), 40000, np.uint16)).save(tmp_path / "known.png")
    Image.fromarray(np.full((16, 16), 300, np.uint16)).save(tmp_path / "unknown.png")
    texture = read_texture(tmp_path / "a.png", tmp_path / "known.png", 16)
    assert texture.known.all()
    np.testing.assert_allclose(linear_to_srgb(texture.diffuse_albedo[0, 1]).numpy(), levels / 65535, atol=1e-5)
    assert not read_texture(tmp_path / "a.png", tmp_path / "unknown.png", 16).known.any()


def test_what_is_no_map_is_refused_before_it_gets_memory(tmp_path):
    Image.new("L", (5000, 5000)).save(tmp_path / "large.png")
    with pytest.raises(UseError, match="5000 x 5000"):
        read_texture(tmp_path / "large.png", None, 16)
    Image.new("RGB", (16, 16)).save(tmp_path / "e.eps")
    (tmp_path / "e.eps").rename(tmp_path / "postscript.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    for name in ("postscript.png", "broken.png"):
        with pytest.raises(UseError, match="cannot be read as a map"):
            read_texture(tmp_path / name, None, 16)


def test_resampling_mixes_known_texels_only():
    albedo = torch.full((1, 3, 32, 32), 0.25)
    known = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    known[..., :17] = True
    albedo[~known.expand_as(albedo)] = 0.9
    small = at_size(PartialTexture(albedo, known), 16)
    assert small.known[0, 0, 8].tolist() == [True] * 8 + [False] * 8
    torch.testing.assert_close(small.diffuse_albedo[..., :8], torch.full((1, 3, 16, 8), 0.25))


def scene_of(model, z, yaw=0.0, strength=1.0):
    vertices = model.vertices(z)
    lighting = Lighting(
        torch.tensor([[0.5, 0.4, 0.3]]) * strength,
        torch.tensor([[[0.5, 0.3, 0.8], [-0.6, 0.2, 0.7]]]),
        torch.tensor([[[0.5, 0.5, 0.6], [0.1, 0.15, 0.2]]]) * strength,
    )
    return Scene(frontal_camera(vertices, yaw=yaw), lighting, torch.zeros(1, model.shape_model.n_expression))


@pytest.mark.parametrize("strength", [0.4, 1.2])
def test_a_rendered_photo_gives_its_albedo_back(model, face, strength):
    """Coloured light and highlights, also brighter than white, leave no trace."""
    scene, maps = scene_of(model, face, strength=strength), model.maps(face)
    photo = model.renderer(model.vertices(face), maps, scene.camera, scene.lighting, 384).image
    size = maps.diffuse_albedo.shape[-1]
    texture = visible_texture(model, photo, face, scene, size)
    assert texture.known.float().mean() > 0.15
    difference = (texture.diffuse_albedo - maps.diffuse_albedo).abs().mean(1)[texture.known[:, 0]]
    assert difference.median() < 0.004
    assert difference.quantile(0.95) < 0.03


def test_a_turned_head_shows_one_side(model, face):
    size = model.maps(face).diffuse_albedo.shape[-1]
    front, turned, other = (seen_texels(model, face, yaw, size)[0, 0] for yaw in (0.0, 50.0, -50.0))
    half = size // 2
    # Positive yaw turns the face towards the image's right: the subject's right side, small u, is seen.
    assert turned[:, :half].sum() > 2 * turned[:, half:].sum()
    assert other[:, half:].sum() > 2 * other[:, :half].sum()
    assert front.sum() > turned.sum()
