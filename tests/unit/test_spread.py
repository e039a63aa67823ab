"""Spread of samples: closed forms, and what alignment takes away."""

import numpy as np
import pytest
import torch

from fitdiff.evaluation.metrics import similarity_align
from fitdiff.geometry import rotation_matrix
from fitdiff.uses.spread import Spread, colour_bar, heat, spread_of, vertex_spread


def cloud(n=2000):
    return 60 * torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_moved_turned_and_scaled_copies_have_no_spread():
    turns = rotation_matrix(torch.tensor([[0.1, 0.2, -0.1], [0.0, -0.3, 0.2], [0.2, 0.0, 0.1]], dtype=torch.float64))
    scale = torch.tensor([1.0, 1.1, 0.9], dtype=torch.float64).view(3, 1, 1)
    copies = scale * cloud() @ turns.transpose(1, 2) + torch.arange(3.0)[:, None, None]
    deviation, _ = vertex_spread(copies)
    assert deviation.max() < 1e-9


def test_gaussian_samples_have_the_spread_they_were_drawn_with():
    sigma = torch.linspace(0.2, 3, 2000, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(400, 2000, 3, generator=generator, dtype=torch.float64) * sigma[:, None]
    deviation, mean = vertex_spread(cloud() + noise)
    # chi with 3 * 399 degrees of freedom: 2 % a vertex; alignment takes 7 of 6000 coordinates.
    assert (deviation / (sigma * 3**0.5) - 1).abs().max() < 0.12
    assert (deviation / (sigma * 3**0.5) - 1).mean().abs() < 0.005
    assert (similarity_align(mean[None], cloud()[None])[0] - cloud()).norm(dim=1).mean() < 0.2


class Plain:
    """A model whose z are coordinates and grey levels."""

    def vertices(self, z):
        return cloud(50).float() + 0 * z.sum()

    def maps(self, z):
        from fitdiff.types import FaceMaps

        up = torch.tensor([0.0, 0, 1]).view(1, 3, 1, 1).expand(len(z), 3, 4, 4)
        grey = z.view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
        return FaceMaps(grey, grey, up)


def test_texels_are_measured_as_displayed():
    levels = torch.tensor([0.2, 0.4, 0.9])
    model = Plain()
    model.vertices = lambda z: cloud(50).float().expand(3, -1, -1)
    spread = spread_of(model, levels[:, None])
    torch.testing.assert_close(spread.texels["specular"], torch.full((4, 4), float(levels.std())))
    assert spread.texels["normals"].max() == 0
    assert spread.figures()["specular_texels"]["mean"] == pytest.approx(float(levels.std()), abs=1e-4)
    with pytest.raises(ValueError, match="2 or more"):
        spread_of(model, levels[:1, None])


def test_colours_are_ordered_and_the_bar_shows_them():
    lightness = heat(torch.linspace(0, 1, 64)[None], 1.0)[0].astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > -1).all()
    assert lightness[-1] - lightness[0] > 150
    bar = colour_bar(2.0, "mm", 200)
    column = bar[20:180, 30].astype(float) @ [0.2126, 0.7152, 0.0722]
    assert column[0] > column[-1] + 150  # the largest value on top


def test_picture_of_a_real_model(tiny_run):
    from fitdiff import FitDiff

    model = FitDiff.load(tiny_run / "model", "cpu")
    z = torch.randn(4, model.latent.length, generator=torch.Generator().manual_seed(0))
    spread = spread_of(model, z)
    assert isinstance(spread, Spread)
    picture = spread.picture(96)
    assert picture.shape[1] > 5 * 96
    assert picture[:, :100].std() > 20
