"""Where pretrained weights live, how they are loaded, and networks that never learn. No network access.

A component offers `weights: str = "auto"`: a path, or "auto" for the first of its known file names found in
``$FITDIFF_CACHE/weights`` (default: the user cache folder of this platform) or in torch hub's checkpoint folder.
"""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fitdiff.storage import cache_folder

RANDOM = "random"
"""An explicit choice for tests of shapes and gradients, never a default: features of random weights mean nothing."""


class WeightsError(ValueError):
    """A weights file is there but is not what the network needs."""


@dataclass(frozen=True)
class WeightsSource:
    """What a user must know to bring weights that this package may not ship.

    Attributes:
        what: name of the network. files: file names under which "auto" finds it, best first.
        licence: terms of the weights. origin: where people get them. option: the override that takes a path.
    """

    what: str
    files: tuple[str, ...]
    licence: str
    origin: str
    option: str


def weights_folder() -> Path:
    """`$FITDIFF_CACHE/weights`, or `weights` in the user cache folder of the platform. Need not exist."""
    return cache_folder() / "weights"


def find_weights(weights: str, source: WeightsSource) -> Path:
    """Resolve `weights` ("auto" or a path) to an existing file.

    Raises:
        FileNotFoundError: one message with the file's name, licence, origin, and where to put it.
    """
    if weights != "auto":
        candidates = [Path(weights).expanduser()]
    else:
        hub = Path(torch.hub.get_dir())
        # facenet-pytorch keeps its files one level above torch hub's.
        folders = (weights_folder(), hub / "checkpoints", hub.parent / "checkpoints")
        candidates = [folder / name for folder in folders for name in source.files]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    wanted = " or ".join(source.files)
    raise FileNotFoundError(
        f"{source.what}: no weights at {weights!r}. Get {wanted} from {source.origin} (licence: {source.licence}) and "
        f"put it into {weights_folder()}, or set {source.option}=<path>"
    )


def load_weights(network: nn.Module, path: Path, ignore: tuple[str, ...] = ()) -> None:
    """Load a .safetensors file or a torch state dict (`weights_only=True`: no code of the file is run) strictly.

    Args:
        network: receives the tensors.
        path: file with a flat name -> tensor mapping, optionally under "state_dict", optionally prefixed "module.".
        ignore: prefixes of names that the file may have and the network has not (classifier heads).

    Raises:
        WeightsError: unreadable, missing or unexpected names, or wrong shapes; the message names them.
    """
    state = {
        name.removeprefix("module."): tensor
        for name, tensor in _read_state(path).items()
        if not name.removeprefix("module.").startswith(ignore or ("\0",))
    }
    expected = network.state_dict()
    # Files older than torch 0.4.1 lack this counter, which only training reads.
    missing = [name for name in expected if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in expected]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in state and state[name].shape != expected[name].shape
    ]
    if missing or unexpected or shapes:
        raise WeightsError(
            f"{path} does not fit {type(network).__name__}: missing {_head(missing)}, unexpected {_head(unexpected)}, "
            f"wrong shapes {_head(shapes)}"
        )
    network.load_state_dict(state, strict=False)


def package_folder(package: str) -> Path:
    """Folder of an installed package, without importing it.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"the package {package!r} is not installed: pip install fitdiff brings it")
    return Path(next(iter(spec.submodule_search_locations)))


class FrozenNetwork(nn.Module):
    """A pretrained network: always in evaluation mode, parameters without gradient, differentiable to its input."""

    def freeze(self) -> None:
        """Call at the end of `__init__`."""
        self.requires_grad_(False)
        self.eval()
        self.to(memory_format=torch.channels_last)  # a quarter less time on CPUs, and what GPUs' half precision wants

    def train(self, mode: bool = True) -> FrozenNetwork:
        """Stay in evaluation mode, also as a child of a module that is being trained."""
        return super().train(False)


def fold_norm(parent: nn.Module, convolution: str, norm: str) -> None:
    """Multiply a batch normalisation in evaluation mode into the convolution before it, and take its place by nothing.

    Args:
        parent: has both as children under these names, with their final weights.
    """
    fused = fuse_conv_bn_eval(parent.get_submodule(convolution).eval(), parent.get_submodule(norm).eval())
    setattr(parent, convolution, fused)
    setattr(parent, norm, nn.Identity())


def _read_state(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise WeightsError(f"{path} is neither a .safetensors file nor a plain torch state dict: {error}") from error
    state = state.get("state_dict", state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds a {type(state).__name__}, expected a mapping of names to tensors")
    return state


def _head(names: list[str], count: int = 5) -> str:
    return f"[{', '.join(names[:count])}{f', and {len(names) - count} more' if len(names) > count else ''}]"
