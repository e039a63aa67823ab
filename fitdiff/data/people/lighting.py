"""Light of portraits: lamps far and near, and surroundings, in the colours of candles, lamps, daylight and shade.

Legend of shape suffixes: N views · L = 3 lamps: key, fill, and one anywhere · G = 4 glows of the surroundings.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fitdiff.data.people.options import Portraits
from fitdiff.data.people.views import Views
from fitdiff.randomness import Draws
from fitdiff.renderer.lights import COSINE_GAINS, harmonic_basis, unit
from fitdiff.types import Lighting

MEDIAN_LIGHT = 1.2
"""Received light of all sources together: a white face is then just below the display's white."""

MIRED_SLOPES = (0.02351, 0.02621, 0.03101)
"""c2 / wavelength in 1 / mired at 612, 549 and 464 nm, the dominant wavelengths of the sRGB primaries."""

GLOWS = 4

SHARPEST_GLOW = 0.86
"""With a softness s, 1/4 + s/2 x + 5/16 s^2 (3 x^2 - 1)/2 is least at x = -8/(15 s), where it is 7/60 - 5/32 s^2:
not negative up to s = 0.864. So no normal receives less than nothing."""


def sample_lighting(views: Views, options: Portraits) -> Lighting:
    """Draw the light of each view, with L = 3 lamps (black ones where there are fewer) and harmonics.

    Received light is at least a tenth of the ambient at every normal, so that no pixel of a face is unlit by rule.
    """
    draws = views.draws("light")
    odds = torch.tensor([options.lamps, options.near_lamps, options.surroundings])
    first, second = (odds.cumsum(0) / odds.sum())[:2].tolist()
    kind = draws.uniform()
    near, around = (kind >= first) & (kind < second), kind >= second
    total = MEDIAN_LIGHT * torch.exp(draws.normal(std=options.exposure).clamp(-0.7, 0.5))
    directions, shares = _lamps(draws, around)
    # A strong key needs some fill, or half of the face is black; surroundings are mostly ambient by themselves.
    fill = torch.where(around, draws.uniform(0.6, 1.0), draws.uniform(0.2, 0.6))
    white = draws.normal(std=options.tint)
    colours = (total * (1 - fill))[:, None, None] * shares[..., None] * _tints(draws, white, shares.shape[1])
    ambient = (total * fill)[:, None] * _tints(draws, white, 1)[:, 0]
    distance = torch.stack([draws.uniform(350.0, 1500.0) for _ in range(shares.shape[1])], 1)
    proximity = torch.where(near[:, None], 1 / distance, 0.0)
    return Lighting(ambient, directions, colours, proximity, _harmonics(draws, ambient, white) * around[:, None, None])


def white_balance(mired: Tensor) -> Tensor:
    """Colour of a black body that is `mired` (10^6 / kelvin) warmer than the camera's white, (..., 3), luminance ~1.

    Wien's law: at wavelength w the ratio of two black bodies is exp(-c2 / w (1/T - 1/T0)), so here exp(-slope mired).
    """
    colour = torch.exp(-mired[..., None] * mired.new_tensor(MIRED_SLOPES))
    return colour / (colour * colour.new_tensor([0.2126, 0.7152, 0.0722])).sum(-1, keepdim=True)


def _tints(draws: Draws, white: Tensor, n: int) -> Tensor:
    """(N, n, 3) colours of sources that differ a little from one another, and from black bodies in green."""
    spread = 0.5 * white.abs() + 8
    mired = torch.stack([white + spread * draws.normal() for _ in range(n)], 1)
    green = torch.stack([draws.normal(1.0, 0.03) for _ in range(n)], 1).clamp(0.9, 1.1)
    colour = white_balance(mired.clamp(-120, 200))
    return torch.stack([colour[..., 0], colour[..., 1] * green, colour[..., 2]], -1)


def _lamps(draws: Draws, around: Tensor) -> tuple[Tensor, Tensor]:
    """Directions (N, L, 3) and shares (N, L) that sum to 1: a key, a fill on the other side, and one anywhere.

    In surroundings only the key shines, as the sun or a window does.
    """
    key = draws.uniform(-80.0, 80.0)
    azimuth = torch.stack([key, -key.sign() * draws.uniform(15.0, 90.0), draws.uniform(-160.0, 160.0)], 1).deg2rad()
    elevation = torch.stack([draws.uniform(-5.0, 65.0), draws.uniform(-20.0, 45.0), draws.uniform(-30.0, 70.0)], 1)
    elevation = elevation.deg2rad()
    directions = [azimuth.sin() * elevation.cos(), elevation.sin(), azimuth.cos() * elevation.cos()]
    only_key = (~around).float()
    shares = [torch.ones_like(key), only_key * draws.uniform(0.0, 0.8), only_key * draws.chance(0.35) * draws.uniform()]
    shares = torch.stack(shares, 1)
    return torch.stack(directions, -1), shares / shares.sum(1, keepdim=True)


def _harmonics(draws: Draws, ambient: Tensor, white: Tensor) -> Tensor:
    """Surroundings of the given ambient as a few soft glows, (N, 8, 3).

    A glow that a facing surface receives c from adds c / 4 to the ambient and c / 4 times `COSINE_GAINS` times the
    harmonics of its direction, softened by s at order 1 and s^2 at order 2. Glows share nine tenths of the ambient.
    """
    orders = torch.tensor([1] * 3 + [2] * 5, device=white.device)
    gains = white.new_tensor(COSINE_GAINS) * draws.uniform(0.5, SHARPEST_GLOW)[:, None] ** orders
    shares = torch.softmax(torch.stack([draws.normal(std=1.2) for _ in range(GLOWS)], 1), 1)[..., None]
    tints = _tints(draws, white, GLOWS)
    colours = shares * tints / (shares * tints).sum(1, keepdim=True)
    directions = [torch.stack([draws.normal(), draws.normal(0.7, 0.8), draws.normal(0.3)]) for _ in range(GLOWS)]
    basis = torch.stack([harmonic_basis(unit(direction, 0)) for direction in directions])
    return 0.9 * torch.einsum("nk,gkn,ngc->nkc", gains, basis, colours) * ambient[:, None]
