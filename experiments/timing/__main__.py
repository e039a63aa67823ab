"""What does a fit take, by steps, batch, size of crop and terms?  `python -m experiments.timing [publish=true]`

One setting at a time leaves the base. Random weights are as fast as trained ones, so no checkpoint is needed. On a CPU
these are seconds of processor time on the given threads, which other work on the machine hardly alters; on CUDA, of the
clock. Detection and the first estimate of the scene are not in them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track

from experiments.report import command_line, markdown_table, name_of_place, replace_generated, save_chart
from fitdiff.benchmark import seconds
from fitdiff.command import run_command, usable_device
from fitdiff.config import config_hash
from fitdiff.diffusion.sampler import DDIM
from fitdiff.fitting.bench import load_model
from fitdiff.fitting.cost import portrait_problem
from fitdiff.fitting.guided import GuidedFitting
from fitdiff.fitting.problem import first_noise
from fitdiff.storage import write_json

HERE = Path(__file__).parent
FACTORS = ("steps", "batch", "size", "without")


@dataclass
class Options:
    """What the command line sets."""

    scale: str = "laptop"  # laptop, base or paper, with random weights
    checkpoint: str | None = None  # a trained model's folder, instead of a scale
    device: str = "auto"
    threads: int = 1
    steps: list[int] = field(default_factory=lambda: [10, 25, 50])  # T; the first is the base's
    batch: list[int] = field(default_factory=lambda: [8, 1, 2, 4, 16])  # photos at once; the first is the base's
    size: list[int] = field(default_factory=lambda: [224, 112, 160])  # side of the crop; the first is the base's
    repeats: int = 3  # turns, of which the fastest counts and all are shown
    out: str = "outputs/experiments/timing"
    publish: bool = False  # also write into experiments/timing


@dataclass(frozen=True)
class Setting:
    """One fit: photos at once, steps, side of the crop, and the term that is left out ("": none)."""

    steps: int
    batch: int
    size: int
    without: str = ""

    def label(self, factor: str) -> str:
        """Its value of a factor, in words."""
        return str(getattr(self, factor)) or "nothing"


def main() -> None:
    """Measure, print, write."""
    run_command(_time, Options, __doc__)


def _time(options: Any, console: Console) -> None:
    device = usable_device(options.device)
    torch.set_num_threads(options.threads)
    model, terms = load_model(options, device)
    by_factor = settings(options, list(terms))
    everything = list(dict.fromkeys(s for some in by_factor.values() for s in some))
    fits = {s: make_fit(model, {k: v for k, v in terms.items() if k != s.without}, s) for s in everything}
    times = measure(fits, options.repeats, device, console)
    text = f"{facts(options, device)}\n\n{table(by_factor, times)}"
    out = Path(options.out)
    write_json(out / "timing.json", {"facts": facts(options, device), "rows": [vars(s) | {"seconds a photo": times[s]} for s in times]})  # fmt: skip # noqa: E501
    figure = chart(by_factor, times, "processor seconds" if device.type == "cpu" else "seconds")
    save_chart(figure, out / "timing.png")
    if options.publish:
        replace_generated(HERE / "README.md", f"{text}\n\n![What a fit takes](pictures/timing.png)")
        save_chart(figure, HERE / "pictures" / "timing.png")
    print(text)
    console.print(f"results: {out} (timing.json, timing.png)")


def settings(options: Any, terms: Sequence[str]) -> dict[str, list[Setting]]:
    """By factor, the base first: the settings that differ from it in that factor alone."""
    base = Setting(options.steps[0], options.batch[0], options.size[0])
    levels = {"steps": options.steps, "batch": options.batch, "size": options.size, "without": ["", *terms]}
    return {factor: [Setting(**{**vars(base), factor: level}) for level in levels[factor]] for factor in FACTORS}


def make_fit(model: Any, terms: dict[str, Any], setting: Setting) -> Callable[[], Any]:
    """A fit that is ready to run."""
    problem = portrait_problem(model, terms, setting.batch, setting.size)
    method = GuidedFitting(steps=setting.steps, through_unet=False, size=setting.size)
    return lambda: method(problem, DDIM(), first_noise(model, setting.batch))


def measure(
    fits: dict[Setting, Callable[[], Any]], repeats: int, device: torch.device, console: Console
) -> dict[Setting, list[float]]:
    """Seconds a photo of every repeat; the fits take turns."""
    clock = processor_seconds if device.type == "cpu" else lambda fit: seconds(fit, device)
    next(iter(fits.values()))()  # what is compiled and allocated once
    turns = [setting for _ in range(repeats) for setting in fits]
    times: dict[Setting, list[float]] = {setting: [] for setting in fits}
    for setting in track(turns, "fits", console=console):
        times[setting].append(clock(fits[setting]) / setting.batch)
    return times


def processor_seconds(function: Callable[[], Any]) -> float:
    """Of one call, on all threads of this process."""
    start = time.process_time()
    function()
    return time.process_time() - start


def facts(options: Any, device: torch.device) -> str:
    """Command, date, and what the figures are."""
    what = "processor time, other work going on" if device.type == "cpu" else "time by the clock"
    model = f"checkpoint={name_of_place(options.checkpoint)}" if options.checkpoint else f"scale={options.scale}"
    shared = {key: list(options[key]) for key in ("steps", "batch", "size")}
    digits = config_hash(model, shared, options.threads, options.repeats, device.type)
    return (
        f"Command: `{command_line('experiments.timing', options, Options)}`. Date: {date.today()}. Settings: "
        f"{digits}. Unless a line says otherwise: {options.steps[0]} steps, "
        f"batches of {options.batch[0]}, crops of {options.size[0]}², all terms, stopped at ẑ₀. {device.type}, "
        f"{options.threads} threads; {what}; the fastest of {options.repeats} turns."
    )


def table(by_factor: dict[str, list[Setting]], times: dict[Setting, list[float]]) -> str:
    """A row a setting: seconds a photo, milliseconds a photo and step, and the ratio to the base."""
    base = min(times[by_factor["steps"][0]])

    def rows() -> Iterator[list[str]]:
        for factor, some in by_factor.items():
            for setting in some:
                taken = min(times[setting])
                yield [factor, setting.label(factor), f"{taken:.2f}", f"{taken / setting.steps * 1e3:.0f}", f"{taken / base:.2f}"]  # fmt: skip # noqa: E501

    return markdown_table(["what", "value", "s a photo", "ms a photo and step", "of the base"], rows())


def chart(by_factor: dict[str, list[Setting]], times: dict[Setting, list[float]], unit: str) -> Figure:
    """A panel a factor: the fastest turn as a bar, the others as dots."""
    figure = Figure((12, 3.2), layout="constrained")
    for axis, (factor, some) in zip(figure.subplots(1, len(by_factor)), by_factor.items(), strict=True):
        ordered = some if factor == "without" else sorted(some, key=lambda s: getattr(s, factor))
        _bars(axis, [s.label(factor) for s in ordered], [times[s] for s in ordered])
        axis.set_title({"without": "term left out", "size": "side of the crop"}.get(factor, factor), fontsize=10)
        axis.set_xlabel(f"{unit} a photo", fontsize=9)
    return figure


def _bars(axis: Axes, labels: Sequence[str], seconds_each: Sequence[Sequence[float]]) -> None:
    axis.barh(labels, [min(values) for values in seconds_each], color="#56b4e9")
    for place, values in enumerate(seconds_each):
        axis.plot(values, [place] * len(values), "o", markersize=3, color="#0072b2")
        axis.annotate(
            f"{min(values):.2f}", (0, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8
        )
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.3)
    axis.tick_params(labelsize=8)


if __name__ == "__main__":
    main()
