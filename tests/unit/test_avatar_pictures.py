import numpy as np
import pytest
import torch
from PIL import Image

from fitdiff.avatar.pictures import comparison, contact_sheet, grid, save_png, to_uint8
from fitdiff.types import FaceMaps, Rendering

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def flat(colour: str, side: int = 8) -> torch.Tensor:
    return (torch.tensor(COLOURS[colour]) / 255).view(3, 1, 1).expand(3, side, side)


def rendering(colour: str) -> Rendering:
    """The left half of the image."""
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    return Rendering(flat(colour)[None] * mask, mask, torch.zeros(1, 68, 2))


def test_to_uint8_rounds_clamps_and_moves_channels_last():
    image = torch.tensor([-1.0, 0.4 / 255, 0.6 / 255, 254.4 / 255, 2.0, float("nan")]).view(1, 1, 1, 6)
    assert to_uint8(image).reshape(-1).tolist() == [0, 0, 1, 254, 255, 0]
    assert to_uint8(torch.zeros(2, 3, 4, 5)).shape == (2, 4, 5, 3)
    assert to_uint8(torch.ones(3, 2, 2, requires_grad=True)).dtype == np.uint8


def test_png_keeps_every_level(tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    np.testing.assert_array_equal(np.array(Image.open(save_png(levels, tmp_path / "a b ü.png"))), levels)
    tensor = torch.from_numpy(levels).movedim(-1, 0) / 255
    np.testing.assert_array_equal(np.array(Image.open(save_png(tensor, tmp_path / "new" / "b.png"))), levels)


def test_contact_sheet_puts_each_image_into_its_cell():
    sheet = contact_sheet([[flat("red"), flat("green")], [flat("blue")]], cell=32)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (2 * 36 + 4, 2 * 36 + 4, 3)  # cells of 32, gaps of 4
    assert tuple(sheet[20, 20]) == COLOURS["red"]
    assert tuple(sheet[20, 56]) == COLOURS["green"]
    assert tuple(sheet[56, 20]) == COLOURS["blue"]
    assert tuple(sheet[56, 56]) == (255, 255, 255)


def test_contact_sheet_keeps_the_aspect():
    wide = np.zeros((10, 40, 3), np.uint8)
    sheet = contact_sheet([[wide]], cell=32)[4:-4, 4:-4]
    assert ((sheet == 0).all(-1).any(1)).sum() == 8
    assert (sheet[16] == 0).all()


def test_captions_are_drawn_outside_the_images():
    plain = contact_sheet([[flat("red")] * 2] * 2, cell=64)
    captioned = contact_sheet([[flat("red")] * 2] * 2, columns=["photo", "fit"], rows=["Zoë", "person 2"], cell=64)
    top, left = captioned.shape[0] - plain.shape[0], captioned.shape[1] - plain.shape[1]
    np.testing.assert_array_equal(captioned[top:, left:], plain)
    for j in range(2):
        assert captioned[:top, left + 4 + 68 * j : left + 68 * (j + 1)].min() < 100
    for i in range(2):
        assert captioned[top + 4 + 68 * i : top + 68 * (i + 1), :left].min() < 100


def test_a_long_caption_stays_in_its_column():
    sheet = contact_sheet([[flat("red")] * 2], columns=["", "a caption that is far too long for a column"], cell=64)
    header = sheet[:20]
    assert header[:, 70:].min() < 150
    assert header[:, :68].min() == 255


def test_captions_beyond_the_font_are_spelt_in_ascii():
    zoe, plain = (contact_sheet([[flat("red")]], rows=[name], cell=32) for name in ("Zoë", "Zoe"))
    np.testing.assert_array_equal(zoe, plain)
    assert contact_sheet([[flat("red")]], columns=["顔"], cell=32).shape[0] > 36


def test_contact_sheet_refuses_nothing_and_wrong_captions():
    with pytest.raises(ValueError, match="got no image"):
        contact_sheet([])
    with pytest.raises(ValueError, match="got 1 captions for 2 columns"):
        contact_sheet([[flat("red")] * 2], columns=["photo"])
    with pytest.raises(ValueError, match="got 2 captions for 1 rows"):
        contact_sheet([[flat("red")]], rows=["a", "b"])


def test_grid_breaks_the_batch_into_rows():
    images = torch.stack([flat(c) for c in ("red", "green", "blue")])
    np.testing.assert_array_equal(
        grid(images, 2, cell=32), contact_sheet([[flat("red"), flat("green")], [flat("blue")]], cell=32)
    )


def test_comparison_has_seven_columns_in_the_order_of_its_captions():
    up = torch.zeros(1, 3, 8, 8)
    up[:, 2] = 1
    maps = FaceMaps(torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8), up)
    sheet = comparison(
        flat("red")[None], rendering("green"), rendering("blue"), rendering("red"), maps, ["person"], cell=64
    )
    left = sheet.shape[1] - (7 * 68 + 4)
    centres = [tuple(sheet[-40, left + 4 + 68 * j + 8]) for j in range(7)]
    assert centres == [
        COLOURS["red"],
        COLOURS["green"],
        COLOURS["blue"],
        COLOURS["red"],
        (0, 0, 0),
        (255, 255, 255),
        (128, 128, 255),
    ]
    assert tuple(sheet[-40, left + 4 + 68 + 56]) == COLOURS["red"]  # the photo beside the fit
    assert tuple(sheet[-40, left + 4 + 2 * 68 + 56]) == (128, 128, 128)
