"""How a sweep ended: the table of its trials, `sweep.json`, pictures, and the best run as a command."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Column, Table

from fitdiff.storage import atomic_file, write_json
from fitdiff.sweep.runner import Runs
from fitdiff.sweep.spec import Choice
from fitdiff.sweep.study import SEED, SweepStudy, index, label

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

STATES = {TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
UNFINISHED = "unfinished"


def record(study: SweepStudy, runs: Runs, file: str) -> dict[str, Any]:
    """All of a sweep: what `sweep.json` holds."""
    trials = [_entry(study, runs, trial) for trial in study.trials]
    return {
        "sweep": runs.name,
        "date": date.today().isoformat(),
        "file": file,
        "program": study.spec.program,
        "method": study.spec.method,
        "metric": study.spec.metric,
        "goal": "maximize" if study.spec.maximize else "minimize",
        "seed": study.seed,
        "total": study.total,
        "best": _best(study, trials),
        "trials": trials,
    }


def write_record(study: SweepStudy, runs: Runs, file: str) -> Path:
    """Write `sweep.json`."""
    return write_json(study.folder / "sweep.json", record(study, runs, file))


def _best(study: SweepStudy, trials: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The best choice of parameters: its `n` trials, their commands and folders, and the mean of their metric."""
    best = study.best()
    if best is None:
        return None
    names = [label(trial) for trial in best.trials]
    own = [trial for trial in trials if trial["name"] in names]
    columns = {f"{key}s": [trial[key] for trial in own] for key in ("name", "command", "folder")}
    return {"value": best.value, "n": len(own), "overrides": best.overrides, **columns}


def _entry(study: SweepStudy, runs: Runs, trial: FrozenTrial) -> dict[str, Any]:
    return {
        "name": label(trial),
        "state": STATES.get(trial.state, UNFINISHED),
        "value": trial.value if trial.state == TrialState.COMPLETE else None,
        "curve": [None if math.isnan(value) else value for value in trial.intermediate_values.values()],
        "seconds": trial.user_attrs.get("seconds"),
        "reason": trial.user_attrs.get("reason"),
        "overrides": study.row(trial),
        "command": shlex.join(runs.last_command(study, trial)),
        "folder": str(runs.folder(label(trial))),
    }


def conclude(study: SweepStudy, runs: Runs, file: str, console: Console) -> None:
    """Print the table, write the record and the pictures, and name the best run."""
    found = record(study, runs, file)
    console.print(_table(found), soft_wrap=False)
    write_json(study.folder / "sweep.json", found)
    pictures = draw(study)
    failed = [trial["name"] for trial in found["trials"] if trial["state"] == "failed"]
    if failed:
        console.print(f"{len(failed)} failed ({', '.join(failed)}): retry=true runs them again, where they stopped")
    best = found["best"]
    if best:
        mean = f" (mean of {best['n']} seeds)" if SEED in study.spec.parameters else ""
        console.print(f"best: {', '.join(best['names'])}, {found['metric']} = {best['value']:.6g}{mean}; as a command:")
        console.print("\n".join(best["commands"]))
        console.print(f"results: {', '.join(best['folders'])}")
    console.print(f"sweep: {study.folder} (sweep.json{''.join(f', {path.name}' for path in pictures)}, logs/)")
    page = f"{runs.results}/*"
    console.print(f"all trials on a page: python -m fitdiff.report runs={shlex.quote(page)}")


def _table(found: dict[str, Any]) -> Table:
    """A row a trial; of what was set, that alone in which trials differ."""
    rows = [trial["overrides"] for trial in found["trials"]]
    keys = [key for key in (rows[0] if rows else {}) if len({row.get(key) for row in rows}) > 1]
    table = Table(Column("trial", no_wrap=True), "state", "s")
    for name in (found["metric"].split("/")[-1], *_short(keys)):
        table.add_column(name, overflow="fold")
    for trial in found["trials"]:
        value = "" if trial["value"] is None else f"{trial['value']:.6g}"
        style = "bold green" if found["best"] and trial["name"] in found["best"]["names"] else None
        cells = [trial["overrides"].get(key, "") for key in keys]
        table.add_row(trial["name"], trial["state"], str(trial["seconds"] or ""), value, *cells, style=style)
    return table


