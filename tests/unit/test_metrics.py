"""Metrics against truths that can be computed by hand."""

import pytest
import torch
from scipy.spatial.transform import Rotation

from fitdiff.evaluation.metrics import (
    identity_cosine,
    landmark_error,
    light_error,
    map_psnr,
    shape_error,
    similarity_align,
    vertex_distance,
)
from fitdiff.types import FaceMaps


def test_alignment_undoes_any_similarity():
    truth = torch.randn(3, 40, 3, dtype=torch.float64)
    rotation = torch.from_numpy(Rotation.random(3, random_state=0).as_matrix())
    moved = 1.7 * truth @ rotation.transpose(1, 2) + torch.tensor([5.0, -3.0, 2.0])
    assert torch.allclose(similarity_align(moved, truth), truth, atol=1e-9)
    assert torch.allclose(shape_error(moved, truth), torch.zeros(3, dtype=torch.float64), atol=1e-9)


def test_alignment_never_mirrors():
    truth = torch.randn(1, 40, 3, dtype=torch.float64)
    mirrored = truth * torch.tensor([-1.0, 1.0, 1.0])
    assert shape_error(mirrored, truth).item() > 0.3


def test_a_known_displacement_reads_as_such():
    # Opposite displacements of equal points leave the best similarity at the identity.
    sphere = torch.nn.functional.normalize(torch.randn(1, 20_000, 3, dtype=torch.float64), dim=2) * 80
    sphere = torch.cat([sphere, -sphere], 1)
    noise = torch.nn.functional.normalize(torch.randn_like(sphere), dim=2)
    assert shape_error(sphere + 0.5 * noise, sphere).item() == pytest.approx(0.5, rel=0.02)


def test_psnr_of_a_known_difference():
    truth = FaceMaps.from_tensor(torch.zeros(1, 9, 8, 8))
    other = FaceMaps.from_tensor(torch.cat([torch.full((1, 3, 8, 8), 0.2), torch.zeros(1, 6, 8, 8)], 1))
    psnr = map_psnr(other, truth)
    assert psnr["diffuse"].item() == pytest.approx(20.0, abs=0.01)  # 0.1 of [0, 1]
    assert psnr["normals"].item() > 100


def test_centred_cosine():
    mean = torch.tensor([10.0, 0.0])
    a, b = torch.tensor([[10.0, 1.0]]), torch.tensor([[10.0, -1.0]])
    assert identity_cosine(a, b).item() > 0.97
    assert identity_cosine(a, b, mean).item() == pytest.approx(-1)


def test_landmark_error_is_in_eye_distances():
    truth = torch.zeros(1, 68, 2)
    truth[0, 45, 0] = 2.0
    assert landmark_error(truth + torch.tensor([0.2, 0.0]), truth).item() == pytest.approx(0.1)


def test_a_region_s_error_is_the_mean_over_its_vertices():
    truth, other = torch.randn(2, 3, 40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 80
    region = torch.arange(40) % 3 == 0
    distance = vertex_distance(other, truth)
    assert torch.allclose(shape_error(other, truth, region), distance[:, region].mean(1))
    assert torch.allclose(shape_error(other, truth), distance.mean(1))


def test_masked_psnr_is_that_of_the_masked_texels_alone():
    generator = torch.Generator().manual_seed(0)
    truth, other = (FaceMaps.from_tensor(torch.rand(2, 9, 8, 8, generator=generator) * 2 - 1) for _ in range(2))
    mask = torch.rand(2, 1, 8, 8, generator=generator) > 0.5
    found = map_psnr(other, truth, mask)["diffuse"]
    for person in range(2):
        difference = (other.to_images()["diffuse"] - truth.to_images()["diffuse"])[person][:, mask[person, 0]]
        assert found[person].item() == pytest.approx(-10 * difference.square().mean().log10().item(), rel=1e-5)
    everywhere = map_psnr(other, truth, torch.ones(1, 1, 8, 8, dtype=torch.bool))
    for name, value in map_psnr(other, truth).items():
        assert torch.allclose(value, everywhere[name])


def test_light_error_tells_strength_from_colour():
    truth = torch.tensor([[0.5, 0.5, 0.5], [1.0, 0.0, 0.0]])
    error = light_error(torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 0.0]]), truth)
    assert error["stops"][0].item() == pytest.approx(1)
    assert error["degrees"].tolist() == pytest.approx([0, 90], abs=1e-3)
