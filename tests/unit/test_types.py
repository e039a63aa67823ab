"""The records: packing of maps, and the operations of `TensorRecord`."""

from dataclasses import fields, replace

import pytest
import torch

from fitdiff.colour import linear_to_srgb, srgb_to_linear
from fitdiff.types import (
    SCENE_KEYS,
    Camera,
    FaceMaps,
    IdentityFeatures,
    Lighting,
    Observation,
    Rendering,
    Scene,
    Topology,
    composite,
)


def maps(batch=2, side=5, dtype=torch.float64):
    torch.manual_seed(0)
    normals = torch.randn(batch, 3, side, side, dtype=dtype)
    normals[:, 2] = normals[:, 2].abs() + 0.1
    albedo = torch.rand(2, batch, 3, side, side, dtype=dtype)
    return FaceMaps(albedo[0], albedo[1], normals / normals.norm(dim=1, keepdim=True))


def scene(batch=2):
    camera = Camera(torch.randn(batch, 3), torch.randn(batch, 3), torch.rand(batch), torch.zeros(batch, 2))
    lighting = Lighting(
        torch.rand(batch, 3),
        torch.randn(batch, 4, 3),
        torch.rand(batch, 4, 3),
        proximity=torch.rand(batch, 4) / 500,
        harmonics=torch.randn(batch, 8, 3),
    )
    return Scene(camera, lighting, torch.rand(batch, 6))


def assert_same(first, second):
    """Compare two records tensor by tensor."""
    for field in fields(first):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if a is None or b is None:
            assert a is b, field.name
        elif isinstance(a, torch.Tensor):
            assert torch.equal(a, b), field.name
        elif isinstance(a, tuple):
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        else:
            assert_same(a, b)


def test_maps_survive_packing():
    packed = maps().to_tensor()
    assert packed.shape == (2, 9, 5, 5)
    assert packed.abs().max() <= 1 + 1e-12
    unpacked = FaceMaps.from_tensor(packed)
    assert torch.allclose(unpacked.diffuse_albedo, maps().diffuse_albedo, atol=1e-6)
    assert torch.allclose(unpacked.specular_albedo, maps().specular_albedo)
    # Unpacking leans every normal by at most 1e-4 outwards, so that a zero vector has a direction.
    assert torch.allclose(unpacked.normals, maps().normals, atol=1.1e-4)


def test_packing_stores_diffuse_as_srgb_and_the_rest_as_it_is():
    grey = torch.full((1, 3, 1, 1), 0.18)
    up = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1)
    packed = FaceMaps(grey, grey, up).to_tensor().flatten()
    assert packed[0] * 0.5 + 0.5 == pytest.approx(0.4614, abs=1e-4)
    assert packed[3] * 0.5 + 0.5 == pytest.approx(0.18)
    assert packed[6:].tolist() == [0.0, 0.0, 1.0]


def test_unpacking_makes_any_tensor_valid():
    torch.manual_seed(0)
    unpacked = FaceMaps.from_tensor(3 * torch.randn(2, 9, 8, 8))
    for albedo in (unpacked.diffuse_albedo, unpacked.specular_albedo):
        assert albedo.min() >= 0
        assert albedo.max() <= 1
    assert torch.allclose(unpacked.normals.norm(dim=1), torch.ones(2, 8, 8), atol=1e-5)


def test_a_zero_normal_unpacks_to_straight_out_with_a_finite_gradient():
    packed = torch.zeros(1, 9, 1, 1, requires_grad=True)
    normals = FaceMaps.from_tensor(packed).normals
    assert normals.flatten().tolist() == [0.0, 0.0, 1.0]
    (gradient,) = torch.autograd.grad(normals.sum(), packed)
    assert gradient.isfinite().all()


def test_unpacking_is_differentiable():
    torch.manual_seed(0)
    packed = (torch.rand(1, 9, 2, 2, dtype=torch.float64) - 0.5).requires_grad_()

    def unpack(tensor):
        unpacked = FaceMaps.from_tensor(tensor)
        return unpacked.diffuse_albedo, unpacked.specular_albedo, unpacked.normals

    assert torch.autograd.gradcheck(unpack, packed)


def test_display_images():
    images = maps().to_images()
    assert list(images) == ["diffuse", "specular", "normals"]
    assert torch.allclose(images["normals"] * 2 - 1, maps().normals)
    assert torch.allclose(images["specular"], maps().specular_albedo)


