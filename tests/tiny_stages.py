"""Both training stages as small as they get, on real people: everything there, seconds to train."""

import torch
from torch import nn

from fitdiff.data.people.maker import PeopleMaker
from fitdiff.data.people.options import CLEAN
from fitdiff.data.shards import MemorySamples, ShardedDataset, dequantise, shard_path
from fitdiff.model import FitDiff
from fitdiff.registry import config_of
from fitdiff.storage import write_tensors
from fitdiff.training.autoencoder_stage import AutoencoderStage
from fitdiff.training.diffusion_stage import DiffusionStage

PEOPLE, BATCH, STEPS, RESOLUTION, SEED = 12, 8, 6, 32, 3


def tiny_model(**parts):
    torch.manual_seed(0)
    nodes = {
        "autoencoder": config_of("autoencoder", "vqgan", channels=8, channel_multipliers=(1, 2), res_blocks=1,
                                 attention_resolutions=(), codebook_size=32),
        "denoiser": config_of("denoiser", "spade_unet1d", channels=16, channel_multipliers=(1, 2), depth=1, heads=1,
                              head_channels=8, spade_dim=8, cond_dim=16, attention_downsamplings=()),
        "shape_model": config_of("shape_model", "anny_face", n_identity=16),
        "schedule": config_of("schedule", "scaled_linear"),
        "identity": config_of("identity", "dlib"),
        "renderer": config_of("renderer", "torch"),
        "sampler": config_of("sampler", "ddim"),
    }  # fmt: skip
    return FitDiff({"resolution": RESOLUTION, "prediction": "velocity", **nodes}, **parts)


def people_of(folder):
    return ShardedDataset(folder, PEOPLE, PEOPLE)


def make_people(folder):
    """Portraits show nothing but what a person's sample holds."""
    model = tiny_model()
    parts = model.shape_model, model.identity, model.renderer
    made = PeopleMaker(*parts, RESOLUTION, 64, 2, 0, augmentation=CLEAN).make(range(PEOPLE))
    write_tensors(shard_path(folder, 0), made)


class Edges(nn.Module):
    """A perceptual distance that costs nothing, in double precision."""

    def forward(self, x, y):
        difference = (x - y).double()
        return sum(difference.diff(dim=axis).square().mean((1, 2, 3)) for axis in (2, 3))


def autoencoder_stage(folder, adversarial_weight=0.8):
    """In double precision: in single, rounding sends a latent halfway between two codes to the other one."""
    data = people_of(folder)
    stage = AutoencoderStage(
        tiny_model().autoencoder.double(), Edges(), data, data, SEED, batch_size=BATCH, epochs=None,
        steps=STEPS, adversarial_weight=adversarial_weight, discriminator_start=2, discriminator_channels=4,
    )  # fmt: skip
    stage.discriminator.double()
    return stage


class Lossless(nn.Module):
    """An autoencoder that keeps everything, so that nothing but the diffusion decides what a face looks like."""

    latent_shape = (9, RESOLUTION, RESOLUTION)

    def encode(self, maps):
        return maps

    decode = encode


def diffusion_stage(folder, parts={}, **options):  # noqa: B006
    data, model = people_of(folder), tiny_model(**parts)
    with torch.no_grad():
        latents = model.autoencoder.encode(dequantise(data.load("maps")))
    keys = {key: data.load(key) for key in ("identity", "embedding")}
    stored = MemorySamples({"latent": latents, **keys})
    return DiffusionStage(
        model, data, data, {"train": stored, "held_out": stored}, SEED, batch_size=BATCH, epochs=None, steps=STEPS,
        **{"render_every": 2, "render_samples": 3, "render_t_max": 300, "verts_t_max": 700, **options},
    )  # fmt: skip
