"""Optuna's memory of a sweep, on disk: every trial, what it drew and how it ended, through any kill.

What trial k draws is a function of the seed, k and the results known when it began, never of how often the sweep was
stopped. With one job, the same seed gives the same trials.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from fitdiff.config import config_hash
from fitdiff.sweep.spec import Choice, Early, Range, Spec, SweepError

HOST = socket.gethostname()


class Rows(BaseSampler):
    """A grid in order: trial k gets row k, whichever process asks, so several may share a study.

    (Optuna's GridSampler draws from the rows that it believes are left, which two processes may believe of one row.)
    """

    def __init__(self, rows: Sequence[Mapping[str, str]]) -> None:
        self.rows = rows

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing is drawn jointly."""
        return {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Any) -> dict[str, Any]:
        """Nothing is drawn jointly."""
        return {}

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any) -> str:
        """The row's value."""
        return self.rows[trial.number % len(self.rows)][param_name]


class SweepStudy:
    """The trials of a sweep.

    Args:
        spec: what is swept. name: of the study. folder: of the sweep; holds the journal unless `storage`, an Optuna URL
            that several machines share, is given. seed: of all draws. cap: trials at most; None is the whole grid.
        origin: what else decides the results; a sweep of another origin cannot be continued.

    Raises:
        SweepError: the folder or storage holds another sweep of that name, or no `cap` where trials have no end.
    """

    def __init__(
        self, spec: Spec, name: str, folder: Path, storage: str | None, seed: int, cap: int | None, origin: Any = None
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.spec, self.seed, self.folder = spec, seed, folder
        self.grid = spec.rows() if spec.method == "grid" else []
        if not self.grid and not cap:
            raise SweepError(f"method: {spec.method} has no end: set run_cap in the file, or give trials=N")
        self.total = min(cap or len(self.grid), len(self.grid) or cap or 0)
        folder.mkdir(parents=True, exist_ok=True)
        self._asking = FileLock(folder / ".ask.lock")
        with self._asking:
            self.study = self._open(name, _storage(folder, storage), config_hash(_decides(spec), seed, origin))

    def _open(self, name: str, storage: BaseStorage, fingerprint: str) -> Study:
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize" if self.spec.maximize else "minimize",
            pruner=_pruner(self.spec.early),
            load_if_exists=True,
        )
        before = study.user_attrs.get("fingerprint", fingerprint)
        if before != fingerprint or study.direction != _direction(self.spec):
            raise SweepError(
                f"{self.folder} holds another sweep named {name} (its file, seed or overrides have changed since): "
                "give name=... for this one, or delete that folder"
            )
        study.set_user_attr("fingerprint", fingerprint)
        return study

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other runner of this machine takes the same trials; raises `SweepError` if one does."""
        lock = FileLock(self.folder / f".{HOST}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise SweepError(f"{self.folder} is being run on this machine; jobs=N runs N trials at once") from error
        try:
            yield
        finally:
            lock.release()

    # --- which trials there are ----------------------------------------------------------------------------------

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials; of one that was tried again, the newest attempt."""
        found = self.study.get_trials(deepcopy=False)
        again = {trial.user_attrs.get("retries") for trial in found}
        return [trial for trial in found if trial.number not in again]

    def left(self) -> int:
        """How many trials have not begun."""
        trials = self.trials
        return self.total - sum(trial.state != TrialState.WAITING for trial in trials)

    def interrupted(self, adopt: bool = False) -> list[Trial]:
        """Trials that began and did not end: of this machine's earlier runner, or with `adopt` of any."""
        running = [trial for trial in self.trials if trial.state == TrialState.RUNNING]
        mine = [trial for trial in running if adopt or trial.user_attrs.get("host", HOST) == HOST]
        return [self._own(self._handle(trial)) for trial in mine]

    def retry(self) -> None:
        """Let trials that failed be tried again, each where it stopped."""
        with self._asking:
            for trial in self.trials:
                if trial.state == TrialState.FAIL:
                    attributes = {"retries": trial.number, "label": label(trial)}
                    self.study.enqueue_trial(trial.params, user_attrs=attributes)

    # --- one trial ------------------------------------------------------------------------------------------------

    def ask(self) -> Trial | None:
        """Begin a trial; None if all have begun."""
        with self._asking:
            if self.left() < 1:
                return None
            self.study.sampler = self._sampler(len(self.study.get_trials(deepcopy=False)))
            return self._own(self.study.ask())

    def _handle(self, trial: FrozenTrial) -> Trial:
        """Of a trial that began: what it had not drawn when it was stopped, it draws as it would have."""
        self.study.sampler = self._sampler(trial.number)
        return Trial(self.study, trial._trial_id)

    def _own(self, trial: Trial) -> Trial:
        trial.set_user_attr("host", HOST)
        for key, parameter in self.spec.parameters.items():
            _suggest(trial, key, parameter)  # what is drawn already stays
        return trial

    def row(self, trial: Trial | FrozenTrial) -> dict[str, str]:
        """The overrides of a trial, in the file's order."""
        return {key: self._spell(key, trial.params[key]) for key in self.spec.parameters if key in trial.params}

    def report(self, trial: Trial, curve: Sequence[float]) -> bool:
        """Tell the metric at every evaluation so far; True if the trial is a loser by one that was not told yet."""
        known = len(self._frozen(trial).intermediate_values)
        for step, value in enumerate(curve[known:], known + 1):
            trial.report(value, step)
            if self.spec.early and trial.should_prune():
                return True
        return False

    def tell(self, trial: Trial, value: float | None = None, reason: str | None = None, **facts: Any) -> None:
        """End a trial: with its metric; without, it was pruned, or failed for a reason."""
        if reason is not None:
            trial.set_user_attr("reason", reason)
        for key, fact in facts.items():
            trial.set_user_attr(key, fact)
        state = TrialState.COMPLETE if value is not None else TrialState.FAIL if reason else TrialState.PRUNED
        # An own trial is told by its number: Optuna's handle may be of an earlier session.
        self.study.tell(trial.number, value, state=state)

    def best(self) -> FrozenTrial | None:
        """The best finished trial; of equals, the first."""
        done = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        sign = -1 if self.spec.maximize else 1
        return min(done, key=lambda trial: sign * trial.value, default=None)  # type: ignore[operator]

    def _frozen(self, trial: Trial) -> FrozenTrial:
        return self.study._storage.get_trial(trial._trial_id)

    def _spell(self, key: str, value: Any) -> str:
        parameter = self.spec.parameters[key]
        return value if isinstance(parameter, Choice) else parameter.spell(value)

    def _sampler(self, number: int) -> BaseSampler:
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        if self.spec.method == "grid":
            return Rows(self.grid)
        if self.spec.method == "random":
            return RandomSampler(seed=seed)
        # As at W&B, a Gaussian process; but it would not know of pruned trials, and draw their like again.
        return TPESampler(seed=seed) if self.spec.early else GPSampler(seed=seed)


