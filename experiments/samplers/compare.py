"""Samplers: quality against the number of steps.  `python -m experiments.samplers.compare [run=outputs/fitdiff-laptop]`

Faces are drawn from the embeddings of held-out people's portraits, every sampler from the same noises, and compared
with the people and with what DDIM makes of that noise in 1000 steps; held-out portraits of unknown scene are fitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor

from experiments.fitting.presets import Preset, compose_preset
from experiments.laptop.table import load_run
from experiments.report import markdown_table, replace_generated, save_chart
from fitdiff.command import run_command
from fitdiff.diffusion.sampler import DDIM, conditioned, sample
from fitdiff.diffusion.schedule import Schedule
from fitdiff.evaluation.compare import compare
from fitdiff.evaluation.metrics import identity_cosine, shape_error
from fitdiff.evaluation.people import KEYS, Scorer, Truth, known_problem
from fitdiff.fitting import FitProblem, first_noise
from fitdiff.registry import build, config_of
from fitdiff.storage import write_json
from fitdiff.types import Scene

HERE = Path(__file__).parent


def of_diffusers(scheduler: str, **options: Any) -> dict[str, Any]:
    """Config node of a scheduler of diffusers."""
    return config_of("sampler", "diffusers", scheduler=scheduler, options=options)


SAMPLERS = {
    "ddim": config_of("sampler", "ddim"),
    "ddim, trailing": config_of("sampler", "ddim", spacing="trailing"),
    "ddpm": config_of("sampler", "ddpm"),
    "dpm-solver++": of_diffusers("DPMSolverMultistepScheduler"),
    "dpm-solver++, Karras": of_diffusers("DPMSolverMultistepScheduler", use_karras_sigmas=True),
    "unipc": of_diffusers("UniPCMultistepScheduler"),
    "deis": of_diffusers("DEISMultistepScheduler"),
    "pndm": of_diffusers("PNDMScheduler", skip_prk_steps=True),
}
GUIDED = ("ddim", "dpm-solver++, Karras")
PRESETS = ("Algorithm 1", "default preset")
REFUSED = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler", "KDPM2DiscreteScheduler", "EDMDPMSolverMultistepScheduler")  # fmt: skip # noqa: E501
REFERENCE_STEPS = 1000
METRICS = {
    "identity": "identity cosine, centred",
    "shape_mm": "shape error, mm",
    "frechet": "Fréchet distance of z",
    "diversity": "diversity, mm",
    "distance": "distance to DDIM 1000",
}


@dataclass
class Options:
    """What the command line sets."""

    run: str = "outputs/fitdiff-laptop"  # folder of the training run
    n: int = 16  # held-out people to draw
    fits: int = 4  # held-out people to fit; 0 fits none
    steps: tuple[int, ...] = (5, 8, 10, 15, 20, 25, 50, 100)
    fit_steps: tuple[int, ...] = (10, 25, 50)
    out: str = "outputs/experiments/samplers"
    publish: bool = True  # write into experiments/samplers, too


@dataclass(frozen=True)
class Draws:
    """Held-out people, the conditions that their portraits give, and two noises each."""

    model: Any
    scorer: Scorer
    truth: Truth
    embedding: Tensor
    noise: Tensor

    @classmethod
    def of(cls, model: Any, people: Mapping[str, Tensor]) -> Draws:
        """From tensors of held-out people."""
        embedding = known_problem(model, people, {}).embedding
        # A noise of its own for each face: the few that `first_noise` gives would be no sample of a distribution.
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(2 * len(embedding), model.latent.length, generator=generator).to(model.device)
        return cls(model, Scorer(model), Truth.of(people), embedding, noise)

    @torch.no_grad()
    def draw(self, sampler: Any, steps: int, seed: int = 0) -> Tensor:
        """(n, 2, N): two samples a person."""
        generator = torch.Generator(self.model.device).manual_seed(seed)
        predict_eps = conditioned(self.model.denoiser, self.embedding.repeat_interleave(2, 0))
        z = sample(predict_eps, sampler, self.model.schedule, self.noise, steps, generator)
        return z.unflatten(0, (-1, 2))

    @torch.no_grad()
    def score(self, z: Tensor, reference: Tensor, true_z: Tensor) -> dict[str, list[float]]:
        """A number a person of `METRICS` (one for all: frechet) of samples (n, 2, N)."""
        model, scorer, truth = self.model, self.scorer, self.truth
        ours, theirs = model.vertices(z[:, 0]), model.shape_model(truth.identity)
        embeddings = scorer.frontal(ours, model.maps(z[:, 0])), scorer.frontal(theirs, truth.maps)
        values = {
            "identity": identity_cosine(*embeddings, model.embedding_mean),
            "shape_mm": shape_error(ours, theirs),
            "diversity": shape_error(ours, model.vertices(z[:, 1])),
            "distance": (z - reference).square().mean((1, 2)).sqrt(),
            "frechet": frechet(z.flatten(0, 1), true_z)[None],
        }
        return {name: value.tolist() for name, value in values.items()}


def frechet(a_MN: Tensor, b_KN: Tensor) -> Tensor:
    """Fréchet distance a coordinate of Gaussians with diagonal covariances (few samples determine no other)."""
    difference = (a_MN.mean(0) - b_KN.mean(0)).square() + (a_MN.std(0) - b_KN.std(0)).square()
    return difference.mean().sqrt()


def z_of(model: Any, people: Mapping[str, Tensor]) -> Tensor:
    """(n, N) true z of people, as the model's autoencoder sees them."""
    from fitdiff.data.shards import dequantise

    with torch.no_grad():
        return model.latent.pack(people["identity"], model.autoencoder.encode(dequantise(people["maps"])))


