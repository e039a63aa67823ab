"""Light in closed form: harmonics against brute-force integrals, lamps against geometry, energy in a white furnace."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from fitdiff.renderer import lights, shading

DOUBLE = {"dtype": torch.float64}


def sphere_quadrature(n=200):
    """Directions (3, N) and solid angles (N,) that integrate over the sphere: Gauss-Legendre times uniform."""
    z, weight = np.polynomial.legendre.leggauss(n)
    turn = (np.arange(2 * n) + 0.5) / (2 * n) * 2 * np.pi
    z, turn = (x.ravel() for x in np.meshgrid(z, turn, indexing="ij"))
    level = np.sqrt(1 - z**2)
    directions = np.stack([level * np.cos(turn), level * np.sin(turn), z])
    return torch.from_numpy(directions), torch.from_numpy(np.repeat(weight, 2 * n) * np.pi / n)


def random_directions(n, seed=0):
    return lights.unit(torch.randn(3, n, generator=torch.Generator().manual_seed(seed), **DOUBLE), 0)


def test_harmonics_are_orthogonal_to_each_other_and_to_a_constant_with_mean_square_one():
    directions, weights = sphere_quadrature(20)
    basis = torch.cat([torch.ones(1, directions.shape[1]), lights.harmonic_basis(directions)])
    gram = (basis * weights) @ basis.t() / (4 * torch.pi)
    assert torch.allclose(gram, torch.eye(9, **DOUBLE), atol=1e-12)


def test_each_order_is_closed_under_rotation():
    # A rotated harmonic is a combination of harmonics of its own order: they are the right polynomials.
    turned = torch.from_numpy(Rotation.from_euler("zxy", [0.3, 1.0, -0.5]).as_matrix()) @ random_directions(50)
    basis, rotated = lights.harmonic_basis(random_directions(50)), lights.harmonic_basis(turned)
    for order in (slice(0, 3), slice(3, 8)):
        mixed = torch.linalg.lstsq(basis[order].t(), rotated[order].t()).solution
        assert torch.allclose(basis[order].t() @ mixed, rotated[order].t(), atol=1e-12)


def test_order_of_the_harmonics():
    # Asymmetric on purpose: each axis and pair of axes tells which coefficient it belongs to.
    x, y, z = torch.eye(3, **DOUBLE)
    first = lights.harmonic_basis(torch.stack([x, y, z], 1))[:3]
    assert torch.allclose(first, 3**0.5 * torch.tensor([[0, 1, 0], [0, 0, 1], [1, 0, 0]], **DOUBLE))
    diagonals = torch.stack([x + y, y + z, x + z], 1) / 2**0.5
    xy, yz, _, xz, _ = lights.harmonic_basis(diagonals)[3:] / 15**0.5 * 2
    assert torch.allclose(torch.stack([xy, yz, xz]), torch.eye(3, **DOUBLE), atol=1e-12)
    _, _, zz, _, xx_yy = lights.harmonic_basis(torch.stack([x, y, z], 1))[3:]
    assert torch.allclose(zz, 5**0.5 / 2 * torch.tensor([-1.0, -1, 2], **DOUBLE))
    assert torch.allclose(xx_yy, 15**0.5 / 2 * torch.tensor([1.0, -1, 0], **DOUBLE))


def test_gains_are_the_convolution_with_the_clamped_cosine():
    directions, weights = sphere_quadrature()
    radiance = lights.harmonic_basis(directions)
    normals = random_directions(7)
    received = torch.stack([(radiance * (n @ directions).clamp_min(0) * weights).sum(1) for n in normals.t()], 1)
    expected = torch.tensor(lights.COSINE_GAINS, **DOUBLE)[:, None] * lights.harmonic_basis(normals)
    assert torch.allclose(received / torch.pi, expected, atol=1e-4)


def test_each_image_has_its_own_harmonics_and_negative_light_is_none():
    normals, counts = random_directions(9), (4, 0, 5)
    harmonics = torch.randn(3, 8, 3, generator=torch.Generator().manual_seed(1), **DOUBLE)
    got = lights.from_surroundings(torch.full((3, 9), 0.2, **DOUBLE), harmonics, normals, counts)
    assert (got == 0).any()
    for point, image in enumerate((0, 0, 0, 0, 2, 2, 2, 2, 2)):
        expected = (0.2 + harmonics[image].t() @ lights.harmonic_basis(normals[:, point, None])[:, 0]).clamp_min(0)
        assert torch.allclose(got[:, point], expected)


def test_a_near_lamp_obeys_the_inverse_square_law():
    direction, distance = random_directions(1)[:, 0], 350.0
    points = 80 * random_directions(6, 3)
    to_lamp = distance * direction[:, None] - points
    towards, arriving = lights.from_lamps(
        2.5 * direction.view(1, 3, 1).expand(1, 3, 6),
        torch.full((1, 3, 6), 0.7, **DOUBLE),
        torch.full((1, 6), 1 / distance, **DOUBLE),
        points,
    )
    assert torch.allclose(towards[0], to_lamp / to_lamp.norm(dim=0))
    assert torch.allclose(arriving[0, 0], 0.7 * distance**2 / to_lamp.square().sum(0))


def test_a_lamp_at_proximity_zero_is_infinitely_far():
    direction, colour = random_directions(5)[None], torch.rand(1, 3, 5, **DOUBLE)
    points = 80 * random_directions(5, 3)
    far = lights.from_lamps(direction, colour, None, points)
    zero = lights.from_lamps(direction, colour, torch.zeros(1, 5, **DOUBLE), points)
    almost = lights.from_lamps(direction, colour, torch.full((1, 5), 1e-9, **DOUBLE), points)
    for a, b, c in zip(far, zero, almost, strict=True):
        assert torch.allclose(a, b)
        assert torch.allclose(a, c, atol=1e-6)


def test_directions_and_uv_are_inverse():
    directions = random_directions(100)
    assert torch.allclose(lights.uv_to_direction(*lights.direction_to_uv(3 * directions)), directions)


@pytest.mark.parametrize(
    ("direction", "uv"),
    [
        ((0, 0, 1), (0.5, 0.5)),
        ((1, 0, 0), (0.25, 0.5)),
        ((-1, 0, 0), (0.75, 0.5)),
        ((0, 1, 0), (None, 0.0)),
        ((0, -1, 0), (None, 1.0)),
    ],
)
def test_which_direction_is_which_column(direction, uv):
    got = lights.direction_to_uv(torch.tensor(direction, **DOUBLE)[:, None])
    for value, expected in zip(got, uv, strict=True):
        assert expected is None or value.item() == pytest.approx(expected, abs=1e-6)


def test_reflections_are_continuous_across_the_seam():
    image = torch.rand(1, 3, 4, 8, generator=torch.Generator().manual_seed(0), **DOUBLE)
    behind = torch.tensor([[1e-6, -1e-6], [0.1, 0.1], [-1, -1]], **DOUBLE)
    left, right = lights.reflected(image, behind, (2,)).t()
    assert torch.allclose(left, right, atol=1e-5)
    between = (image[0, :, :, 0] + image[0, :, :, -1]) / 2
    v = lights.direction_to_uv(behind)[1][0].item() * 4 - 0.5
    assert torch.allclose(left, between[:, 1] * (2 - v) + between[:, 2] * (v - 1), atol=1e-5)


def test_texels_are_found_again():
    image = torch.rand(1, 3, 4, 8, generator=torch.Generator().manual_seed(0), **DOUBLE)
    v, u = torch.meshgrid((torch.arange(4) + 0.5) / 4, (torch.arange(8) + 0.5) / 8, indexing="ij")
    found = lights.reflected(image, lights.uv_to_direction(u.double(), v.double()).flatten(1), (32,))
    assert torch.allclose(found.view(3, 4, 8), image[0], atol=1e-6)


@pytest.mark.parametrize("shininess", [1.0, 8.0, 30.0, 100.0])
def test_the_lobe_never_reflects_more_than_it_gets(shininess):
    # The integral over all directions of light, by another rule than the renderer's own, for each angle of view.
    directions, weights = sphere_quadrature(150)
    directions, weights = directions[:, directions[2] > 0], weights[directions[2] > 0]
    up = torch.tensor([0.0, 0, 1], **DOUBLE)[:, None].expand_as(directions)
    for cosine in (1.0, 0.8, 0.5, 0.2, 0.05):
        view = torch.tensor([(1 - cosine**2) ** 0.5, 0, cosine], **DOUBLE)[:, None].expand_as(directions)
        lobe = shading.blinn_phong(up, directions[None], view, shininess)[0]
        share = (lobe * directions[2] * weights).sum().item() / np.pi
        assert share <= 1 + 1e-4
        assert share == pytest.approx(np.polyval(shading.reflectance_polynomial(shininess), cosine), abs=1e-3)


def test_specular_occlusion_is_one_in_the_open_and_zero_in_the_dark():
    cosine = torch.linspace(0, 1, 11, **DOUBLE)
    open_, half, dark = (shading.specular_occlusion(torch.full((11,), o, **DOUBLE), cosine, 30.0) for o in (1, 0.5, 0))
    assert torch.allclose(open_, torch.ones(11, **DOUBLE))
    assert torch.allclose(dark, torch.zeros(11, **DOUBLE), atol=1e-9)
    assert (half[1:] > half[:-1]).all()
    assert half[0] < 0.5 < half[-1]
