"""FaceNet: facenet-pytorch's Inception-ResNet-v1 on VGGFace2 (Schroff et al. 2015, Szegedy et al. 2017).

The package brings the architecture, the user the weights.
"""

from __future__ import annotations

from torch import Tensor

from fitdiff.identity.five_points import five_point_weights, template_ndc
from fitdiff.registry import register
from fitdiff.types import IdentityFeatures
from fitdiff.weights import RANDOM, FrozenNetwork, WeightsSource, find_weights, load_weights

SOURCE = WeightsSource(
    what="identity=facenet (Inception-ResNet-v1)",
    files=("20180402-114759-vggface2.pt", "20180408-102900-casia-webface.pt"),
    licence="MIT code, trained on VGGFace2 or CASIA-WebFace: non-commercial",
    origin="https://github.com/timesler/facenet-pytorch/releases/tag/v2.2.9",
    option="identity.weights",
)

TEMPLATE = ((51.8, 61.2), (107.2, 61.2), (79.5, 92.6), (56.1, 111.0), (102.9, 111.0))
"""Where those points lie, on average, in MTCNN's box with facenet-pytorch's margin of 14 pixels, kept square.

Measured on one photo at 8 sizes and 20 synthetic people. The network was trained on boxes, not on aligned faces.
"""

STEM = ("conv2d_1a", "conv2d_2a", "conv2d_2b", "maxpool_3a", "conv2d_3b", "conv2d_4a", "conv2d_4b")
STAGES = (("repeat_1",), ("mixed_6a", "repeat_2"), ("mixed_7a", "repeat_3", "block8"))


@register("identity", "facenet")
class FaceNet(FrozenNetwork):
    """Inception-ResNet-v1 (identity=facenet).

    Args:
        weights: "auto" (fitdiff's weights folder, then torch hub's), a path to a state dict, or "random" (tests of
            shapes only).

    Raises:
        FileNotFoundError: no weights; the message says what to get and where to put it. WeightsError: another
            network's file.
    """

    size = 160
    dim = 512

    def __init__(self, *, weights: str = "auto") -> None:
        from facenet_pytorch import InceptionResnetV1

        super().__init__()
        self.network = InceptionResnetV1(pretrained=None)
        if weights != RANDOM:
            load_weights(self.network, find_weights(weights, SOURCE), ignore=("logits",))
        self.register_buffer("template", template_ndc(TEMPLATE, self.size), persistent=False)
        self.register_buffer("template_weights", five_point_weights(), persistent=False)
        self.freeze()

    def forward(self, crops_B3SS: Tensor) -> IdentityFeatures:
        """Embed crops. Differentiable in the crops.

        Args:
            crops_B3SS: (B, 3, 160, 160) sRGB in [0, 1], aligned to `template`.

        Returns:
            (B, 512) embedding before facenet-pytorch's normalisation, and the outputs of the three groups of
            residual blocks at 17, 8 and 3 pixels.
        """
        x = self._run(STEM, (crops_B3SS * 255 - 127.5) / 128)
        activations = []
        for stage in STAGES:
            x = self._run(stage, x)
            activations.append(x)
        embedding = self.network.last_bn(self.network.last_linear(x.mean((2, 3))))
        return IdentityFeatures(embedding, tuple(activations))

    def _run(self, names: tuple[str, ...], x: Tensor) -> Tensor:
        for name in names:
            x = self.network.get_submodule(name)(x)
        return x
