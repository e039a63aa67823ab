"""Tables 1 and 2 and the numbers of sections 2 and 3 of the supplement, read back from what `scale=paper` builds.

Nothing is read from the config: networks run on tensors without storage while hooks note what passes through them, and
rates, steps and weights are those of the built stages. Then each number is changed in the config, and the measurement
must follow.
"""

from collections import Counter
from contextlib import contextmanager, nullcontext
from functools import cache
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as nnf
from omegaconf import DictConfig, OmegaConf
from torch import nn

from fitdiff.autoencoder import layers as autoencoder_layers
from fitdiff.data.shards import MemorySamples
from fitdiff.diffusion import unet1d
from fitdiff.latent import LatentSpace
from fitdiff.registry import build
from tests.smoke.test_configs import composed

EMBEDDING_DIM = 512  # ArcFace's
PEOPLE = 48


@cache
def _composed() -> DictConfig:
    return composed("scale=paper")


def paper(*overrides: str) -> DictConfig:
    """The config of `scale=paper`, as Hydra composes it for a user, with some values changed."""
    return OmegaConf.merge(_composed(), OmegaConf.from_dotlist(list(overrides)))


class People:
    """As many people as it takes to count steps, all alike and without storage for their pictures."""

    def __init__(self, resolution: int, n_identity: int) -> None:
        self.resolution, self.n_identity = resolution, n_identity

    def __len__(self):
        return PEOPLE

    def gather(self, indices, keys):
        assert tuple(keys) == ("maps",)
        return {"maps": torch.zeros(1, 9, 1, 1, dtype=torch.uint8).expand(len(indices), 9, *[self.resolution] * 2)}

    def load(self, key):
        sizes = {"identity": (self.n_identity,), "embedding": (1, EMBEDDING_DIM)}
        return torch.randn(PEOPLE, *sizes[key])


@contextmanager
def without_storage():
    """New tensors have shapes only; autocast, which does not know such tensors, does nothing."""
    with torch.device("meta"), patch.object(torch, "autocast", lambda *_, **__: nullcontext()):
        yield


def trace(run, kinds):
    """Names of the modules of `kinds` with the shapes of their outputs, in the order in which `run` calls them."""
    calls = []

    def note(module, _, output):
        if isinstance(module, kinds):
            calls.append((module, tuple(output.shape)))

    handle = nn.modules.module.register_module_forward_hook(note)
    try:
        run()
    finally:
        handle.remove()
    return calls


def heads_of(run):
    """(heads, channels of a head) of every attention that `run` computes."""
    seen, attend = set(), nnf.scaled_dot_product_attention

    def note(query, *rest, **options):
        seen.add((query.shape[1], query.shape[3]))
        return attend(query, *rest, **options)

    with patch.object(nnf, "scaled_dot_product_attention", note):
        run()
    return seen


