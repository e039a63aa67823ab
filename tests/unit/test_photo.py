"""Photos of every kind give the pixels that a person would see, bad ones a message."""

import math
import os
import re

import cv2
import numpy as np
import pytest
import tifffile
from PIL import EpsImagePlugin, ExifTags, Image, ImageCms

from fitdiff.alignment.photo import PhotoError, load_photo

HEIGHT, WIDTH = 40, 56


@pytest.fixture
def truth():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def grey(truth):
    return truth[..., 0]


def save(image, path, **options):
    image.save(path, **options)
    return path


def test_rgb_is_read_as_it_is(tmp_path, truth):
    photo = load_photo(save(Image.fromarray(truth), tmp_path / "a.png"))
    assert photo.image.dtype == np.uint8
    assert photo.focal_pixels is None
    np.testing.assert_array_equal(photo.image, truth)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey(tmp_path, grey, suffix):
    image = load_photo(save(Image.fromarray(grey), tmp_path / f"a.{suffix}")).image
    np.testing.assert_array_equal(image, np.repeat(grey[..., None], 3, 2))


def test_grey_16_bit_png(tmp_path, grey):
    path = save(Image.fromarray(grey.astype(np.uint16) * 257), tmp_path / "a.png")
    np.testing.assert_array_equal(load_photo(path).image, np.repeat(grey[..., None], 3, 2))


def test_dark_16_bit_png_stays_dark(tmp_path):
    path = save(Image.fromarray(np.full((HEIGHT, WIDTH), 200, np.uint16)), tmp_path / "a.png")
    assert load_photo(path).image.max() <= 1


def test_rgb_16_bit_png(tmp_path, truth):
    cv2.imwrite(str(tmp_path / "a.png"), (truth.astype(np.uint16) * 257)[..., ::-1])
    np.testing.assert_array_equal(load_photo(tmp_path / "a.png").image, truth)


