"""Stage 3: the diffusion model on z, under the four terms of the paper's section 2.

Faithful to the supplement, except as marked: [1] Eq. 3's L1 norm is a mean over coordinates in mm, so that the weight
does not depend on the mesh; [2] the rendered terms, Eqs. 1 and 2, run on `render_samples` of the batch every
`render_every` steps, with t drawn below `render_t_max`, and Eq. 3 every `verts_every` steps where t is below
`verts_t_max` (all, 1 and 1000 reproduce the paper); [3] z0_hat is clamped to +-`z0_clamp` before it is decoded; [4] the
rendering lies on its portrait's background, so that hair and surroundings do not count; [5] separate models (Table 5)
have the sum of their own losses, L_noise of each over its own part of z.

Only the denoiser runs in the trainer's mixed precision. What the loss looks through is frozen, and float32 (CUDA's
convolutions then use TF32, torch's default). Against float32, bfloat16 and TF32's 10 bits gave, on 20 people with a
trained laptop model, where L_id was 0.0285:

====================  =========================  ============  ============================================
part                  error                      error of L_id  cosine of the gradients of L_id in z0_hat
====================  =========================  ============  ============================================
recognition, bf16     1 - cos(embeddings) 8e-5   5e-4          0.961
recognition, 10 bits  1e-6                       5e-5          0.998
decoder, bf16         maps 3e-4, at most 4e-3    5e-5          0.998
decoder, 10 bits      maps 4e-5, at most 6e-4    6e-6          0.9996
====================  =========================  ============  ============================================

Vertices rounded to bfloat16 move by up to 0.25 mm, and the renderings' embeddings by 1 - cos = 1e-4. So bfloat16 is too
coarse for the recognition network and for geometry; for the decoder it would do.

The portrait's features are computed in every step, not cached: they are 12% of the rendered terms (8.6 of 69 ms of a
core a portrait), and their activations would be 140 kB a portrait in half precision (ArcFace: 750 kB) beside its 49 kB.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from fitdiff.alignment.crop import crop, crop_transform
from fitdiff.avatar.pictures import contact_sheet
from fitdiff.data.shards import Samples, ShardedDataset
from fitdiff.diffusion.sampler import conditioned, sample
from fitdiff.evaluation.held_out import SAMPLING_STEPS, noise_losses, sample_metrics
from fitdiff.guidance.terms import IdentityCosine, IdentityPerceptual
from fitdiff.model import FitDiff
from fitdiff.randomness import Draws, draw_normals
from fitdiff.registry import build, register
from fitdiff.training.latents import KEYS, statistics
from fitdiff.training.stage import Losses, count_steps, warmup_cosine
from fitdiff.types import SCENE_KEYS, Observation, Prediction, Scene, composite
from fitdiff.uses.sampling import render_neutral

SCALAR_STREAM, NOISE_STREAM = 1 << 31, (1 << 31) + 1
"""Lists of a sample's random numbers, far from those that make people, who may have the same seed."""

MOST_HELD_OUT = 1000
"""People whose noise loss `evaluate` takes."""


