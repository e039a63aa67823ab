"""FitDiff: every component of one trained model, and what can be done with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fitdiff.command import usable_device
from fitdiff.diffusion.separate import build_separate
from fitdiff.diffusion.velocity import VelocityDenoiser
from fitdiff.faces import Faces, embed_photo, load_faces
from fitdiff.latent import LatentSpace
from fitdiff.photo_fit import PhotoFit, fit_photo
from fitdiff.registry import ComponentError, build, load_plugins
from fitdiff.storage import (
    CheckpointError,
    pack_modules,
    read_tensors,
    refuse_misfits,
    tensor_shapes,
    unpack_modules,
    write_json,
    write_tensors,
)
from fitdiff.types import FaceMaps
from fitdiff.uses import editing
from fitdiff.uses.sampling import Samples, sample_faces

FORMAT = 1
COMPONENTS = ("shape_model", "autoencoder", "denoiser", "schedule", "identity", "renderer")
"""Registry kinds that a checkpoint's config builds."""

DEFAULTS = ("sampler", "guidance", "fitting", "detector", "landmarks")
"""Configs that travel with a checkpoint as defaults of `FitDiff.fit`; any of them can be replaced."""


def versions_of(shape_model: Any) -> dict[str, str]:
    """See `FitDiff.versions`."""
    version = getattr(shape_model, "version", None)
    return {} if version is None else {"shape_model": version}


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
        return versions_of(self.shape_model)

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
        return self.decode(self.latent.unpack(z_BN)[1])

    def decode(self, latent_BChw: Tensor) -> FaceMaps:
        """Decode the reflectance maps of map latents (B, C, h, w). Differentiable."""
        return FaceMaps.from_tensor(self.autoencoder.decode(latent_BChw))

    def vertices(self, z_BN: Tensor, expression_BE: Tensor | None = None) -> Tensor:
        """(B, V, 3) mm vertices of z. Differentiable."""
        return self.shape_model(self.latent.unpack(z_BN)[0], expression_BE)

    def fit(self, photo: Any, **choices: Any) -> PhotoFit:
        """Fit one photo by guided diffusion; see `photo_fit.fit_photo`."""
        return fit_photo(self, photo, **choices)

    def sample(self, n: int, **choices: Any) -> Samples:
        """Draw faces, with or without an identity; see `sampling.sample_faces`."""
        return sample_faces(self, n, **choices)

    def embed(self, photo: Any) -> Faces:
        """The identity in a photo (a path or a `Photo`): `Faces` with an embedding, but no z yet."""
        return embed_photo(self, photo, self.config)

    def load_faces(self, folder: str | Path) -> Faces:
        """z of a fit or of samples, from the folder that they were saved in."""
        return load_faces(self, folder)

    def vary(self, faces: Faces, keep: str, n: int, **options: Any) -> Samples:
        """Keep the shape or the reflectance of a face and draw `n` others for the rest; see `editing.vary`."""
        return editing.vary(self, faces, keep, n, **options)

    def interpolate(self, first: Faces, second: Faces, n: int, **options: Any) -> Samples:
        """Walk from one person to another in `n` faces; see `editing.interpolate`."""
        return editing.interpolate(self, first, second, n, **options)

    def edit(self, faces: Faces, changes: Mapping[str, float], n: int = 2) -> Samples:
        """Move a face along shape components and expressions; see `editing.edit`."""
        return editing.edit(self, faces, changes, n)

    def fingerprint(self) -> str:
        """SHA-256 of all that was trained: what results are known by."""
        digest = hashlib.sha256()
        for name, tensor in pack_modules(self._trained()).items():
            digest.update(name.encode() + tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def complete(self, texture: Any, mask: str | Path | None = None, **options: Any) -> Samples:
        """Complete a partial texture, a file or a `PartialTexture`; see `completion.complete_texture`."""
        from fitdiff.uses import completion  # which draws on `fitdiff.data`, which draws on this module

        if isinstance(texture, (str, Path)):
            texture = completion.read_texture(texture, mask, int(self.config["resolution"]))
        return completion.complete_texture(self, texture, **options)

    def complete_photo(self, fit: PhotoFit, **options: Any) -> Samples:
        """What the fitted photo shows of the texture, and the rest drawn; see `completion.complete_photo`."""
        from fitdiff.uses import completion  # as above

        return completion.complete_photo(self, fit, **options)

    def save(self, folder: str | Path) -> Path:
        """Write `weights.safetensors` and `config.json` (the last; it seals the weights that it belongs to)."""
        folder = Path(folder)
        seal = write_tensors(folder / "weights.safetensors", pack_modules(self._trained()))
        write_json(
            folder / "config.json", {"format": FORMAT, "versions": self.versions, "weights": seal, **self.config}
        )
        return folder

    @classmethod
    def load(
        cls, folder: str | Path, device: str | torch.device = "auto", renderer: Mapping[str, Any] | None = None
    ) -> FitDiff:
        """Load a checkpoint written by `save`.

        Args:
            renderer: config node of one to draw with instead of that which the checkpoint was trained with.

        Only registered components are built from its config, its texts are not resolved, and weights are safetensors
        that must fit the networks before these get any memory: a stranger's checkpoint runs no code of its own.

        Raises:
            CheckpointError: nothing there, damaged, another format or version, or weights that do not fit the config.
            ComponentError: the config names something else than registered components.
            DeviceError: there is no such device here.
        """
        load_plugins()
        folder, target = Path(folder), usable_device(device)
        config, versions, seal = _read_config(folder / "config.json")
        config["renderer"] = renderer or config["renderer"]
        weights = folder / "weights.safetensors"
        shapes = tensor_shapes(weights)
        _refuse_giants(config, shapes)
        try:
            fixed = {key: build(config[key], key) for key in ("shape_model", "identity")}
            fixed["renderer"] = build(config["renderer"], "renderer", topology=fixed["shape_model"].topology)
            with torch.device("meta"):  # no memory: the weights' shapes tell whether the config's sizes are true
                sketch = cls(config, **fixed)
            if versions != sketch.versions:
                raise CheckpointError(
                    f"{folder}: trained with {versions}, this installation has {sketch.versions}: the same z is "
                    "another face. Install what it was trained with, or train again"
                )
            refuse_misfits(shapes, sketch._trained())
            model = cls(config, **fixed)
            unpack_modules(read_tensors(weights, seal), model._trained())
        except CheckpointError:
            raise
        except ComponentError as error:
            if not isinstance(error.__cause__, ValueError):
                raise
            raise CheckpointError(f"{folder / 'config.json'} describes no model that can be built: {error}") from error
        except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"
            raise CheckpointError(f"{folder / 'config.json'} describes no model that can be built: {what}") from error
        return model.eval().requires_grad_(False).to(target)

    def _trained(self) -> dict[str, nn.Module]:
        return {"autoencoder": self.autoencoder, "denoiser": self.denoiser, "latent": self.latent}


def _read_config(path: Path) -> tuple[dict[str, Any], dict[str, str], dict[str, Any] | None]:
    """Config of a model folder, versions of what it was trained with, and the seal of its weights."""
    if not path.exists():
        raise CheckpointError(f"no checkpoint at {path.parent} (expected {path}): train one with `python train.py`")
    try:
        config = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}): the checkpoint is damaged") from error
    if not isinstance(config, dict) or config.pop("format", None) != FORMAT:
        raise CheckpointError(f"{path} is not a fitdiff checkpoint of format {FORMAT}")
    if missing := [key for key in ("resolution", "prediction", *COMPONENTS, *DEFAULTS) if key not in config]:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}: not a whole fitdiff checkpoint")
    versions, seal = config.pop("versions", {}), config.pop("weights", None)
    if not isinstance(seal, (dict, type(None))):
        raise CheckpointError(f"{path}: weights is {seal!r}, expected size and SHA-256: the checkpoint is damaged")
    return config, versions, seal


def _refuse_giants(config: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> None:
    """Raise if a size in a config is larger than all its weights: building it would eat the machine's memory."""
    most = sum(shape.numel() for shape in shapes.values())
    for key in ("resolution", "schedule", "autoencoder", "denoiser"):
        for name, value in _leaves(config[key], key):
            if isinstance(value, (int, float)) and not abs(value) <= most:
                raise CheckpointError(f"{name} is {value}, but the checkpoint's weights are {most} numbers in all")


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Leaves of nested dicts and lists under dotted names."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield key, value
    else:
        for name, item in items:
            yield from _leaves(item, f"{key}.{name}")