def label(trial: Trial | FrozenTrial) -> str:
    """A trial's name within its sweep, and of its folder: its number; of another attempt, the first's."""
    return trial.user_attrs.get("label", f"trial-{trial.number}")


class KernelLock:
    """A lock for Optuna's journal that the system releases when its holder is killed (Optuna's own stays 30 s)."""

    def __init__(self, path: Path) -> None:
        self.lock = FileLock(path)

    def acquire(self) -> bool:
        """Wait for it."""
        self.lock.acquire()
        return True

    def release(self) -> None:
        """Let the next one in."""
        self.lock.release()


def _storage(folder: Path, url: str | None) -> BaseStorage:
    if url:
        return optuna.storages.get_storage(url)
    path, lock = folder / "study.journal", KernelLock(folder / ".journal.lock")
    with lock.lock:
        _cut_half_line(path)
    return JournalStorage(JournalFileBackend(str(path), lock))  # type: ignore[arg-type]


def _cut_half_line(path: Path) -> None:
    """Remove what a power cut left at the end of a journal: the next line would be glued to it."""
    if path.exists() and (text := path.read_bytes()) and not text.endswith(b"\n"):
        os.truncate(path, text.rfind(b"\n") + 1)


def _suggest(trial: Trial, key: str, parameter: Choice | Range) -> None:
    if isinstance(parameter, Choice):
        trial.suggest_categorical(key, parameter.values)
    elif parameter.integer and not parameter.log and parameter.quantum <= 1:
        trial.suggest_int(key, round(parameter.low), round(parameter.high))
    else:
        trial.suggest_float(key, parameter.low, parameter.high, log=parameter.log)


def _pruner(early: Early | None) -> BasePruner:
    """W&B's hyperband, brackets that each trial passes from the first on, is Optuna's successive halving."""
    return NopPruner() if early is None else SuccessiveHalvingPruner(early.min_iter, early.eta)


def _direction(spec: Spec) -> StudyDirection:
    return StudyDirection.MAXIMIZE if spec.maximize else StudyDirection.MINIMIZE


def _decides(spec: Spec) -> Any:
    """All of a sweep but how far it goes."""
    return json.loads(json.dumps({key: value for key, value in vars(spec).items() if key != "run_cap"}, default=vars))