def measure_autoencoder(config: DictConfig) -> dict:
    """Table 1, upper part: from one pass of maps through the network."""
    block, attention = autoencoder_layers.ResidualBlock, autoencoder_layers.SelfAttention
    with without_storage():
        network = build(config.autoencoder, "autoencoder", resolution=config.resolution).eval()
        maps, out = torch.zeros(1, 9, config.resolution, config.resolution), []
        encoder = trace(lambda: out.append(network.encode(maps)), (block, attention))
        decoder = trace(lambda: network.decode(out[0]), (block, attention))
        latent, at_256 = out[0], build(config.autoencoder, "autoencoder", resolution=256).eval()
        small = trace(lambda: at_256.encode(torch.zeros(1, 9, 256, 256)), attention)[:-1]  # without the bottleneck's
        inner = trace(lambda: network.decode(latent), nn.Conv2d)[0][1]
    blocks = [(shape[-1], shape[1] // module.residual[2].groups) for module, shape in encoder if type(module) is block]
    levels = list(dict.fromkeys(blocks[:-2]))  # without the bottleneck's two
    per_level = Counter(side for side, _ in blocks[:-2])
    up = Counter(shape[-1] for module, shape in decoder if type(module) is block)
    return {
        "f": config.resolution // latent.shape[-1],
        "|Z|": network.quantiser.codebook.shape[0],
        "embedding dim": {network.quantiser.codebook.shape[1], latent.shape[1]},
        "z channels": inner[1],
        "channels": levels[0][1],
        "mult": tuple(width // levels[0][1] for _, width in levels),
        "res blocks": set(per_level.values()) | {n - 1 for side, n in up.items() if side > latent.shape[-1]},
        "attention resolutions of 256² maps": {shape[-1] for _, shape in small},
        "attention at 512² maps": {shape[-1] for module, shape in encoder + decoder if type(module) is attention},
        "beta": network.quantiser.commitment,
    }


TABLE_1 = {
    "f": 8, "|Z|": 16384, "embedding dim": {1}, "z channels": 4, "channels": 128, "mult": (1, 2, 2, 4),
    "res blocks": {2}, "attention resolutions of 256² maps": {32}, "attention at 512² maps": {64}, "beta": 0.25,
}  # fmt: skip


def measure_denoiser(config: DictConfig) -> dict:
    """Table 2, the network: from one pass of a latent through it."""
    length = LatentSpace(config.shape_model.n_identity, (1, 64, 64)).length
    with without_storage():
        network = build(config.denoiser, "denoiser", length=length, embedding_dim=EMBEDDING_DIM).eval()
        signals = []
        network.modulations[0].register_forward_pre_hook(lambda _, arguments: signals.append(arguments[0].shape))

        def run():
            network(torch.zeros(1, length), torch.zeros(1, dtype=torch.int64), torch.zeros(1, EMBEDDING_DIM))

        blocks = [shape for _, shape in trace(run, unet1d.ResidualBlock)]
        first = trace(run, nn.Conv1d)
        heads = heads_of(run)
        hidden = {shape[1] for module, shape in first if module in {each.hidden for each in network.modulations}}
    widths = {shape[2]: shape[1] for shape in blocks}
    counts = Counter(shape[2] for shape in blocks)
    counts[min(counts)] -= 2  # the bottleneck's
    into = next(module for module, _ in first if module not in set(network.modulations.modules()))
    return {
        "input channels": into.in_channels,
        "channels": into.out_channels,
        "mult": tuple(widths[side] // into.out_channels for side in sorted(widths, reverse=True)),
        "lengths": tuple(sorted(widths, reverse=True)),
        "depth": {(n - 1) // 2 for n in counts.values()},  # as many down, one more up
        "heads": heads,
        "SPADE dim": hidden,
        "cond dim": signals[0][2],
    }


TABLE_2 = {
    "input channels": 1, "channels": 192, "mult": (1, 2, 4, 8), "lengths": (4256, 2128, 1064, 532), "depth": {2},
    "heads": {(4, 32)}, "SPADE dim": {128}, "cond dim": 1048,
}  # fmt: skip


def measure_autoencoder_training(config: DictConfig) -> dict:
    """Table 1, training, and the branched discriminator of section 2."""
    with without_storage():
        network = build(config.autoencoder, "autoencoder", resolution=config.resolution)
        people = People(config.resolution, config.shape_model.n_identity)
        parts = {"autoencoder": network, "perceptual": None, "train": people, "held_out": people, "seed": 0}
        stage = build(config.stage.autoencoder, "stage", **parts)
    discriminator = stage.discriminator
    last = [module for module in discriminator.children() if isinstance(module, nn.Conv2d)]
    copies = [module for module in discriminator.children() if not isinstance(module, nn.Conv2d)]
    return {
        "batch": stage.batch_size,
        "copies see": [next(m for m in copy.modules() if isinstance(m, nn.Conv2d)).in_channels for copy in copies],
        "shared last convolutions": [layer.out_channels for layer in last],
        "players": sorted(stage.optimisers()),
    }


AUTOENCODER_TRAINING = {
    "batch": 16, "copies see": [6, 3], "shared last convolutions": [1], "players": ["autoencoder", "discriminator"],
}  # fmt: skip


def diffusion_stage(config: DictConfig, denoiser: nn.Module, n_identity: int, latent_side: int):
    """The stage on a model of which only the denoiser and the schedule are real."""
    people = People(8 * latent_side, n_identity)
    latent = LatentSpace(n_identity, (1, latent_side, latent_side))
    model = SimpleNamespace(
        latent=latent, denoiser=denoiser, schedule=build(config.schedule, "schedule"), separate=False,
        parts=(slice(0, latent.used),), device=torch.device("cpu"),
    )  # fmt: skip
    keys = {key: people.load(key) for key in ("identity", "embedding")}
    stored = MemorySamples({"latent": torch.randn(PEOPLE, *latent.latent_shape), **keys})
    latents = {"train": stored, "held_out": stored}
    return build(config.stage.diffusion, "stage", model=model, train=people, held_out=people, latents=latents, seed=0)


class Silent(nn.Module):
    """A denoiser that predicts no noise and remembers which conditions were dropped."""

    def __init__(self):
        super().__init__()
        self.weight, self.dropped = nn.Parameter(torch.zeros(())), []

    def set_embedding_statistics(self, mean_D, std_D):
        pass

    def forward(self, z_t, t, embedding, drop_B):
        self.dropped.append(drop_B)
        return z_t * self.weight


def measure_diffusion_training(config: DictConfig) -> dict:
    """Table 2, training, and the four terms of section 2."""
    stage = diffusion_stage(config, Silent(), config.shape_model.n_identity, 64)
    schedule = stage.model.schedule
    root_betas = (1 - schedule.alpha_bar / torch.cat([torch.ones(1).double(), schedule.alpha_bar[:-1]])).sqrt()
    (group,) = stage.optimisers()["denoiser"].param_groups
    rates = {stage.learning_rate(step) for step in (stage.warmup, stage.steps // 2, stage.steps - 1)}
    return {
        "diffusion steps": schedule.steps,
        "ends of the schedule": tuple(round(float(root) ** 2, 6) for root in root_betas[[0, -1]]),
        "linear in sqrt(beta)": bool(root_betas.diff(n=2).abs().max() < 1e-7),
        "batch": stage.batch_size,
        "lr": {group["lr"], *rates},
        "epochs": stage.steps * stage.batch_size / PEOPLE,
        "weights": stage.weights,
        "rendered samples": stage.render_samples,
        "every": stage.every,
        "below": stage.t_max,
    }


DIFFUSION_TRAINING = {
    "diffusion steps": 1000, "ends of the schedule": (0.0015, 0.0195), "linear in sqrt(beta)": True, "batch": 16,
    "lr": {3.2e-5}, "epochs": 800.0, "weights": {"id": 1.0, "per": 1.0, "verts": 1.0}, "rendered samples": 16,
    "every": {"render": 1, "verts": 1}, "below": {"render": 1000, "verts": 1000},
}  # fmt: skip


def measure_fitting(config: DictConfig) -> dict:
    """Section 3. G_vgg's own network needs a download: another stands in, its lambda does not change."""
    terms = dict(config.guidance) | {"vgg": {**config.guidance.vgg, "backbone": "efficientnet_lite0"}}
    fitting = build(config.fitting, "fitting")
    return {
        "s": fitting.scale,
        "T": fitting.steps,
        "lambda": {name: build(node, "guidance").weight for name, node in terms.items()},
    }


FITTING = {"s": 75.0, "T": 50, "lambda": {"id_cos": 1.0, "id_per": 50.0, "mse": 10.0, "landmarks": 200.0, "vgg": 1.0}}


def test_table_1():
    assert measure_autoencoder(paper()) == TABLE_1


def test_table_2():
    assert measure_denoiser(paper()) == TABLE_2


def test_training_of_the_autoencoder():
    assert measure_autoencoder_training(paper()) == AUTOENCODER_TRAINING


def test_training_of_the_diffusion_model():
    assert measure_diffusion_training(paper()) == DIFFUSION_TRAINING


def test_guided_fitting():
    assert measure_fitting(paper()) == FITTING


@pytest.mark.parametrize(
    ("override", "number"),
    [
        ("autoencoder.channel_multipliers=[1,2,4]", "f"),
        ("autoencoder.codebook_size=8192", "|Z|"),
        ("autoencoder.embed_dim=2", "embedding dim"),
        ("autoencoder.z_channels=3", "z channels"),
        ("autoencoder.channels=96", "channels"),
        ("autoencoder.channel_multipliers=[1,1,2,4]", "mult"),
        ("autoencoder.res_blocks=1", "res blocks"),
        ("autoencoder.attention_resolutions=[16]", "attention resolutions of 256² maps"),
        ("autoencoder.commitment=1", "beta"),
    ],
)
def test_a_changed_number_of_table_1_shows(override, number):
    assert measure_autoencoder(paper(override))[number] != TABLE_1[number]


@pytest.mark.parametrize(
    ("override", "number"),
    [
        ("denoiser.channels=128", "channels"),
        ("denoiser.channel_multipliers=[1,2,4,4]", "mult"),
        ("denoiser.depth=1", "depth"),
        ("denoiser.heads=8", "heads"),
        ("denoiser.head_channels=64", "heads"),
        ("denoiser.spade_dim=64", "SPADE dim"),
        ("denoiser.cond_dim=1024", "cond dim"),
        ("shape_model.n_identity=300", "lengths"),
    ],
)
def test_a_changed_number_of_table_2_shows(override, number):
    assert measure_denoiser(paper(override))[number] != TABLE_2[number]


@pytest.mark.parametrize(
    ("override", "number"),
    [
        ("schedule.steps=500", "diffusion steps"),
        ("schedule.beta_end=0.02", "ends of the schedule"),
        ("schedule._target_=fitdiff.diffusion.schedule.Linear", "linear in sqrt(beta)"),
        ("stage.diffusion.batch_size=32", "batch"),
        ("stage.diffusion.learning_rate=5.12e-4", "lr"),  # multiplied by the batch size once more
        ("stage.diffusion.decay=cosine", "lr"),
        ("stage.diffusion.epochs=100", "epochs"),
        ("stage.diffusion.per_weight=0.5", "weights"),
        ("stage.diffusion.render_samples=4", "rendered samples"),
        ("stage.diffusion.render_every=2", "every"),
        ("stage.diffusion.render_t_max=300", "below"),
        ("stage.diffusion.verts_every=2", "every"),
        ("stage.diffusion.verts_t_max=300", "below"),
    ],
)
def test_a_changed_number_of_the_diffusion_training_shows(override, number):
    assert measure_diffusion_training(paper(override))[number] != DIFFUSION_TRAINING[number]


@pytest.mark.parametrize(
    ("override", "number"),
    [("fitting.scale=1", "s"), ("fitting.steps=25", "T"), ("guidance.vgg.weight=2", "lambda")],
)
def test_a_changed_number_of_the_fitting_shows(override, number):
    assert measure_fitting(paper(override))[number] != FITTING[number]


def test_branches_have_three_times_the_parameters_of_one_and_the_trunk_is_shared():
    with torch.device("meta"):
        network = build(paper().autoencoder, "autoencoder", resolution=512)

    def convolution(inward, outward, size=3):
        return size**2 * inward * outward + outward

    def block(inward, outward):
        skip = 0 if inward == outward else convolution(inward, outward, 1)
        return 2 * inward + convolution(inward, outward) + 2 * outward + convolution(outward, outward) + skip

    first_down = convolution(3, 128) + 2 * block(128, 128) + convolution(128, 128)
    last_up = convolution(256, 256) + block(256, 128) + 2 * block(128, 128) + 2 * 128 + convolution(128, 3)
    encoder, decoder = network.encoder, network.decoder
    branches = [encoder.branches, nn.ModuleList([decoder.branches, decoder.convolve_out])]
    counts = [sum(parameter.numel() for parameter in module.parameters()) for module in branches]
    assert counts == [3 * first_down, 3 * last_up]
    for trunk in (encoder.trunk, decoder.trunk):
        assert {module.groups for module in trunk.modules() if isinstance(module, nn.Conv2d)} == {1}


def test_spade_is_per_position_and_depends_on_the_condition():
    torch.manual_seed(0)
    network = build(composed("scale=laptop").denoiser, "denoiser", length=160, embedding_dim=128)
    one, other = (torch.utils._pytree.tree_leaves(network.condition(torch.randn(1, 128))) for _ in range(2))
    layers = sum(isinstance(module, unet1d.ResidualBlock) for module in network.modules())
    assert len(one) == 2 * layers  # gamma and beta of every residual block
    for modulation, changed in zip(one, other, strict=True):
        assert modulation.std(-1).min() > 0  # along the length, in every channel
        assert (modulation != changed).float().mean() > 0.99


def test_one_condition_in_ten_is_dropped():
    config = paper(*(f"stage.diffusion.{name}_weight=0" for name in ("id", "per", "verts")))
    denoiser = Silent()
    stage = diffusion_stage(config, denoiser, 5, 2)
    n, rows = 400, torch.arange(16)
    for step in range(n):
        indices = [(step * 16 + int(row)) % PEOPLE for row in rows]
        list(stage.losses({**stage.batch(indices, rows, step), "row": rows}, step))
    share = torch.cat(denoiser.dropped).double().mean().item()
    assert abs(share - 0.1) < 4 * (0.1 * 0.9 / (16 * n)) ** 0.5  # four standard deviations
