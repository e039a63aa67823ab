"""How fast is training, beside other projects' networks and the machine's peak?  `python -m fitdiff.training.bench`

Contenders take turns in one process. A network's step is forward, backward, clipping and the optimiser's step, the same
for ours and the rival of equal parameters (`rivals`); a stage's step is the trainer's, with all loss terms and the
average. FLOP are those of convolutions, matrix products and attention, forward and backward, two for each multiply-add;
the renderer's and elementwise ones are not counted. The peak is that of a large matrix product in the same precision.

    python -m fitdiff.training.bench                                                       # laptop: two CPU cores
    python -m fitdiff.training.bench networks=[base,paper] steps=[base,paper] \\
        mixed_precision=bf16 compile=true n=100000                                         # one GPU
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from accelerate import Accelerator
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from fitdiff.benchmark import matrix_peak, peak_memory, seconds, take_turns
from fitdiff.command import run_command, usable_device
from fitdiff.training.batches import Batches
from fitdiff.training.bench_steps import (
    Contender,
    autoencoders,
    compose_scale,
    denoisers,
    kinds_of_steps,
    people_and_model,
    period_of,
    samples_of_run,
    stage_of,
    stage_step,
)
from fitdiff.training.descent import graphs_kept
from fitdiff.training.stage import Stage

PRECISIONS = {"no": torch.float32, "bf16": torch.bfloat16}
COLUMNS = ("parameters", "GFLOP a sample", "ms a sample", "samples/s", "speed", "GFLOP/s", "of peak", "MB", "days")
WIDTH = 150
"""Characters of a table, also where standard output is a file."""


@dataclass
class Options:
    """What the command line sets."""

    networks: list[str] = field(default_factory=lambda: ["laptop", "base"])  # scales whose networks race their rivals
    steps: list[str] = field(default_factory=lambda: ["laptop"])  # scales whose whole steps and loaders are timed
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    threads: int = torch.get_num_threads()
    mixed_precision: str = "no"  # no or bf16
    compile: bool = False  # torch.compile for ours and theirs
    batch: int | None = None  # samples a step; null: the scale's own, but 1 or 2 on a CPU beyond scale=laptop
    repeats: int = 9  # turns
    patience: float = 20.0  # seconds after which a table's turns end early
    people: int = 64  # to make and read, of each scale in steps
    n: int = 10_000  # people of the run whose days are foretold
    largest: bool = torch.cuda.is_available()  # also look for the largest batch that fits into the GPU's memory


@dataclass(frozen=True)
class Measured:
    """What came out of a contender's turns: seconds of a step, FLOP and bytes of one."""

    contender: Contender
    fastest: float
    median: float
    flop: float
    bytes: float | None

    @property
    def samples_per_second(self) -> float:
        """At its fastest."""
        return self.contender.samples / self.fastest


class Bench:
    """Measures contenders on one device and puts them into tables.

    Raises:
        ValueError: the precision is unknown, or the device does not work.
    """

    def __init__(self, options: Options) -> None:
        if options.mixed_precision not in PRECISIONS:
            raise ValueError(f"mixed_precision is {options.mixed_precision!r}; expected one of {list(PRECISIONS)}")
        self.options, self.device = options, usable_device(options.device)
        cpu = self.device.type == "cpu"
        self.accelerator = Accelerator(mixed_precision=options.mixed_precision, cpu=cpu)
        self.peak = matrix_peak(self.device, PRECISIONS[options.mixed_precision])

    def measure(self, contenders: Mapping[str, Contender]) -> dict[str, Measured]:
        """Count, then compile if asked, then weigh, then take turns."""
        with graphs_kept():
            return self._measure(contenders)

    def _measure(self, contenders: Mapping[str, Contender]) -> dict[str, Measured]:
        flop, memory = {}, {}
        for name, contender in contenders.items():
            with FlopCounterMode(display=False) as counter:
                contender.step()
            flop[name] = counter.get_total_flops()
            if self.options.compile:
                for network in contender.networks:
                    network.compile()
                contender.step()
            memory[name] = peak_memory(contender.step, self.device)
        tasks = {name: {"step": contender.step} for name, contender in contenders.items()}
        times = take_turns(tasks, self.options.repeats, self.device, warm_up=False, patience=self.options.patience)
        return {
            name: Measured(
                c, min(times[name]["step"]), statistics.median(times[name]["step"]), flop[name], memory[name]
            )
            for name, c in contenders.items()
        }

    def table(self, title: str, measured: Mapping[str, Measured], against: str, run: float) -> Table:
        """A row a contender; `speed` is that of `against` multiplied, `days` those of a run of so many samples."""
        options = self.options
        where = f"{self.device.type}, {torch.get_num_threads()} threads, precision {options.mixed_precision}"
        where += ", compiled" if options.compile else ""
        caption = (
            f"fastest / median of at most {options.repeats} turns; {where}; peak {self.peak / 1e9:.0f} GFLOP/s; "
            f"days: {run / options.n:.3g} epochs of {options.n:,} people on this device"
        )
        table = Table(title=title, caption=caption)
        table.add_column("step", no_wrap=True)
        for column in COLUMNS:
            table.add_column(column, justify="right", no_wrap=True)
        for name, m in measured.items():
            table.add_row(name, *self._cells(m, measured[against], run))
        return table

    def _cells(self, m: Measured, against: Measured, run: float) -> list[str]:
        n, rate = m.contender.samples, m.flop / m.fastest
        parameters = m.contender.parameters
        return [
            "" if parameters is None else f"{parameters / 1e6:.2f} M",
            f"{m.flop / n / 1e9:.2f}",
            f"{m.fastest / n * 1e3:.1f} / {m.median / n * 1e3:.1f}",
            f"{m.samples_per_second:.1f}",
            f"{m.samples_per_second / against.samples_per_second:.2f}",
            f"{rate / 1e9:.0f}",
            f"{rate / self.peak:.0%}",
            "" if m.bytes is None else f"{m.bytes / 1e6:.0f}",
            f"{run / m.samples_per_second / 86400:.2f}",
        ]


