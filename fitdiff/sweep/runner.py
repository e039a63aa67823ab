"""Runs the trials of a sweep here, each a process of its own: the command that it prints, and that a user could run."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from optuna.trial import FrozenTrial, Trial
from rich.console import Console

from fitdiff.storage import CheckpointError
from fitdiff.sweep.programs import MetricError, Program, place
from fitdiff.sweep.spec import SweepError
from fitdiff.sweep.study import SweepStudy, label
from fitdiff.training.interruption import Interruption

LAST_LINES = 6
"""Of a failed trial's log, told at once."""

HOPELESS = 3
"""Failures in a row, before any trial came to its end, that have one cause: the rest would fail, too."""

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Runs:
    """Where the trials of a sweep are: all of them, their logs, and what command each is."""

    program: Program
    outputs: Path
    name: str
    logs: Path
    extra: Sequence[str]

    def folder(self, trial: str) -> Path:
        """Of a trial's results."""
        return self.program.folder(self.outputs, f"{self.name}/{trial}")

    def command(self, study: SweepStudy, trial: Trial | FrozenTrial) -> list[str]:
        """A trial's process."""
        where = place(self.outputs, f"{self.name}/{label(trial)}")
        return study.spec.command_line(study.row(trial), where, self.extra)

    def last_command(self, study: SweepStudy, trial: Trial | FrozenTrial) -> list[str]:
        """As it began last, by what may have been other options: which device, which trackers."""
        return trial.user_attrs.get("command") or self.command(study, trial)

    @property
    def results(self) -> Path:
        """The folder of all trials'."""
        return self.folder("trial-0").parent


@dataclass
class Running:
    """A trial's process.

    Attributes:
        slot: which of the trials at once it is. loses, fault: why it was asked to stop, if it was.
    """

    trial: Trial
    process: subprocess.Popen[bytes]
    slot: int
    started: float
    loses: bool = False
    fault: str | None = None