def _short(keys: Sequence[str]) -> list[str]:
    """Names without the words that all begin or end with: of `guidance.mse.weight` and `guidance.vgg.weight`, `mse`."""
    words = [key.split(".") for key in keys]
    for end in (0, -1):
        while len(words) > 1 and all(len(w) > 1 for w in words) and len({w[end] for w in words}) == 1:
            for w in words:
                del w[end]
    return [".".join(w) for w in words]


# --- pictures --------------------------------------------------------------------------------------------------------


def draw(study: SweepStudy) -> list[Path]:
    """Write `trials.png`, and `importances.png` where enough trials ended; needs two finished trials."""
    done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    if len(done) < 2:
        return []
    pictures = [_save(_draw_trials(study, done), study.folder / "trials.png")]
    importances = _importances(study)
    if importances:
        pictures.append(_save(_draw_importances(importances), study.folder / "importances.png"))
    return pictures


def _draw_trials(study: SweepStudy, done: list[FrozenTrial]) -> Figure:
    """The metric by trial with the best so far, and by each parameter."""
    keys = _choices(study)
    columns = min(len(keys) + 1, 3)
    rows = -(-(len(keys) + 1) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4 * columns, 3 * rows), squeeze=False, layout="constrained")
    first, *others = axes.flat
    _draw_history(first, study, done)
    for axis, key in zip(others, keys, strict=False):
        _draw_slice(axis, study, done, key)
    for axis in others[len(keys) :]:
        axis.set_axis_off()
    for axis in axes[:, 0]:
        axis.set_ylabel(study.spec.metric)
    return figure


def _draw_history(axis: Axes, study: SweepStudy, done: list[FrozenTrial]) -> None:
    values = np.array([trial.value for trial in done], float)
    best = np.maximum.accumulate(values) if study.spec.maximize else np.minimum.accumulate(values)
    axis.plot([index(trial) for trial in done], values, "o", label="finished")
    if SEED not in study.spec.parameters:  # else it would be the luckiest seed
        axis.step([index(trial) for trial in done], best, where="post", label="best so far")
    pruned = [trial for trial in study.trials if trial.state == TrialState.PRUNED and trial.intermediate_values]
    if pruned:
        axis.plot([index(t) for t in pruned], [_last(t) for t in pruned], "x", color="grey", label="pruned, its last")
    axis.set_xlabel("trial")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(fontsize="small")


def _draw_slice(axis: Axes, study: SweepStudy, done: list[FrozenTrial], key: str) -> None:
    parameter, best = study.spec.parameters[key], study.best()

    def place(trial: FrozenTrial) -> float:
        return parameter.values.index(trial.params[key]) if isinstance(parameter, Choice) else trial.params[key]

    axis.plot([place(trial) for trial in done], [trial.value for trial in done], "o")
    if best is not None:
        axis.plot(place(best.trials[0]), best.value, "*", ms=14, color="tab:orange")
    if isinstance(parameter, Choice):
        axis.set_xticks(range(len(parameter.values)), parameter.values)
    elif parameter.log:
        axis.set_xscale("log")
    axis.set_xlabel(key)


def _importances(study: SweepStudy) -> dict[str, float]:
    """Share of each parameter in the metric's differences (functional ANOVA); none where that says nothing."""
    varied = [key for key in _choices(study) if len(set(study.spec.parameters[key].extremes)) > 1]
    if len(varied) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=study.seed)
    try:
        return optuna.importance.get_param_importances(study.study, evaluator=evaluator, params=varied)
    except (RuntimeError, ValueError):  # all values are equal, or there are too few
        return {}


def _draw_importances(importances: dict[str, float]) -> Figure:
    figure, axis = plt.subplots(figsize=(6, 1 + 0.4 * len(importances)), layout="constrained")
    bars = axis.barh(list(importances), list(importances.values()))
    axis.bar_label(bars, fmt="%.2f", padding=3)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.1)
    axis.set_xlabel("importance: share of the metric's variance")
    return figure


def _choices(study: SweepStudy) -> list[str]:
    return [key for key in study.spec.parameters if key != SEED]


def _last(trial: FrozenTrial) -> float:
    return trial.intermediate_values[max(trial.intermediate_values)]


def _save(figure: Figure, path: Path) -> Path:
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=120)
    plt.close(figure)
    return path
