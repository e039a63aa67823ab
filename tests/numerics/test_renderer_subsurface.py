"""Light through the skin: what the blur keeps, and how wide it is."""

from dataclasses import replace

import pytest
import torch

from fitdiff.colour import srgb_to_linear
from fitdiff.renderer import TorchRenderer
from fitdiff.renderer.bench import ellipsoid, scene
from fitdiff.renderer.subsurface import RELATIVE_PATHS, scatter

DOUBLE = {"dtype": torch.float64}


def test_uniform_light_stays_as_it_is_up_to_the_outline():
    mask = torch.zeros(1, 1, 32, 32, **DOUBLE)
    mask[..., 5:20, 9:31] = 1
    mask[..., 10, 12] = 0
    light = torch.tensor([0.9, 0.4, 0.2], **DOUBLE).view(1, 3, 1, 1)
    outside = torch.rand(1, 3, 32, 32, **DOUBLE) * (1 - mask)
    scattered = scatter(light * mask + outside, mask, torch.tensor([0.6], **DOUBLE), 3.0)
    assert torch.allclose(scattered, light * mask)


@pytest.mark.parametrize("scale", [0.8, 2.0])
def test_a_beam_spreads_by_the_mean_free_path_and_loses_nothing(scale):
    size, path = 81, 3.5
    beam = torch.zeros(1, 3, size, size, **DOUBLE)
    beam[..., 40, 40] = 1
    spread = scatter(beam, torch.ones(1, 1, size, size, **DOUBLE), torch.tensor([scale], **DOUBLE), path)[0]
    assert torch.allclose(spread.sum((1, 2)), torch.ones(3, **DOUBLE), atol=1e-3)
    offset = (torch.arange(size, **DOUBLE) - 40) / scale
    variance = (spread * offset.square()).sum((1, 2))
    # Blue at the coarser scale spreads by half a pixel, less than a sampled Gaussian can show.
    expected = (path * torch.tensor(RELATIVE_PATHS, **DOUBLE)).square()
    assert torch.allclose(variance[:2], expected[:2], rtol=0.01)
    assert torch.allclose(variance[2], expected[2], rtol=0.2)


def test_no_path_is_no_blur_and_images_have_their_own_scale():
    torch.manual_seed(0)
    light, mask = torch.rand(2, 3, 16, 16, **DOUBLE), torch.ones(2, 1, 16, 16, **DOUBLE)
    scale = torch.tensor([0.5, 2.0], **DOUBLE)
    assert torch.allclose(scatter(light, mask, scale, 0.0), light)
    together = scatter(light, mask, scale, 1.5)
    for i in range(2):
        one = slice(i, i + 1)
        assert torch.allclose(together[one], scatter(light[one], mask[one], scale[one], 1.5))


def test_gradients():
    torch.manual_seed(0)
    light = torch.rand(1, 3, 6, 6, **DOUBLE, requires_grad=True)
    scale = torch.tensor([0.7], **DOUBLE, requires_grad=True)
    mask = (torch.rand(1, 1, 6, 6, **DOUBLE) > 0.2).double()
    assert torch.autograd.gradcheck(lambda light, scale: scatter(light, mask, scale, 2.0), (light, scale))


def rendered(**options):
    """Linear (3, S, S) of a bumpy white face lit from the side, and its mask."""
    torch.manual_seed(0)
    vertices, topology = ellipsoid(40)
    vertices, maps, camera, lighting = (x.detach() for x in scene(vertices, 1, 64))
    maps = replace(maps, diffuse_albedo=torch.ones_like(maps.diffuse_albedo), specular_albedo=0 * maps.specular_albedo)
    lighting = replace(lighting, ambient=0 * lighting.ambient, colours=0.4 + 0 * lighting.colours)
    rendering = TorchRenderer(topology, **options)(vertices, maps, camera, lighting, 96)
    return srgb_to_linear(rendering.image)[0], rendering.mask[0]


def test_a_face_keeps_its_light_and_loses_contrast_red_most():
    (plain, mask), (soft, same) = rendered(), rendered(subsurface=6.0)
    assert torch.equal(mask, same)
    assert torch.allclose((plain * mask).sum((1, 2)), (soft * mask).sum((1, 2)), rtol=0.03)

    def roughness(image):
        steps = (image[:, :, 1:] - image[:, :, :-1]) * mask[:, :, 1:] * mask[:, :, :-1]
        return steps.square().sum((1, 2))

    red, green, blue = roughness(soft) / roughness(plain)
    assert red < green < blue < 1
    assert red < 0.3


def test_bad_paths_are_named():
    with pytest.raises(ValueError, match="subsurface is -1"):
        TorchRenderer(ellipsoid(4)[1], subsurface=-1.0)