def main() -> None:
    """Print all tables."""
    run_command(_print_tables, Options, __doc__)


def _print_tables(options: Options, console: Console) -> None:
    torch.set_num_threads(options.threads)
    bench, out = Bench(options), Console()
    out.width = max(out.width, WIDTH)
    for scale in options.networks:
        for table in race(bench, scale, console):
            out.print(table)
    for scale in options.steps:
        for table in whole_steps(bench, scale):
            out.print(table)


def race(bench: Bench, scale: str, console: Console) -> Iterator[Table]:
    """Both networks of a scale beside their rivals; a rival that is not installed is named and left out."""
    for title, make in (("autoencoder", autoencoders), ("denoiser", denoisers)):
        torch.manual_seed(0)
        config = compose_scale(scale)
        contenders, missing = make(config, bench.accelerator, bench.options.batch)
        if missing:
            console.print(missing)
        batch = contenders["ours"].samples
        measured = bench.measure(contenders)
        run = samples_of_run(config, "autoencoder" if title == "autoencoder" else "diffusion", bench.options.n)
        yield bench.table(f"{title}, scale={scale}, batch {batch}", measured, list(contenders)[-1], run)


def whole_steps(bench: Bench, scale: str) -> Iterator[Table]:
    """The stages' steps of a scale, and their loaders beside them."""
    config = compose_scale(scale, bench.options.people)
    people, model = people_and_model(config, bench.device)
    appetites = {}
    for name in ("autoencoder", "diffusion"):
        make = {"accelerator": bench.accelerator, "people": people, "model": model, "config": config}
        measured, batch = _stage_steps(bench, name, make)
        plain = next(iter(measured))
        run = samples_of_run(config, name, bench.options.n)
        yield bench.table(f"{name} stage, scale={scale}, batch {batch}", measured, plain, run)
        appetites[name] = (stage_of(name, **make), measured[list(measured)[-1]].samples_per_second)
    yield loader_table(appetites, scale)
    if bench.options.largest and bench.device.type == "cuda":
        yield largest_table(bench, scale, make)


def _stage_steps(bench: Bench, name: str, make: dict) -> tuple[dict[str, Measured], int]:
    """Steps of a stage with all terms, after those with the first alone; the last row is what a run has on average."""
    first = {"diffusion": {"id_weight": 0.0, "per_weight": 0.0, "verts_weight": 0.0}}
    first["autoencoder"] = {"perceptual_weight": 0.0, "adversarial_weight": 0.0}
    alone, full = stage_of(name, **make, **first[name]), stage_of(name, **make)
    kinds = kinds_of_steps(full)
    contenders = {"first term alone": stage_step(alone, 0, bench.accelerator)}
    contenders |= {f"all terms, {kind}": stage_step(full, step, bench.accelerator) for kind, (step, _) in kinds.items()}
    measured = bench.measure(contenders)
    if len(kinds) > 1:
        shares = {f"all terms, {kind}": share for kind, (_, share) in kinds.items()}
        measured["all terms, on average"] = _average(measured, shares)
    return measured, full.batch_size


def _average(measured: Mapping[str, Measured], shares: Mapping[str, float]) -> Measured:
    def mean(key: str) -> float:
        return sum(share * getattr(measured[name], key) for name, share in shares.items())

    biggest = max((measured[name] for name in shares), key=lambda m: m.bytes or 0)
    return Measured(biggest.contender, mean("fastest"), mean("median"), mean("flop"), biggest.bytes)


def loader_table(appetites: Mapping[str, tuple[Stage, float]], scale: str) -> Table:
    """Samples a second that one process reads, from the system's page cache, beside those that the trainer eats."""
    title = f"loader, scale={scale}"
    table = Table("stage", "one process reads samples/s", "trainer takes samples/s", "ratio", title=title)
    for name, (stage, appetite) in appetites.items():
        batches, period = Batches(stage, seed=0), period_of(stage)
        read = partial(_read, batches, period)
        rate = period * stage.batch_size / min(seconds(read, torch.device("cpu")) for _ in range(4))
        table.add_row(name, f"{rate:.0f}", f"{appetite:.0f}", f"{rate / appetite:.1f}")
    return table


def _read(batches: Batches, steps: int) -> None:
    for step in range(steps):
        batches[step]


HEAVIEST: dict[str, dict] = {"autoencoder": {"discriminator_start": 0}, "diffusion": {}}
"""With these settings, the last step of a stage's period has all of its terms."""


def largest_table(bench: Bench, scale: str, make: dict) -> Table:
    """Doubles each stage's batch until the GPU's memory is full, in the steps that take most of it."""
    table = Table("stage", "largest batch that fits", title=f"memory, scale={scale}")
    for name in ("autoencoder", "diffusion"):
        fits, batch = 0, 1
        try:
            while batch <= 4096:
                stage = stage_of(name, **make, batch_size=batch, **HEAVIEST[name])
                stage_step(stage, period_of(stage) - 1, bench.accelerator).step()
                fits, batch = batch, 2 * batch
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
        table.add_row(name, str(fits))
    return table


if __name__ == "__main__":
    main()