class Runner:
    """Runs what is left of a sweep, `jobs` trials at once, and ends those that lose early.

    Args:
        gpus: that trials see, one each, by turns; none: what this process sees. poll: seconds between looks at trials.
        changed: is called after each trial that ended.
    """

    def __init__(
        self,
        study: SweepStudy,
        runs: Runs,
        jobs: int,
        gpus: Sequence[str],
        poll: float,
        console: Console,
        changed: Callable[[], None],
    ) -> None:
        self.study, self.runs, self.jobs, self.gpus, self.poll = study, runs, jobs, gpus, poll
        self.console, self.changed = console, changed
        self.running: list[Running] = []
        self.failures = 0  # in a row

    def run(self, adopt: bool = False) -> None:
        """Run to the end of the sweep.

        Args:
            adopt: also continue what runners on other machines left unfinished.

        Raises:
            InterruptedRun: a signal asked to stop; trials stopped as their program stops, and continue when asked.
            SweepError: the first `HOPELESS` trials failed.
        """
        with Interruption() as stop, stop.deferred():
            try:
                waiting = self._take_over(adopt)
                self._tell_of_others()
                while waiting or self.running or self.study.left() > 0:
                    self._fill(waiting)
                    with stop.deferred(False):
                        time.sleep(self.poll)
                    self._look()
            finally:
                self._stop_all()
        self._tell_of_others()

    def _tell_of_others(self) -> None:
        for host, n in self.study.left_elsewhere().items():
            self.console.print(
                f"{n} trial{'s were' if n > 1 else ' was'} begun on {host} and left unfinished, unless a runner is at "
                "work there: adopt=true continues what none will come back to"
            )

    # --- beginnings -----------------------------------------------------------------------------------------------

    def _take_over(self, adopt: bool) -> list[Trial]:
        """Trials that a killed runner left; their processes, which may still run, are asked to stop first."""
        left = []
        for trial in self.study.interrupted(adopt):
            _stop_orphans(self.runs.last_command(self.study, trial))
            if trial.user_attrs.get("pruned"):
                self._end(trial)
            else:
                left.append(trial)
        return left

    def _fill(self, waiting: list[Trial]) -> None:
        while len(self.running) < self.jobs and (trial := self._next(waiting)) is not None:
            self._start(trial)

    def _next(self, waiting: list[Trial]) -> Trial | None:
        """The next trial, unless one that began before it prepares, here or on another machine."""
        with self.study.asking:  # so that of two machines, one begins, and the other sees that
            begun = [one for one in self.study.under_way() if not waiting or one.number < waiting[0].number]
            if any(self.runs.program.prepares(self.runs.folder(label(one))) for one in begun):
                return None
            trial = waiting.pop(0) if waiting else self.study.ask()
            if trial is not None:
                self.runs.program.forget(self.runs.folder(label(trial)))
            return trial

    def _start(self, trial: Trial) -> None:
        command = self.runs.command(self.study, trial)
        slot = min(set(range(self.jobs)) - {one.slot for one in self.running})
        own = {VISIBLE: self.gpus[slot % len(self.gpus)]} if self.gpus else {}
        self.console.print(f"{label(trial)}: {' '.join([*(f'{k}={v}' for k, v in own.items()), shlex.join(command)])}")
        trial.set_user_attr("command", command)
        self.runs.logs.mkdir(parents=True, exist_ok=True)
        with self._log(trial).open("ab") as log:
            # A session of its own: Ctrl-C reaches the sweep alone, which then stops its trials.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | own,
            )
        self.running.append(Running(trial, process, slot, time.monotonic()))

    # --- ends -----------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Read what running trials have logged; end those that lose, and those that have ended."""
        for one in list(self.running):
            code = one.process.poll()
            if not one.loses and one.fault is None:
                self._judge(one, ended=code is not None)
            if code is not None:
                self.running.remove(one)
                self._finish(one, code)

    def _judge(self, one: Running, ended: bool) -> None:
        """Read what a trial has logged, and ask it to stop if it loses, or nothing can be read."""
        try:
            curve = self.runs.program.curve(self.runs.folder(label(one.trial)), self.study.spec.metric)
            loses = self.study.report(one.trial, curve)
        except CheckpointError as error:
            one.fault = str(error)
        else:
            one.loses = loses and not ended
            if one.loses:
                one.trial.set_user_attr("pruned", True)
        if one.loses or one.fault:
            one.process.terminate()

    def _finish(self, one: Running, code: int) -> None:
        seconds = round(time.monotonic() - one.started + one.trial.user_attrs.get("seconds", 0.0), 1)
        if one.loses:
            self._end(one.trial, seconds=seconds)
            return
        try:
            if one.fault:
                raise MetricError(one.fault)
            if code:
                raise MetricError(f"ended with code {code}")
            value = self.runs.program.result(self.runs.folder(label(one.trial)), self.study.spec.metric)
        except MetricError as error:
            self._end(one.trial, reason=str(error), seconds=seconds)
        else:
            self._end(one.trial, value, seconds=seconds)

    def _end(self, trial: Trial, value: float | None = None, reason: str | None = None, **facts: float) -> None:
        self.study.tell(trial, value, reason, **facts)
        ending = f"{value:.6g}" if value is not None else f"failed: {reason}" if reason else "pruned"
        self.console.print(f"{label(trial)}: {ending} · {self._progress()}")
        if reason:
            self.console.print(f"  the end of {self._log(trial)}:")
            self.console.print("".join(f"    {line}\n" for line in _last_lines(self._log(trial))), end="")
        self.changed()
        self.failures = self.failures + 1 if reason else 0
        if self.failures >= HOPELESS and self.study.best() is None:
            cause = " ".join(_last_lines(self._log(trial))[-1:]).strip()
            raise SweepError(
                f"the first {self.failures} trials failed, the last of them: {reason}, {cause!r} (in "
                f"{self._log(trial)}). Mend that; retry=true then runs them again"
            )

    def _progress(self) -> str:
        """How many trials have ended, the best of them, and when all will have."""
        ended = [trial for trial in self.study.trials if trial.state.is_finished()]
        best = self.study.best()
        words = [f"{len(ended)} of {self.study.total} done"]
        words += [f"best {best.value:.6g} ({', '.join(map(label, best.trials))})"] if best else []
        times = [trial.user_attrs["seconds"] for trial in ended if trial.user_attrs.get("seconds")]
        if times and len(ended) < self.study.total:
            rounds = (self.study.total - len(ended)) / self.jobs
            words.append(f"about {max(rounds * sum(times) / len(times) / 60, 0.1):.1f} min left")
        return " · ".join(words)

    def _log(self, trial: Trial) -> Path:
        return self.runs.logs / f"{label(trial)}.log"

    def _stop_all(self) -> None:
        """Ask every process to stop and wait until it has; its trial stays unfinished, to be continued."""
        for one in self.running:
            one.process.terminate()
        for one in self.running:
            one.process.wait()
            seconds = time.monotonic() - one.started + one.trial.user_attrs.get("seconds", 0.0)
            one.trial.set_user_attr("seconds", round(seconds, 1))


def _stop_orphans(command: list[str]) -> None:
    """Stop processes of this very command, started here by a runner that was killed, and wait for their end."""
    orphans = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cmdline() == command and process.cwd() == os.getcwd():
                process.terminate()
                orphans.append(process)
    psutil.wait_procs(orphans)


def _last_lines(log: Path) -> list[str]:
    with suppress(OSError):
        return log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
    return []
