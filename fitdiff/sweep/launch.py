"""Hands a grid to one of Hydra's launchers (joblib, ray, submitit_slurm): one multirun command, a job a row.

Only grids: their rows are known beforehand and depend on no result. The other methods ask Optuna before each trial, so
they run here, or on many machines that share a study (`storage=`).
"""

from __future__ import annotations

import shlex
import subprocess

from optuna.trial import Trial
from rich.console import Console

from fitdiff.sweep.programs import MetricError, place
from fitdiff.sweep.runner import Runs
from fitdiff.sweep.spec import SweepError
from fitdiff.sweep.study import SweepStudy, label

JOB = "trial-${hydra:job.num}"
"""A row's name in Hydra's multirun; `study.label` gives the same, for the trial of index k in a grid is row k."""


def multirun(study: SweepStudy, runs: Runs, launcher: str) -> list[str]:
    """The one command of a whole grid.

    Raises:
        SweepError: the sweep is no grid, or is cut short.
    """
    if study.spec.method != "grid":
        raise SweepError(
            f"launcher={launcher} takes grids, and method is {study.spec.method}: its trials depend on results. Run it "
            "with launcher=local, on many machines with one storage=URL"
        )
    if study.total < len(study.grid):
        raise SweepError(f"launcher={launcher} runs all {len(study.grid)} rows, but run_cap or trials is {study.total}")
    values = {key: ",".join(dict.fromkeys(row[key] for row in study.grid)) for key in study.spec.parameters}
    # Hydra's own folder must not have a name that depends on the job.
    hydra = [f"hydra/launcher={launcher}", f"hydra.sweep.dir=${{outputs}}/multirun/{runs.name}"]
    where = place(runs.outputs, f"{runs.name}/{JOB}")
    return [*study.spec.command_line(values, where, [*runs.extra, *hydra]), "-m"]


def launch(study: SweepStudy, runs: Runs, launcher: str, console: Console) -> None:
    """Run the command, then read the results; rows that are done are skipped by the program itself."""
    command = multirun(study, runs, launcher)
    study.retry()
    begun = study.interrupted(adopt=True)
    if not begun and study.left() < 1:
        return
    begun += iter(study.ask, None)
    for trial in begun:
        runs.program.forget(runs.folder(label(trial)))
    console.print(shlex.join(command))
    code = subprocess.run(command, stdin=subprocess.DEVNULL).returncode
    if code:
        console.print(f"the launcher ended with code {code}; what its jobs have finished is read")
    for trial in begun:
        _collect(study, runs, trial)


def _collect(study: SweepStudy, runs: Runs, trial: Trial) -> None:
    try:
        value = runs.program.result(runs.folder(label(trial)), study.spec.metric)
    except MetricError as error:
        study.tell(trial, reason=str(error))
    else:
        study.tell(trial, value)