@register("stage", "diffusion")
class DiffusionStage:
    """Train `model.denoiser`.

    Run-time objects: `model`, `train` and `held_out` people, their `latents` from stage 2 (samples with `latents.KEYS`
    by split), `seed`.

    Args:
        batch_size, learning_rate, epochs: Table 2. Give `steps` instead of `epochs` for a short run.
        noise_weighting: `constant` (L_noise as printed), or `velocity`: divided by alpha_bar_t, which is the plain loss
            of the velocity and makes the noisiest steps, where the identity is decided, count as much as the others.
        condition_dropout: probability of the null condition.
        id_weight, per_weight, verts_weight: of Eqs. 1 to 3 against 1 for L_noise (as printed: 1); 0 switches one off.
        render_every, render_samples, render_t_max: when and for how many samples of the global batch Eqs. 1 and 2,
            which share a rendering, are computed; their t is drawn in [0, render_t_max). null samples are all.
        render_size: side of the rendered image in pixels; null is the portraits' size.
        verts_every, verts_t_max: when Eq. 3 is computed; a sample whose t is not below counts as 0.
        alpha_bar_weighting: weigh those terms by alpha_bar_t (at high t, z0_hat is meaningless).
        z0_clamp: z0_hat is clamped to +-this before it is decoded; z is standardised, so 4 deviations hold all of it.
        preview_samples, evaluate_samples: held-out people in the pictures, and those for whom `evaluate` samples.

    A step's loss is a function of seed and step alone, however the batch is split among processes and micro-batches.
    """

    name = "diffusion"
    averaged = ("denoiser",)
    product = ("denoiser", "latent")
    monitor = ("noise_loss", "min")

    def __init__(
        self,
        model: FitDiff,
        train: ShardedDataset,
        held_out: ShardedDataset,
        latents: dict[str, Samples],
        seed: int,
        *,
        batch_size: int = 16,  # Table 2
        learning_rate: float = 3.2e-5,  # Table 2
        epochs: float | None = 800.0,  # section 2
        steps: int | None = None,
        warmup_steps: int = 1000,
        decay: str = "constant",
        weight_decay: float = 0.0,
        noise_weighting: str = "constant",
        condition_dropout: float = 0.1,
        id_weight: float = 1.0,
        per_weight: float = 1.0,
        verts_weight: float = 1.0,
        render_every: int = 1,
        render_samples: int | None = None,
        render_size: int | None = None,
        render_t_max: int = 1000,
        verts_every: int = 1,
        verts_t_max: int = 1000,
        alpha_bar_weighting: bool = False,
        z0_clamp: float = 4.0,
        preview_samples: int = 6,
        evaluate_samples: int = 32,
    ) -> None:
        self.model, self.train, self.held_out, self.seed = model, train, held_out, seed
        self.batch_size, self.peak_rate, self.warmup, self.decay = batch_size, learning_rate, warmup_steps, decay
        if noise_weighting not in ("constant", "velocity"):
            raise ValueError(f"noise_weighting is {noise_weighting!r}; expected constant or velocity")
        self.weight_decay, self.condition_dropout = weight_decay, condition_dropout
        self.noise_weighting = noise_weighting
        self.weights = {"id": id_weight, "per": per_weight, "verts": verts_weight}
        self.every = {"render": render_every, "verts": verts_every}
        self.t_max = {"render": render_t_max, "verts": verts_t_max}
        self.render_samples = batch_size if render_samples is None else min(render_samples, batch_size)
        counts = {"render_samples": self.render_samples, "render_every": render_every, "render_t_max": render_t_max}
        for name, value in (counts | {"verts_every": verts_every, "verts_t_max": verts_t_max}).items():
            if value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1 (a weight of 0 switches a term off)")
        self.render_size = render_size
        self.alpha_bar_weighting, self.z0_clamp = alpha_bar_weighting, z0_clamp
        self.preview_samples, self.evaluate_samples = preview_samples, evaluate_samples
        self.n_samples = len(train)
        self.steps = count_steps(steps, epochs, self.n_samples, batch_size)
        self.latents = latents
        model.latent.set_statistics(*statistics(latents["train"], "latent"))
        model.denoiser.set_embedding_statistics(*statistics(latents["train"], "embedding"))
        self.space = copy.deepcopy(model.latent).cpu()
        self.modules: dict[str, nn.Module] = {"denoiser": model.denoiser}
        model.denoiser.requires_grad_(True)

    @property
    def layout(self) -> tuple[int, int | None]:
        """Of the people's files."""
        return self.train.shard_size, self.train.window

    def optimisers(self) -> dict[str, Optimizer]:
        """AdamW on the denoiser (LDM's choice)."""
        parameters = [p for p in self.model.denoiser.parameters() if p.requires_grad]
        return {"denoiser": AdamW(parameters, lr=self.peak_rate, weight_decay=self.weight_decay, fused=True)}

    def learning_rate(self, step: int) -> float:
        """See `warmup_cosine`."""
        return warmup_cosine(step, self.steps, self.peak_rate, self.warmup, self.decay)

    def batch(self, indices: Sequence[int], rows: Tensor, step: int) -> dict[str, Tensor]:
        """Samples and all their random numbers, so that `losses` is a function of what it is given.

        Args: as of `Stage.batch`.

        Returns:
            `z` (B, N), `embedding` (B, D) of a random portrait, `t` (B,) int64, `noise` (B, N), `drop` (B,) bool; in a
            step that renders, and if any of these rows is rendered, also `rendered` (K,) int64, which of them, and
            `view_...`: that portrait and its scene.
        """
        (z, embeddings), schedule = self._people("train", indices), self.model.schedule
        sample_number = step * self.batch_size + rows
        draws = Draws(self.seed, sample_number, SCALAR_STREAM)
        view = _pick(draws, embeddings.shape[1])
        drop = draws.uniform() < self.condition_dropout
        of_batch = spread(self.render_samples if self._renders(step) else 0, self.batch_size)
        rendered = of_batch[rows].nonzero()[:, 0]
        steps = torch.full_like(rows, schedule.steps)
        steps[rendered] = min(self.t_max["render"], schedule.steps)
        batch = {
            "z": z,
            "embedding": embeddings[torch.arange(len(rows)), view],
            "t": _pick(draws, steps),
            "noise": draw_normals(self.seed, sample_number, NOISE_STREAM, (self.model.latent.length,)),
            "drop": drop,
        }
        if len(rendered):
            people = [indices[row] for row in rendered.tolist()]
            portraits = self.train.gather(people, ("image", "landmarks", *SCENE_KEYS))
            shown = torch.arange(len(rendered)), view[rendered]
            batch |= {"rendered": rendered, **{f"view_{key}": value[shown] for key, value in portraits.items()}}
        return batch

    def _people(self, split: str, indices: Iterable[int]) -> tuple[Tensor, Tensor]:
        """z (B, N) and embeddings (B, views, D) of samples, on the CPU."""
        stored = self.latents[split].gather(indices, KEYS)
        return self.space.pack(stored["identity"], stored["latent"]), stored["embedding"]

    def losses(self, batch: dict[str, Tensor], step: int) -> Losses:
        """L = L_noise + L_id + L_per + L_verts (section 2 of the supplement)."""
        model, schedule, z0, t, noise = self.model, self.model.schedule, batch["z"], batch["t"], batch["noise"]
        z_t = schedule.add_noise(z0, t, noise)
        eps = self.modules["denoiser"](z_t, t, batch["embedding"], drop_B=batch["drop"])
        squared = sum((eps - noise)[:, part].square().mean(1) for part in model.parts)
        if self.noise_weighting == "velocity":
            squared = squared / schedule.alpha_bar[t].to(squared)
        terms = {"loss_noise": squared.mean()}
        z0_hat = schedule.predict_z0(z_t, t, eps).clamp(-self.z0_clamp, self.z0_clamp)
        importance = schedule.alpha_bar[t].to(z0.dtype) if self.alpha_bar_weighting else torch.ones_like(z0[:, 0])
        if self.weights["verts"] and self._is_turn("verts", step):
            distance = (model.vertices(z0_hat) - model.vertices(z0)).abs().mean((1, 2))
            terms["loss_verts"] = (importance * distance * (t < self.t_max["verts"])).mean()
        if self._renders(step):
            terms |= self._rendered_terms(z0_hat, importance, batch)
        loss = sum(value * self.weights.get(name.removeprefix("loss_"), 1.0) for name, value in terms.items())
        yield "denoiser", loss, terms

    def _renders(self, step: int) -> bool:
        return bool(self.weights["id"] or self.weights["per"]) and self._is_turn("render", step)

    def _is_turn(self, what: str, step: int) -> bool:
        """The last of every so many steps, as with the trainer's `log_every`: a multiple of both shows every term."""
        return (step + 1) % self.every[what] == 0

    def _rendered_terms(self, z0_hat: Tensor, importance: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Eq. 1 and 2: the sum over the rows rendered here; 0 where none is.

        Scaled so that the mean over all parts of the global batch is the mean over all rows rendered in it.
        """
        if "rendered" not in batch:
            return {name: z0_hat.new_zeros(()) for name in ("loss_id", "loss_per")}
        rows, view = batch["rendered"], {k.removeprefix("view_"): v for k, v in batch.items() if k.startswith("view_")}
        terms = self._identity_terms_of_parts(z0_hat[rows], batch["z"][rows], view)
        share = self.batch_size / len(z0_hat) / self.render_samples
        return {name: (importance[rows] * value).sum() * share for name, value in terms.items()}

    def _identity_terms_of_parts(self, z0_hat: Tensor, z0: Tensor, view: dict[str, Tensor]) -> dict[str, Tensor]:
        """Eq. 1 and 2 per sample, summed over the models: separate ones are shown each with the other's truth.

        So neither learns from the other. Two renderings rather than half of the samples each: every model then gets as
        many rendered samples as the single model does, and Table 5 compares nothing else.
        """
        if not self.model.separate:
            return self._identity_terms(z0_hat, z0_hat, view)
        of_shape, of_maps = self._identity_terms(z0_hat, z0, view), self._identity_terms(z0, z0_hat, view)
        return {name: value + of_maps[name] for name, value in of_shape.items()}

    def _identity_terms(self, z_shape: Tensor, z_maps: Tensor, view: dict[str, Tensor]) -> dict[str, Tensor]:
        """Eq. 1 and 2 per sample: render the shape of one z with the maps of another in the sample's own scene."""
        model = self.model
        scene = Scene.from_tensors(view)
        portrait = view["image"].float() / 255
        size = self.render_size or portrait.shape[-1]
        rendering = model.renderer(
            model.vertices(z_shape, scene.expression), model.maps(z_maps), scene.camera, scene.lighting, size
        )
        transform = crop_transform(model.identity, view["landmarks"])
        background = nnf.interpolate(portrait, size=(size, size), mode="bilinear", antialias=True)
        image = composite(rendering, background)
        predicted = model.identity(crop(image, transform, model.identity.size))
        with torch.no_grad():
            target = model.identity(crop(portrait, transform, model.identity.size))
        pair = Prediction(rendering, predicted), Observation(portrait, view["landmarks"], transform, target)
        return {"loss_id": IdentityCosine()(*pair), "loss_per": IdentityPerceptual()(*pair)}

    def evaluate(self, averages: dict[str, nn.Module]) -> dict[str, float]:
        """Held-out noise loss, and identity and shape of faces sampled from embeddings: see `evaluation.held_out`."""
        gather, n = partial(self._people, "held_out"), len(self.held_out)
        return {
            **noise_losses(self.model, averages["denoiser"], gather, min(n, MOST_HELD_OUT)),
            **sample_metrics(self.model, averages["denoiser"], gather, min(n, self.evaluate_samples)),
        }

    def preview(self, averages: dict[str, nn.Module]) -> dict[str, np.ndarray]:
        """Held-out portraits above faces sampled from their embeddings."""
        model, k = self.model, min(self.preview_samples, len(self.held_out))
        portraits = self.held_out.gather(range(k), ("image",))["image"][:, 0].float() / 255
        embedding = self._people("held_out", range(k))[1][:, 0].to(model.device)
        generator = torch.Generator(model.device).manual_seed(0)
        noise = torch.randn(k, model.latent.length, generator=generator, device=model.device)
        sampler = build(model.config["sampler"], "sampler")
        predict_eps = conditioned(averages["denoiser"], embedding)
        z = sample(predict_eps, sampler, model.schedule, noise, SAMPLING_STEPS, generator)
        faces = render_neutral(model, z, portraits.shape[-1]).cpu()
        return {"samples": contact_sheet([list(portraits), list(faces)], rows=["portrait", "sample"])}

    def finish(self, averages: dict[str, nn.Module]) -> None:
        """Put the averaged weights into the model."""
        self.model.denoiser.load_state_dict(averages["denoiser"].state_dict())
        self.model.denoiser.eval().requires_grad_(False)


def spread(count: int, total: int) -> Tensor:
    """(total,) bool: `count` of `total` rows; any run of n rows has n count / total of them, rounded up or down."""
    row = torch.arange(total)
    return (row + 1) * count // total > row * count // total


def _pick(draws: Draws, below: int | Tensor) -> Tensor:
    """(B,) int64 uniform in [0, below)."""
    return (draws.uniform() * below).long().clamp_max(torch.as_tensor(below) - 1)
