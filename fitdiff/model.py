"""FitDiff: every component of one trained model, and what can be done with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fitdiff.diffusion.separate import build_separate
from fitdiff.diffusion.velocity import VelocityDenoiser
from fitdiff.latent import LatentSpace
from fitdiff.photo_fit import PhotoFit, fit_photo
from fitdiff.registry import build, load_plugins
from fitdiff.sampling import Samples, sample_faces
from fitdiff.storage import CheckpointError, pack_modules, unpack_modules, write_json, write_tensors
from fitdiff.types import FaceMaps

FORMAT = 1
COMPONENTS = ("shape_model", "autoencoder", "denoiser", "schedule", "identity", "renderer")
"""Registry kinds that a checkpoint's config builds."""

DEFAULTS = ("sampler", "guidance", "fitting", "detector", "landmarks")
"""Configs that travel with a checkpoint as defaults of `FitDiff.fit`; any of them can be replaced."""


class FitDiff(nn.Module):
    """A shape model, an autoencoder and a denoiser over `z`, with what they were trained against.

    Args:
        config: `resolution`, `prediction` (noise or velocity), one node for each of `COMPONENTS` and `DEFAULTS`, and
            optionally `separate` (true: two denoisers, one for shape and one for the maps).
        parts: components that are already built (training builds them stage by stage); the rest are built here.

    Attributes:
        latent: packs and unpacks z.
    """

    def __init__(self, config: Mapping[str, Any], **parts: Any) -> None:
        super().__init__()
        self.config = dict(config)
        resolution = int(config["resolution"])
        self.shape_model = parts.get("shape_model") or build(config["shape_model"], "shape_model")
        self.identity = parts.get("identity") or build(config["identity"], "identity")
        self.renderer = parts.get("renderer") or build(
            config["renderer"], "renderer", topology=self.shape_model.topology
        )
        self.autoencoder = parts.get("autoencoder") or build(
            config["autoencoder"], "autoencoder", resolution=resolution
        )
        self.latent = LatentSpace(self.shape_model.n_identity, self.autoencoder.latent_shape)
        self.schedule = build(config["schedule"], "schedule")
        self.separate = bool(config.get("separate", False))
        self.denoiser = self._build_denoiser()
        for name in ("shape_model", "identity", "autoencoder", "renderer"):
            part = getattr(self, name)
            if isinstance(part, nn.Module):
                part.eval().requires_grad_(False)

    def _build_denoiser(self) -> Any:
        node, prediction = self.config["denoiser"], self.config["prediction"]
        latent, dim = self.latent, self.identity.dim
        if prediction not in ("noise", "velocity"):
            raise ValueError(f"prediction is {prediction!r}; expected noise or velocity")
        if self.separate:
            denoiser = build_separate(node, latent.parts, latent.length, latent.multiple, dim)
        else:
            denoiser = build(node, "denoiser", length=latent.length, embedding_dim=dim)
        return VelocityDenoiser(denoiser, self.schedule) if prediction == "velocity" else denoiser

    @property
    def versions(self) -> dict[str, str]:
        """Of components whose weights do not travel with a checkpoint, but give its z their meaning."""
        version = getattr(self.shape_model, "version", None)
        return {} if version is None else {"shape_model": version}

    @property
    def parts(self) -> tuple[slice, ...]:
        """Where in z each diffusion model has its part: all of it but the pad, or shape and maps."""
        return self.latent.parts if self.separate else (slice(0, self.latent.used),)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.latent.mean.device

    @property
    def embedding_mean(self) -> Tensor:
        """(D,) mean identity embedding of the training portraits: subtract it from both for a *centred* cosine."""
        return self.denoiser.embedding_mean

    def maps(self, z_BN: Tensor) -> FaceMaps:
        """Decode the reflectance maps of z. Differentiable."""
        return FaceMaps.from_tensor(self.autoencoder.decode(self.latent.unpack(z_BN)[1]))

    def vertices(self, z_BN: Tensor, expression_BE: Tensor | None = None) -> Tensor:
        """(B, V, 3) mm vertices of z. Differentiable."""
        return self.shape_model(self.latent.unpack(z_BN)[0], expression_BE)

    def fit(self, photo: Any, **choices: Any) -> PhotoFit:
        """Fit one photo by guided diffusion; see `photo_fit.fit_photo`."""
        return fit_photo(self, photo, **choices)

    def sample(self, n: int, **choices: Any) -> Samples:
        """Draw faces, with or without an identity; see `sampling.sample_faces`."""
        return sample_faces(self, n, **choices)

    def save(self, folder: str | Path) -> Path:
        """Write `weights.safetensors` and `config.json` (the last, so that its presence means a whole checkpoint)."""
        folder = Path(folder)
        write_tensors(folder / "weights.safetensors", pack_modules(self._trained()))
        write_json(folder / "config.json", {"format": FORMAT, "versions": self.versions, **self.config})
        return folder

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "auto") -> FitDiff:
        """Load a checkpoint written by `save`.

        Only registered components are built from its config and weights are safetensors, so a stranger's checkpoint
        runs no code of its own.

        Raises:
            CheckpointError: nothing there, another format or version, or weights that do not fit the config.
        """
        load_plugins()
        folder = Path(folder)
        path = folder / "config.json"
        if not path.exists():
            raise CheckpointError(f"no checkpoint at {folder} (expected {path}): train one with `python train.py`")
        try:
            config = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise CheckpointError(f"{path} is not JSON ({error}): the checkpoint is damaged") from error
        if config.pop("format", None) != FORMAT:
            raise CheckpointError(f"{path} is not a fitdiff checkpoint of format {FORMAT}")
        missing = [key for key in ("resolution", "prediction", *COMPONENTS) if key not in config]
        if missing:
            raise CheckpointError(f"{path} lacks {', '.join(missing)}: not a whole fitdiff checkpoint")
        trained = config.pop("versions", {})
        model = cls(config)
        if trained != model.versions:
            raise CheckpointError(
                f"{path}: trained with {trained}, this installation has {model.versions}: the same z is another face. "
                "Install what it was trained with, or train again"
            )
        try:
            unpack_modules(load_file(folder / "weights.safetensors"), model._trained())
        except (RuntimeError, OSError, SafetensorError) as error:
            raise CheckpointError(f"weights of {folder} do not fit its config: {str(error).splitlines()[0]}") from error
        return model.eval().requires_grad_(False).to(pick_device(device))

    def _trained(self) -> dict[str, nn.Module]:
        return {"autoencoder": self.autoencoder, "denoiser": self.denoiser, "latent": self.latent}


def pick_device(device: str | torch.device) -> torch.device:
    """`auto` is CUDA if there is one, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)