def test_map_reaches_nested_records_and_tuples():
    features = IdentityFeatures(torch.ones(2, 3), (torch.ones(2, 1), torch.ones(2, 2)))
    observation = Observation(torch.ones(2, 3, 4, 4), torch.ones(2, 68, 2), torch.ones(2, 2, 3), features)
    doubled = observation.map(lambda x: 2 * x)
    assert doubled.features.activations[1].eq(2).all()
    assert observation.features.activations[1].eq(1).all()


def test_index_and_cat_are_inverse():
    whole = scene(5)
    assert_same(Scene.cat([whole[:2], whole[2:3], whole[3:]]), whole)
    features = IdentityFeatures(torch.rand(3, 4), (torch.rand(3, 2), torch.rand(3, 5)))
    assert_same(IdentityFeatures.cat([features[:1], features[1:]]), features)


def test_parts_of_the_light_that_are_absent_stay_absent():
    bare = replace(scene(2).lighting, proximity=None, harmonics=None)
    without = replace(scene(2), lighting=bare)
    assert set(SCENE_KEYS) - set(without.to_tensors()) == {"proximity", "harmonics"}
    assert_same(Scene.from_tensors(without.to_tensors()), without)
    with pytest.raises(ValueError, match="lack a part"):
        Lighting.cat([scene(2).lighting, bare])


def test_index_tensor_selects_people():
    whole = scene(4)
    picked = whole[torch.tensor([2, 0])]
    assert torch.equal(picked.lighting.colours, whole.lighting.colours[[2, 0]])


def test_detach_and_to():
    attached = maps().map(lambda x: x.requires_grad_())
    assert not attached.detach().normals.requires_grad
    assert attached.to("meta").normals.device.type == "meta"


def test_landmarks_are_barycentric_and_differentiable():
    vertices = torch.tensor([[[0.0, 0, 0], [4, 0, 0], [0, 8, 0]]], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([[0.5, 0.25, 0.25]]).expand(68, -1)
    topology = Topology(torch.tensor([[0, 1, 2]]), torch.zeros(3, 2), torch.tensor([[0, 1, 2]]).expand(68, -1), weights)
    landmarks = topology.landmarks(vertices)
    assert landmarks.shape == (1, 68, 3)
    assert landmarks[0, 0].tolist() == [1.0, 2.0, 0.0]
    (gradient,) = torch.autograd.grad(landmarks[0, 0, 0], vertices)
    assert gradient[0, :, 0].tolist() == [0.5, 0.25, 0.25]


def rendering(mask):
    return Rendering(torch.rand(2, 3, 4, 4, dtype=mask.dtype), mask, torch.zeros(2, 68, 2))


@pytest.mark.parametrize("background", [0.55, torch.rand(2, 3, 4, 4)], ids=["grey", "photo"])
def test_a_hard_mask_chooses(background):
    hard = rendering((torch.rand(2, 1, 4, 4) > 0.5).float())
    expected = torch.where(hard.mask > 0, hard.image, background)
    assert torch.equal(composite(hard, background), expected)


def test_a_soft_mask_blends_light_and_has_a_gradient():
    mask = torch.linspace(0, 1, 32, dtype=torch.float64).view(2, 1, 4, 4)
    soft, photo = rendering(mask), torch.rand(2, 3, 4, 4, dtype=torch.float64)
    expected = linear_to_srgb(mask * srgb_to_linear(soft.image) + (1 - mask) * srgb_to_linear(photo))
    shown = composite(soft, photo)
    torch.testing.assert_close(shown, expected)
    assert torch.equal(shown[0, :, 0, 0], photo[0, :, 0, 0])
    assert torch.equal(shown[1, :, 3, 3], soft.image[1, :, 3, 3])
    inside = (mask * 0.9 + 0.05).requires_grad_()
    arguments = soft.image.clone().requires_grad_(), inside, photo.requires_grad_()
    assert torch.autograd.gradcheck(lambda i, m, p: composite(replace(soft, image=i, mask=m), p), arguments)


def test_blending_somewhere_changes_nothing_elsewhere():
    # Asked on the CPU alone: a GPU blends all pixels, which must give binary masks the plain choice, to the gradient.
    torch.manual_seed(4)
    image, photo = torch.rand(2, 3, 4, 4, requires_grad=True), torch.rand(2, 3, 4, 4)
    mask = (torch.rand(2, 1, 4, 4) > 0.5).float()
    with_soft_pixel = mask.clone()
    with_soft_pixel[1, 0, 0, 0] = 0.5
    plain, blended = (composite(Rendering(image, m, torch.zeros(2, 68, 2)), photo)[0] for m in (mask, with_soft_pixel))
    assert torch.equal(blended, plain)
    gradients = [torch.autograd.grad(shown.square().sum(), image)[0] for shown in (plain, blended)]
    assert torch.equal(*gradients)