@pytest.mark.parametrize("planar", [False, True])
def test_rgb_16_bit_tiff(tmp_path, truth, planar):
    values = truth.astype(np.uint16) * 257
    if planar:
        tifffile.imwrite(tmp_path / "a.tif", values.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    else:
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    np.testing.assert_array_equal(load_photo(tmp_path / "a.tif").image, truth)


def test_grey_tiff_where_0_is_white(tmp_path, grey):
    for dtype, gain in ((np.uint8, 1), (np.uint16, 257)):
        tifffile.imwrite(tmp_path / "a.tif", (255 - grey).astype(dtype) * dtype(gain), photometric="miniswhite")
        np.testing.assert_array_equal(load_photo(tmp_path / "a.tif").image, np.repeat(grey[..., None], 3, 2))


def test_integers_are_scaled_by_the_range_of_their_type(tmp_path, truth):
    tifffile.imwrite(
        tmp_path / "a.tif", truth.astype(np.uint32) * np.uint32(2**24 + 2**16 + 2**8 + 1), photometric="rgb"
    )
    np.testing.assert_array_equal(load_photo(tmp_path / "a.tif").image, truth)
    tifffile.imwrite(tmp_path / "b.tif", truth.astype(np.uint32), photometric="rgb")
    assert load_photo(tmp_path / "b.tif").image.max() == 0


def test_inks_of_16_bits_are_refused_rather_than_misread(tmp_path, truth):
    planes = np.zeros((4, HEIGHT, WIDTH), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="separated", planarconfig="separate")
    refuse(tmp_path / "a.tif", "not an image that can be read")


def test_a_small_file_of_a_large_tiff_is_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        tile = np.zeros((1024, 1024, 3), np.uint16)
        file.write((tile for _ in range(196)), shape=(14336, 14336, 3), dtype=np.uint16, tile=(1024, 1024), photometric="rgb", compression="zlib")  # fmt: skip # noqa: E501
    refuse(tmp_path / "a.tif", "not an image that can be read")


def test_strips_are_the_whole(tmp_path, truth, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", truth.astype(np.float32) / 255, photometric="rgb")
    monkeypatch.setattr("fitdiff.alignment.photo.STRIP_BYTES", 1000)
    np.testing.assert_array_equal(load_photo(tmp_path / "a.tif").image, truth)


def test_floating_point_tiff(tmp_path, truth, grey):
    tifffile.imwrite(tmp_path / "rgb.tif", truth.astype(np.float32) / 255, photometric="rgb")
    tifffile.imwrite(tmp_path / "grey.tif", grey.astype(np.float32) / 255)
    np.testing.assert_array_equal(load_photo(tmp_path / "rgb.tif").image, truth)
    np.testing.assert_array_equal(load_photo(tmp_path / "grey.tif").image, np.repeat(grey[..., None], 3, 2))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_composited_on_white(tmp_path, truth, grey, mode):
    alpha = np.linspace(0, 255, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).round().astype(np.uint8)
    colour = truth if mode == "RGBA" else grey[..., None]
    path = save(Image.fromarray(np.concatenate([colour, alpha[..., None]], 2), mode), tmp_path / "a.png")
    opacity = alpha[..., None] / 255
    expected = np.broadcast_to(colour * opacity + 255 * (1 - opacity), truth.shape)
    np.testing.assert_allclose(load_photo(path).image, expected, atol=1)


def test_palette_with_and_without_transparency(tmp_path):
    indices = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 3
    image = Image.fromarray(indices, "P")
    image.putpalette([255, 0, 0, 0, 200, 0, 10, 20, 30])
    palette = np.array([[255, 0, 0], [0, 200, 0], [10, 20, 30]])
    np.testing.assert_array_equal(load_photo(save(image, tmp_path / "a.png")).image, palette[indices])
    transparent = save(image, tmp_path / "b.png", transparency=2)
    palette[2] = 255
    np.testing.assert_array_equal(load_photo(transparent).image, palette[indices])


def test_bilevel(tmp_path, grey):
    image = Image.fromarray(grey > 128)
    expected = np.repeat((grey > 128)[..., None] * np.uint8(255), 3, 2)
    np.testing.assert_array_equal(load_photo(save(image, tmp_path / "a.png")).image, expected)


def test_cmyk(tmp_path):
    flat = np.zeros((HEIGHT, WIDTH, 4), np.uint8) + np.array([200, 30, 90, 40], np.uint8)
    image = Image.fromarray(flat, "CMYK")
    expected = (255 - flat[..., :3].astype(float)) * (255 - 40) / 255
    np.testing.assert_allclose(load_photo(save(image, tmp_path / "a.tif")).image, expected, atol=1)
    np.testing.assert_allclose(load_photo(save(image, tmp_path / "a.jpg", quality=100)).image, expected, atol=4)


@pytest.mark.parametrize(("orientation", "turn"), [(3, 2), (6, -1), (8, 1)])
def test_exif_orientation(tmp_path, truth, orientation, turn):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = save(Image.fromarray(truth), tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(load_photo(path).image, np.rot90(truth, turn))


def swapped_profile():
    """sRGB with its red and blue primaries exchanged: what a file calls red is blue."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(profile)


@pytest.mark.parametrize("alpha", [False, True])
def test_embedded_profile_is_converted_to_srgb(tmp_path, truth, alpha):
    image = Image.fromarray(truth)
    if alpha:
        image.putalpha(255)
    photo = load_photo(save(image, tmp_path / "a.png", icc_profile=swapped_profile()))
    np.testing.assert_allclose(photo.image.astype(int), truth[..., ::-1], atol=1)
    assert photo.notes == ()


def test_useless_profile_is_noted_and_ignored(tmp_path, truth):
    photo = load_photo(save(Image.fromarray(truth), tmp_path / "a.png", icc_profile=b"not a profile"))
    np.testing.assert_array_equal(photo.image, truth)
    assert "colour profile" in photo.notes[0]


def test_focal_length_from_exif(tmp_path, truth):
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = 50
    photo = load_photo(save(Image.fromarray(truth), tmp_path / "a.jpg", exif=exif))
    assert photo.focal_pixels == pytest.approx(50 / math.hypot(36, 24) * math.hypot(WIDTH, HEIGHT))


def refuse(path, message):
    with pytest.raises(PhotoError, match=message) as caught:
        load_photo(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_files_are_refused_in_one_line(tmp_path, truth):
    refuse(tmp_path / "none.jpg", "no such file")
    refuse(tmp_path, "a folder")
    (tmp_path / "text.jpg").write_text("hello")
    refuse(tmp_path / "text.jpg", "not an image")
    (tmp_path / "empty.png").write_bytes(b"")
    refuse(tmp_path / "empty.png", "not an image")
    save(Image.fromarray(truth), tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(data[: len(data) // 2])
    refuse(tmp_path / "half.jpg", re.escape("not an image that can be read"))
    tifffile.imwrite(tmp_path / "whole.tif", truth.astype(np.float32), photometric="rgb")
    (tmp_path / "half.tif").write_bytes((tmp_path / "whole.tif").read_bytes()[:3000])
    refuse(tmp_path / "half.tif", "not an image")
    refuse(save(Image.fromarray(truth[:8]), tmp_path / "small.png"), "56 x 8 pixels is too small, at least 32")


def test_no_photo_starts_a_program(tmp_path, monkeypatch):
    started = tmp_path / "started"
    (tmp_path / "gs").write_text(f"#!/bin/sh\necho $* >> '{started}'\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # looked for anew
    path = tmp_path / "me.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n")
    refuse(path, "not an image")
    assert not started.exists()
