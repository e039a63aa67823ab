"""Map files of every depth and kind give the numbers that were written."""

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from fitdiff.images import probe, read_image
from tests.conftest import write_exr


@pytest.fixture
def colours() -> np.ndarray:
    return np.random.default_rng(0).random((6, 6, 3)).astype(np.float32)


def test_8_bits(tmp_path, colours):
    levels = (colours * 255).round().astype(np.uint8)
    Image.fromarray(levels).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(read.values.movedim(0, -1), levels / np.float32(255))
    assert not read.floating
    assert probe(tmp_path / "a.png") == (6, 6)


def test_16_bits_are_not_cut_to_8(tmp_path, colours):
    levels = (colours * 65535).round().astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), levels[..., ::-1])
    tifffile.imwrite(tmp_path / "a.tif", levels, photometric="rgb")
    tifffile.imwrite(tmp_path / "planar.tif", levels.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    for name in ("a.png", "a.tif", "planar.tif"):
        np.testing.assert_allclose(read_image(tmp_path / name).values.movedim(0, -1), levels / 65535, atol=1e-7)
        assert probe(tmp_path / name) == (6, 6)
    cv2.imwrite(str(tmp_path / "grey.png"), levels[..., 0])
    assert read_image(tmp_path / "grey.png").values.shape == (1, 6, 6)


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_exr_keeps_negative_and_bright_numbers(tmp_path, colours, kind):
    values = (colours * 4 - 2).astype(kind)
    write_exr(tmp_path / "a.exr", {"RGB": values})
    read = read_image(tmp_path / "a.exr")
    np.testing.assert_array_equal(read.values.movedim(0, -1), values.astype(np.float32))
    assert read.floating
    assert probe(tmp_path / "a.exr") == (6, 6)


def test_exr_with_one_channel(tmp_path, colours):
    write_exr(tmp_path / "a.exr", {"Y": colours[..., 0].copy()})
    np.testing.assert_array_equal(read_image(tmp_path / "a.exr").values[0], colours[..., 0])


def test_luminance_of_an_exr_is_read_and_not_its_alpha(tmp_path, colours):
    write_exr(tmp_path / "a.exr", {"A": np.ones((6, 6), np.float32), "Y": colours[..., 0].copy()})
    np.testing.assert_array_equal(read_image(tmp_path / "a.exr").values[0], colours[..., 0])


def test_an_exr_with_one_channel_of_any_name(tmp_path, colours):
    write_exr(tmp_path / "a.exr", {"roughness": colours[..., 0].copy()})
    np.testing.assert_array_equal(read_image(tmp_path / "a.exr").values[0], colours[..., 0])


def test_channels_of_unknown_meaning_are_listed(tmp_path, colours):
    layers = {f"diffuse.{name}": colours[..., i].copy() for i, name in enumerate("RGB")}
    write_exr(tmp_path / "a.exr", layers)
    with pytest.raises(ValueError, match=r"a\.exr: .*channels diffuse\.B, diffuse\.G, diffuse\.R, expected R, G and B"):
        read_image(tmp_path / "a.exr")


@pytest.mark.parametrize("kind", [bool, np.uint8, np.uint16])
@pytest.mark.parametrize("meaning", ["minisblack", "miniswhite"])
def test_grey_tiff_is_0_where_it_is_dark(tmp_path, colours, kind, meaning):
    full = 1 if kind is bool else np.iinfo(kind).max
    levels = (colours[..., 0] * full).round().astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", levels, photometric=meaning)
    shown = levels.astype(np.float64) / full
    read = read_image(tmp_path / "a.tif")
    np.testing.assert_allclose(read.values[0], shown if meaning == "minisblack" else 1 - shown, atol=1e-6)
    assert not read.floating


def test_tiff_of_other_meanings_is_refused(tmp_path, colours):
    levels = (colours * 255).astype(np.uint8)
    Image.fromarray(levels).quantize(8).save(tmp_path / "palette.tif")
    tifffile.imwrite(tmp_path / "inks.tif", levels.repeat(2, 2)[..., :4].copy(), photometric="separated")
    tifffile.imwrite(tmp_path / "float.tif", colours[..., 0], photometric="miniswhite")
    tifffile.imwrite(tmp_path / "complex.tif", colours[..., 0].astype(np.complex64), photometric="minisblack")
    for name, fault in (
        ("palette", "uint8 of kind PALETTE, expected grey or RGB"),
        ("inks", "kind SEPARATED"),
        ("float", "float32 of kind MINISWHITE"),
        ("complex", "holds complex64"),
    ):
        with pytest.raises(ValueError, match=rf"{name}\.tif: .*{fault}"):
            read_image(tmp_path / f"{name}.tif")


def test_floating_tiff(tmp_path, colours):
    tifffile.imwrite(tmp_path / "a.tiff", colours, photometric="rgb")
    read = read_image(tmp_path / "a.tiff")
    assert read.floating
    np.testing.assert_array_equal(read.values.movedim(0, -1), colours)


def test_alpha_is_dropped(tmp_path):
    Image.new("RGBA", (4, 4), (10, 20, 30, 0)).save(tmp_path / "a.png")
    torch.testing.assert_close(read_image(tmp_path / "a.png").values[:, 0, 0] * 255, torch.tensor([10.0, 20, 30]))
    Image.new("LA", (4, 4), (10, 0)).save(tmp_path / "b.png")
    assert read_image(tmp_path / "b.png").values.shape == (1, 4, 4)


@pytest.mark.parametrize("suffix", [".png", ".exr", ".tif", ".jpg"])
def test_damaged_files_are_named(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a\.\w+: cannot be read"):
        read_image(path)
    with pytest.raises(ValueError, match="cannot be read"):
        probe(path)


def test_numbers_must_be_finite(tmp_path, colours):
    colours[0, 0, 0] = np.nan
    write_exr(tmp_path / "a.exr", {"RGB": colours})
    with pytest.raises(ValueError, match=r"a\.exr: holds numbers that are not finite"):
        read_image(tmp_path / "a.exr")


def test_a_pair_of_jpegs_is_read_as_its_first_and_text_is_refused_by_name(tmp_path):
    pixels = np.full((6, 8, 3), 90, np.uint8)
    first, second = (Image.fromarray(pixels + 60 * i) for i in range(2))
    first.save(tmp_path / "pair.jpg", format="MPO", save_all=True, append_images=[second])
    assert read_image(tmp_path / "pair.jpg").values.mean() == pytest.approx(90 / 255, abs=0.01)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"cannot be read .*cannot identify"):
        probe(tmp_path / "text.png")
