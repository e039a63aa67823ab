"""Optuna's memory of a sweep, on disk: every trial, what it drew and how it ended, through any kill.

What trial k draws is a function of the seed, k and the results known when it began, never of how often the sweep was
stopped. With one job, the same seed gives the same trials. k is a trial's index: Optuna's number without the retries
before it, for a trial that is tried again keeps the index, and so the folder, of the first attempt.
"""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from fitdiff.config import config_hash
from fitdiff.sweep.journal import open_storage
from fitdiff.sweep.programs import decisive
from fitdiff.sweep.spec import Choice, Early, Range, Spec, SweepError

HOST = socket.gethostname()

SEED = "seed"
"""The parameter that is repetition and no choice: trials that differ by it alone are one candidate."""


@dataclass(frozen=True)
class Candidate:
    """One choice of the parameters: its finished trials, one a seed, and the mean of their metric."""

    trials: list[FrozenTrial]
    overrides: dict[str, str]
    value: float


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
        return self.rows[index(trial) % len(self.rows)][param_name]


class SweepStudy:
    """The trials of a sweep.

    Args:
        spec: what is swept. name: of the study. folder: of the sweep; holds the journal unless `storage`, an Optuna URL
            that several machines share, is given. seed: of all draws. cap: trials at most; None is the whole grid.
        overrides: further ones of every trial. results: the folder of all trials'.

    Raises:
        SweepError: the folder or storage holds another sweep of that name, whose trials had other results, or there is
            no `cap` where trials have no end.
    """

    def __init__(
        self,
        spec: Spec,
        name: str,
        folder: Path,
        storage: str | None,
        seed: int,
        cap: int | None,
        overrides: Sequence[str],
        results: Path,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.spec, self.seed, self.folder = spec, seed, folder
        self.grid = spec.rows() if spec.method == "grid" else []
        if not self.grid and not cap:
            raise SweepError(f"method: {spec.method} has no end: set run_cap in the file, or give trials=N")
        self.total = min(cap or len(self.grid), len(self.grid) or cap or 0)
        folder.mkdir(parents=True, exist_ok=True)
        self.asking = FileLock(folder / ".ask.lock")
        fingerprint = config_hash(_decides(spec, overrides), seed)
        with self.asking:
            self.study = self._open(name, open_storage(folder, storage))
            before = self.study.user_attrs.get("fingerprint", fingerprint)
            self.study.set_user_attr("fingerprint", before)
        if before != fingerprint or self.study.direction != _direction(spec):
            memory = f"the study {name} of the storage (optuna delete-study)" if storage else folder
            raise SweepError(
                f"{memory} holds another sweep named {name} (its file, seed or overrides have changed since): give "
                f"name=... for this one, or delete that one: {memory}, and its results, {results}"
            )

    def _open(self, name: str, storage: BaseStorage) -> Study:
        return optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize" if self.spec.maximize else "minimize",
            pruner=_pruner(self.spec.early),
            load_if_exists=True,
        )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other runner of this machine takes the same trials; raises `SweepError` if one does."""
        lock = self._runner_lock(HOST)
        try:
            lock.acquire(timeout=0.2)  # another machine may be looking whether this one is at work
        except Timeout as error:
            raise SweepError(f"{self.folder} is being run on this machine; jobs=N runs N trials at once") from error
        try:
            yield
        finally:
            lock.release()

    def _runner_lock(self, host: str) -> FileLock:
        return FileLock(self.folder / f".{host}.lock")

    def _at_work(self, host: str) -> bool:
        """Whether a runner of that machine is at work in this folder."""
        lock = self._runner_lock(host)
        if not Path(lock.lock_file).exists():
            return False
        try:
            with lock.acquire(blocking=False):
                return False
        except Timeout:
            return True

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
        mine = [trial for trial in self._running() if adopt or _host(trial) == HOST]
        return [self._own(self._handle(trial)) for trial in mine]

    def under_way(self) -> list[FrozenTrial]:
        """Trials that runners at work have begun, here or on machines that share the folder."""
        running = self._running()
        at_work = {host for host in map(_host, running) if self._at_work(host)}
        return [trial for trial in running if _host(trial) in at_work]

    def left_elsewhere(self) -> Counter[str]:
        """How many trials other machines began, of whose runners nothing is seen here, by machine."""
        seen = {trial.number for trial in self.under_way()}
        return Counter(_host(t) for t in self._running() if _host(t) != HOST and t.number not in seen)

    def _running(self) -> list[FrozenTrial]:
        return [trial for trial in self.trials if trial.state == TrialState.RUNNING]

    def retry(self) -> None:
        """Let trials that failed be tried again, each where it stopped."""
        with self.asking:
            for trial in self.trials:
                if trial.state == TrialState.FAIL:
                    attributes = {"retries": trial.number, "index": index(trial)}
                    self.study.enqueue_trial(trial.params, user_attrs=attributes)

    # --- one trial ------------------------------------------------------------------------------------------------

    def ask(self) -> Trial | None:
        """Begin a trial; None if all have begun."""
        with self.asking:
            if self.left() < 1:
                return None
            self.study.sampler = self._sampler(self._index(len(self.study.get_trials(deepcopy=False))))
            return self._own(self.study.ask())

    def _handle(self, trial: FrozenTrial) -> Trial:
        """Of a trial that began: what it had not drawn when it was stopped, it draws as it would have."""
        self.study.sampler = self._sampler(self._index(trial.number))
        return Trial(self.study, trial._trial_id)

    def _own(self, trial: Trial) -> Trial:
        trial.set_user_attr("host", HOST)
        if "index" not in trial.user_attrs:
            trial.set_user_attr("index", self._index(trial.number))
        for key, parameter in self.spec.parameters.items():
            _suggest(trial, key, parameter)  # what is drawn already stays
        return trial

    def _index(self, number: int) -> int:
        """Of a first attempt with Optuna's number: how many such are before it."""
        found = self.study.get_trials(deepcopy=False)
        return sum("retries" not in trial.user_attrs for trial in found if trial.number < number)

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

    def best(self) -> Candidate | None:
        """The best of those whose metric is a mean over most seeds, which for one would be luck; of equals, the first.

        Without a parameter `seed`, each finished trial is a candidate.
        """
        found = self._candidates()
        most = max((len(one.trials) for one in found), default=0)
        sign = -1 if self.spec.maximize else 1
        return min((c for c in found if len(c.trials) == most), key=lambda c: sign * c.value, default=None)

    def _candidates(self) -> list[Candidate]:
        alike: dict[Any, list[FrozenTrial]] = {}
        for trial in self.trials:
            if trial.state == TrialState.COMPLETE:
                key = tuple(self.choices(trial).values()) if SEED in self.spec.parameters else trial.number
                alike.setdefault(key, []).append(trial)
        return [
            Candidate(trials, self.choices(trials[0]), float(np.mean([trial.value for trial in trials])))
            for trials in alike.values()
        ]

    def choices(self, trial: FrozenTrial) -> dict[str, str]:
        """The overrides of a trial, without its seed."""
        return {key: value for key, value in self.row(trial).items() if key != SEED}

    def _frozen(self, trial: Trial) -> FrozenTrial:
        return self.study._storage.get_trial(trial._trial_id)

    def _spell(self, key: str, value: Any) -> str:
        parameter = self.spec.parameters[key]
        return value if isinstance(parameter, Choice) else parameter.spell(value)

    def _sampler(self, k: int) -> BaseSampler:
        seed = int(np.random.SeedSequence([self.seed, k]).generate_state(1)[0])
        if self.spec.method == "grid":
            return Rows(self.grid)
        if self.spec.method == "random":
            return RandomSampler(seed=seed)
        # As at W&B, a Gaussian process; but it would not know of pruned trials, and draw their like again.
        return TPESampler(seed=seed) if self.spec.early else GPSampler(seed=seed)


def index(trial: Trial | FrozenTrial) -> int:
    """Of a trial, from 0: in a grid, its row; of another attempt, the first's."""
    return trial.user_attrs.get("index", trial.number)  # has none for an instant at its very beginning


def label(trial: Trial | FrozenTrial) -> str:
    """A trial's name within its sweep, and of its folder."""
    return f"trial-{index(trial)}"


def _host(trial: FrozenTrial) -> str:
    return trial.user_attrs.get("host", HOST)


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


def _decides(spec: Spec, overrides: Sequence[str]) -> Any:
    """All of a sweep that decides its trials' results, but how far it goes."""
    words = {key: decisive(spec.program, value) for key, value in (("command", spec.command), ("overrides", overrides))}
    parts = {key: value for key, value in vars(spec).items() if key != "run_cap"}
    return json.loads(json.dumps(parts | words, default=vars))
