"""Stage 3: the diffusion model on z, under the four terms of the paper's section 2.

Faithful to the supplement, except as marked: [1] Eq. 3's L1 norm is a mean over coordinates in mm, so that the weight
does not depend on the mesh; [2] the rendered terms run on `render_samples` of the batch every `render_every` steps,
with t below `render_t_max` (all, 1 and 1000 reproduce the paper).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from fitdiff.alignment.crop import crop, crop_transform
from fitdiff.avatar.pictures import contact_sheet
from fitdiff.data.shards import ShardedDataset
from fitdiff.diffusion.sampler import conditioned, sample
from fitdiff.guidance.terms import IdentityCosine, IdentityPerceptual
from fitdiff.model import FitDiff
from fitdiff.registry import build, register
from fitdiff.sampling import render_neutral
from fitdiff.training.stage import Losses, count_steps, warmup_cosine
from fitdiff.types import SCENE_KEYS, Observation, Prediction, Scene, composite


@register("stage", "diffusion")
class DiffusionStage:
    """Train `model.denoiser`.

    Run-time objects: `model`, `train` and `held_out` people, and their map latents (n, C, h, w) from stage 2,
    `seed`.

    Args:
        batch_size, learning_rate, epochs: Table 2. Give `steps` instead of `epochs` for a short run.
        noise_weighting: `constant` (L_noise as printed), or `velocity`: divided by alpha_bar_t, which is the plain loss
            of the velocity and makes the noisiest steps, where the identity is decided, count as much as the others.
        condition_dropout: probability of the null condition.
        id_weight, per_weight, verts_weight: of the rendered and shape terms (as printed: 1).
        render_size: side of the rendered image in pixels; null is the portraits' size.
        alpha_bar_weighting: weigh those terms by alpha_bar_t (at high t, z0_hat is meaningless).
        z0_clamp: z0_hat is clamped to +-this before it is decoded; z is standardised, so 4 deviations hold all of it.
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
        latents: dict[str, Tensor],
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
        alpha_bar_weighting: bool = False,
        z0_clamp: float = 4.0,
        preview_samples: int = 6,
    ) -> None:
        self.model, self.train, self.held_out, self.seed = model, train, held_out, seed
        self.batch_size, self.peak_rate, self.warmup, self.decay = batch_size, learning_rate, warmup_steps, decay
        if noise_weighting not in ("constant", "velocity"):
            raise ValueError(f"noise_weighting is {noise_weighting!r}; expected constant or velocity")
        self.weight_decay, self.condition_dropout = weight_decay, condition_dropout
        self.noise_weighting = noise_weighting
        self.weights = {"id": id_weight, "per": per_weight, "verts": verts_weight}
        self.render_every = render_every
        self.render_samples = batch_size if render_samples is None else render_samples
        self.render_size, self.render_t_max = render_size, render_t_max
        self.alpha_bar_weighting, self.z0_clamp = alpha_bar_weighting, z0_clamp
        self.preview_samples = preview_samples
        self.n_samples = len(train)
        self.steps = count_steps(steps, epochs, self.n_samples, batch_size)
        model.latent.set_statistics(latents["train"])
        self.z = {
            split: model.latent.pack(data.load("identity"), latents[split])
            for split, data in (("train", train), ("held_out", held_out))
        }
        self.embeddings = {"train": train.load("embedding"), "held_out": held_out.load("embedding")}
        flat = self.embeddings["train"].flatten(0, 1)
        model.denoiser.set_embedding_statistics(flat.mean(0), flat.std(0))
        self.modules: dict[str, nn.Module] = {"denoiser": model.denoiser}
        model.denoiser.requires_grad_(True)

    def optimisers(self) -> dict[str, Optimizer]:
        """AdamW on the denoiser (LDM's choice)."""
        parameters = [p for p in self.model.denoiser.parameters() if p.requires_grad]
        return {"denoiser": AdamW(parameters, lr=self.peak_rate, weight_decay=self.weight_decay)}

    def learning_rate(self, step: int) -> float:
        """See `warmup_cosine`."""
        return warmup_cosine(step, self.steps, self.peak_rate, self.warmup, self.decay)

    def batch(self, indices: Sequence[int], rows: Tensor, step: int) -> dict[str, Tensor]:
        """z0 and all views' embeddings; the first `render_samples` also with portrait and scene of every view."""
        batch = {"z": self.z["train"][indices], "embedding": self.embeddings["train"][indices]}
        if self._renders():
            rendered = self.train.gather(indices[: self.render_samples], ("image", "landmarks", *SCENE_KEYS))
            batch |= {f"view_{key}": value for key, value in rendered.items()}
        return batch

    def losses(self, batch: dict[str, Tensor], step: int) -> Losses:
        """L = L_noise + L_id + L_per + L_verts (section 2 of the supplement)."""
        model, z0, schedule = self.model, batch["z"], self.model.schedule
        n, device = len(z0), z0.device
        view = torch.randint(batch["embedding"].shape[1], (n,), device=device)
        embedding = batch["embedding"][torch.arange(n, device=device), view]
        t = torch.randint(schedule.steps, (n,), device=device)
        renders = self._renders() and step % self.render_every == 0
        k = len(batch["view_image"]) if renders else 0
        if k:
            t[:k] = torch.randint(min(self.render_t_max, schedule.steps), (k,), device=device)
        noise = torch.randn_like(z0)
        z_t = schedule.add_noise(z0, t, noise)
        drop = torch.rand(n, device=device) < self.condition_dropout
        eps = self.modules["denoiser"](z_t, t, embedding, drop_B=drop)
        squared = sum((eps - noise)[:, part].square().mean(1) for part in model.parts)
        if self.noise_weighting == "velocity":
            squared = squared / schedule.alpha_bar[t].to(squared)
        terms = {"loss_noise": squared.mean()}
        if k or self.weights["verts"]:
            z0_hat = schedule.predict_z0(z_t, t, eps).clamp(-self.z0_clamp, self.z0_clamp)
            importance = schedule.alpha_bar[t].to(z0.dtype) if self.alpha_bar_weighting else torch.ones_like(z0[:, 0])
        if self.weights["verts"]:
            distance = (model.vertices(z0_hat) - model.vertices(z0)).abs().mean((1, 2))
            terms["loss_verts"] = (importance * distance).mean()
        if k:
            chosen = torch.arange(k, device=device), view[:k]
            scene = {key.removeprefix("view_"): v[chosen] for key, v in batch.items() if key.startswith("view_")}
            identity_terms = self._identity_terms_of_parts(z0_hat[:k], z0[:k], scene)
            terms |= {name: (importance[:k] * value).mean() for name, value in identity_terms.items()}
        loss = sum(value * self.weights.get(name.removeprefix("loss_"), 1.0) for name, value in terms.items())
        yield "denoiser", loss, terms

    def _renders(self) -> bool:
        return bool(self.weights["id"] or self.weights["per"])

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

    @torch.no_grad()
    def evaluate(self, averages: dict[str, nn.Module]) -> dict[str, float]:
        """Held-out noise loss at fixed t and noise, beside what predicting nothing scores.

        z is standardised, so the best guess without looking at the person is eps = sqrt(1 - alpha_bar) z_t, whose
        error is mean(alpha_bar_t).
        """
        denoiser, schedule = averages["denoiser"], self.model.schedule
        z0, embeddings = self.z["held_out"], self.embeddings["held_out"][:, 0]
        device = next(denoiser.parameters()).device
        generator = torch.Generator().manual_seed(0)
        used, total, rounds = self.model.latent.used, 0.0, 8
        null_total = 0.0
        for i in range(rounds):
            t = ((torch.arange(len(z0)) + (i + 0.5) / rounds) * schedule.steps / len(z0)).long()
            noise = torch.randn(z0.shape, generator=generator)
            z_t = schedule.add_noise(z0, t, noise)
            eps = denoiser(z_t.to(device), t.to(device), embeddings.to(device)).cpu()
            total += nnf.mse_loss(eps[:, :used], noise[:, :used]).item() / rounds
            nothing = (1 - schedule.alpha_bar[t].float()).sqrt()[:, None] * z_t
            null_total += nnf.mse_loss(nothing[:, :used], noise[:, :used]).item() / rounds
        return {
            "noise_loss": total,
            "noise_loss_predicting_nothing": null_total,
            "mean_alpha_bar": schedule.alpha_bar.mean().item(),
        }

    def preview(self, averages: dict[str, nn.Module]) -> dict[str, np.ndarray]:
        """Held-out portraits above faces sampled from their embeddings."""
        model, k = self.model, min(self.preview_samples, len(self.held_out))
        portraits = self.held_out.gather(range(k), ("image",))["image"][:, 0].float() / 255
        embedding = self.embeddings["held_out"][:k, 0].to(model.device)
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(k, model.latent.length, generator=generator).to(model.device)
        sampler = build(model.config["sampler"], "sampler")
        z = sample(conditioned(averages["denoiser"], embedding), sampler, model.schedule, noise, 25)
        faces = render_neutral(model, z, portraits.shape[-1]).cpu()
        return {"samples": contact_sheet([list(portraits), list(faces)], rows=["portrait", "sample"])}

    def finish(self, averages: dict[str, nn.Module]) -> None:
        """Put the averaged weights into the model."""
        self.model.denoiser.load_state_dict(averages["denoiser"].state_dict())
        self.model.denoiser.eval().requires_grad_(False)