def refused(schedule: Schedule) -> list[str]:
    """Which of `REFUSED` this project's sampler cannot use."""
    names = []
    for name in REFUSED:
        try:
            build(of_diffusers(name), "sampler").timesteps(schedule, 10)
        except ValueError:
            names.append(name)
    return names


def unguided(
    model: Any, held_out: Any, options: Options, console: Console
) -> dict[str, dict[int, dict[str, list[float]]]]:
    """Scores of every sampler at every number of steps."""
    draws = Draws.of(model, held_out.gather(range(options.n), KEYS))
    true_z = z_of(model, held_out.gather(range(len(held_out)), ("identity", "maps")))
    reference = draws.draw(DDIM(), REFERENCE_STEPS)
    scores: dict[str, dict[int, dict[str, list[float]]]] = {"ddim": {}}
    for name, node in SAMPLERS.items():
        scores[name] = {n: draws.score(draws.draw(build(node, "sampler"), n), reference, true_z) for n in options.steps}
        console.print(f"{name}: done")
    scores["ddim"][REFERENCE_STEPS] = draws.score(reference, reference, true_z)
    return scores


def preset_of(kind: str, renderings: int) -> Preset:
    """A preset that renders so often; half of the default's are its refinement."""
    if kind == "Algorithm 1":
        return compose_preset(f"guidance=paper fitting=guided fitting.steps={renderings}")
    half = renderings // 2
    return compose_preset(f"fitting.steps={half} fitting.refine_steps={renderings - half}")


def guided(model: Any, held_out: Any, options: Options) -> dict[str, dict[str, list[float]]]:
    """G (of the preset's own terms) and scores of fits by either preset and sampler, for each number of renderings."""
    last_G: dict[str, list[float]] = {}

    def solver(name: str, sampler: Mapping[str, Any], preset: Preset) -> Any:
        def solve(problem: FitProblem) -> tuple[Tensor, Scene]:
            noise = first_noise(model, len(problem.embedding))
            problem = replace(problem, terms=preset.terms)
            result = build(preset.fitting, "fitting")(problem, build(sampler, "sampler"), noise)
            last_G.setdefault(name, []).extend(result.history[-1]["G"].tolist())
            return result.z, result.scene

        return solve

    methods = {}
    for kind in PRESETS:
        for steps in options.fit_steps:
            for sampler in GUIDED:
                name = f"{kind}, {sampler}, {steps}"
                methods[name] = solver(name, SAMPLERS[sampler], preset_of(kind, steps))
    model.config["fitting"] = preset_of(PRESETS[0], 50).fitting
    scores = compare(model, held_out, options.fits, methods, known_scene=False)
    keys = ("novel_id_centred", "photo_id_centred", "shape_mm", "diffuse_db", "seconds")
    return {name: {"G": last_G[name], **{k: row[k].tolist() for k in keys}} for name, row in scores.items()}


