"""Run a W&B sweep file without a server: `python -m fitdiff.sweep file=sweeps/learning_rate.yaml`.

Each trial is a process of the file's program, whose command is printed. The same command continues a sweep that was
stopped or killed: what is done is not run again, what was interrupted goes on. See docs/sweeps.md.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from omegaconf import MISSING
from rich.console import Console

from fitdiff.command import run_command
from fitdiff.sweep.programs import place, program_of
from fitdiff.sweep.spec import Spec, SweepError, read_spec
from fitdiff.training.interruption import InterruptedRun


@dataclass
class Options:
    """What can be given."""

    file: str = MISSING  # a W&B sweep file
    name: str | None = None  # of the sweep, and of its runs' folder; null: the file's name
    outputs: str = "outputs"  # runs go to <outputs>/<name>, the sweep itself to <outputs>/sweeps/<name>
    overrides: str = ""  # further overrides of every trial, as on a command line
    trials: int | None = None  # at most; null: run_cap of the file, or the whole grid
    jobs: int | None = None  # trials at once; null: one a GPU of `gpus`, or 1
    gpus: str | None = None  # that trials see, one each, by turns: 0,1,2,3 (CUDA_VISIBLE_DEVICES); null: all see all
    seed: int = 0  # of what is drawn
    retry: bool = False  # run failed trials again
    launcher: str = "local"  # or one of Hydra's: joblib, ray, submitit_slurm (grids only)
    storage: str | None = None  # URL of an Optuna storage that machines share; null: a journal in the sweep's folder
    adopt: bool = False  # continue what runners on other machines left, once none of them runs
    dry: bool = False  # print the commands of a grid, run nothing
    poll: float = 1.0  # seconds between looks at the trials


def main(options: Options, console: Console) -> None:
    """Run the sweep of `options.file`.

    Raises:
        SweepError: it cannot be run, or no trial came to its end.
    """
    spec = read_spec(Path(options.file))
    name = options.name or Path(options.file).stem
    _check(options, name, spec)
    if options.dry:
        _print_grid(options, name, spec)
    else:
        _sweep(options, name, spec, console)


def _check(options: Options, name: str, spec: Spec) -> None:
    if not re.fullmatch(r"[\w.-]+", name):
        raise SweepError(f"name: got {name!r}, expected letters, digits, dots, dashes, underscores: it names folders")
    for key in ("trials", "jobs"):
        value = getattr(options, key)
        if value is not None and value < 1:
            raise SweepError(f"{key}: got {value}, expected 1 or more")
    if options.gpus and options.launcher != "local":
        raise SweepError(f"gpus: launcher={options.launcher} hands out GPUs itself, by its own hydra.launcher options")
    program_of(spec.program)
    if not Path(spec.program).is_file():
        raise SweepError(f"program: there is no {spec.program} here; run sweeps from the folder that has it")


def _print_grid(options: Options, name: str, spec: Spec) -> None:
    if spec.method != "grid":
        raise SweepError(f"dry=true prints a grid; method is {spec.method}, whose rows depend on results")
    for number, row in enumerate(spec.rows()):
        where = place(Path(options.outputs), f"{name}/trial-{number}")
        print(shlex.join(spec.command_line(row, where, shlex.split(options.overrides))))


def _sweep(options: Options, name: str, spec: Spec, console: Console) -> None:
    try:
        import optuna  # noqa: F401
    except ModuleNotFoundError as error:
        raise ImportError("sweeps need Optuna: pip install 'fitdiff[sweep]'") from error
    from fitdiff.sweep.launch import launch
    from fitdiff.sweep.runner import Runner, Runs
    from fitdiff.sweep.study import SweepStudy
    from fitdiff.sweep.summary import conclude, write_record

    outputs, extra = Path(options.outputs), shlex.split(options.overrides)
    folder, cap = outputs / "sweeps" / name, options.trials or spec.run_cap
    runs = Runs(program_of(spec.program), outputs, name, folder / "logs", extra)
    study = SweepStudy(spec, name, folder, options.storage, options.seed, cap, extra, runs.results)
    gpus = [gpu.strip() for gpu in (options.gpus or "").split(",") if gpu.strip()]
    with study.alone():
        if options.launcher != "local":
            launch(study, runs, options.launcher, console)
        else:
            if options.retry:
                study.retry()
            changed = partial(write_record, study, runs, options.file)
            try:
                jobs = options.jobs or len(gpus) or 1
                Runner(study, runs, jobs, gpus, options.poll, console, changed).run(options.adopt)
            except InterruptedRun as stop:
                console.print(f"{stop}; the same command continues")
                return
        conclude(study, runs, options.file, console)
    if study.best() is None:
        raise SweepError("no trial came to its end")


if __name__ == "__main__":
    run_command(main, Options, __doc__)