def against(values: list[float], base: list[float]) -> tuple[float, float]:
    """Mean of the paired differences, and half the width of its 95 % interval."""
    difference = torch.tensor(values) - torch.tensor(base)
    return difference.mean().item(), 1.96 * difference.std().item() / len(difference) ** 0.5


def unguided_table(scores: Mapping[str, Mapping[int, Mapping[str, list[float]]]]) -> str:
    """A row a sampler and number of steps; identity and shape beside DDIM's 50 steps, paired."""
    base = scores["ddim"].get(50)
    rows = []
    for name, by_steps in scores.items():
        for steps, row in by_steps.items():
            mean = {key: sum(values) / len(values) for key, values in row.items()}
            beside = ["", ""]
            if base is not None:
                pairs = [against(row[key], base[key]) for key in ("identity", "shape_mm")]
                beside = [f"{difference:+.3f} ± {half:.3f}" for difference, half in pairs]
            rest = (f"{mean['frechet']:.3f}", f"{mean['diversity']:.2f}", f"{mean['distance']:.3f}")
            rows.append(
                [name, str(steps), f"{mean['identity']:.3f}", beside[0], f"{mean['shape_mm']:.2f}", beside[1], *rest]
            )
    header = ("sampler", "steps", "identity", "against DDIM 50", "shape mm", "against DDIM 50")
    return markdown_table([*header, "Fréchet", "diversity mm", "distance"], rows)


def guided_table(scores: Mapping[str, Mapping[str, list[float]]]) -> str:
    """A row a sampler and number of steps."""
    base = scores.get("Algorithm 1, ddim, 50")
    rows = []
    for name, row in scores.items():
        mean = {key: sum(values) / len(values) for key, values in row.items()}
        beside = "" if base is None else "{:+.3f} ± {:.3f}".format(*against(row["novel_id_centred"], base["novel_id_centred"]))  # fmt: skip # noqa: E501
        figures = (f"{mean['G']:.2f}", f"{mean['photo_id_centred']:.3f}", f"{mean['novel_id_centred']:.3f}", beside)
        rows.append([name, *figures, f"{mean['shape_mm']:.2f}", f"{mean['diffuse_db']:.1f}", f"{mean['seconds']:.1f}"])
    header = [
        "",
        "G",
        "photo ID, centred",
        "novel ID, centred",
        "against DDIM 50",
        "shape mm",
        "diffuse dB",
        "s a photo",
    ]
    return markdown_table(header, rows)


def chart(scores: Mapping[str, Mapping[int, Mapping[str, list[float]]]]) -> Figure:
    """Each metric against the number of steps."""
    figure = Figure((15, 3.6), layout="constrained")
    for axes, (key, label) in zip(figure.subplots(1, len(METRICS)), METRICS.items(), strict=True):
        for name, by_steps in scores.items():
            steps = [n for n in by_steps if n != REFERENCE_STEPS]
            axes.plot(
                steps, [sum(by_steps[n][key]) / len(by_steps[n][key]) for n in steps], "o-", markersize=3, label=name
            )
        axes.set(xscale="log", xlabel="steps", title=label)
        if key == "distance":
            axes.set_yscale("log")
    figure.legend(*axes.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=len(scores))
    return figure


def main() -> None:
    """Measure, and write tables and chart."""
    run_command(_compare, Options, __doc__)


def _compare(options: Options, console: Console) -> None:
    model, people, _ = load_run(Path(options.run))
    torch.manual_seed(0)
    out = Path(options.out)
    drawn = unguided(model, people.held_out, options, console)
    report: dict[str, Any] = {"unguided": drawn}
    write_json(out / "results.json", report)  # at once: what follows takes as long again
    save_chart(chart(drawn), (HERE / "pictures" if options.publish else out) / "samplers.png")
    text = f"Date: {date.today()}. {options.n} people, two samples each; 95 % intervals of paired differences.\n\n"
    text += unguided_table(drawn)
    names = ", ".join(refused(model.schedule))
    text += f"\n\nRefused, since they scale their latent or have noise levels of their own: {names}."
    if options.fits:
        report["guided"] = guided(model, people.held_out, options)
        write_json(out / "results.json", report)
        text += f"\n\nGuided fits of {options.fits} people, unknown scene:\n\n{guided_table(report['guided'])}"
    (out / "tables.md").write_text(text + "\n")
    if options.publish:
        replace_generated(HERE / "README.md", text)
    console.print(f"results: {out}")


if __name__ == "__main__":
    main()
