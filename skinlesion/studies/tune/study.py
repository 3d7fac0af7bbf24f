"""A study in a storage that several workers share: each trial has one worker at a time, and is taken up when it ends.

The worker of a trial holds a lock on the trial's folder. The system frees it when the worker ends, however that came
about, so that a running trial whose folder is free is one to go on with.
"""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from skinlesion.errors import ConfigError
from skinlesion.studies.tune.space import Dimension

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.pruners import BasePruner

log = logging.getLogger(__name__)

_SETTINGS = "settings"  # attribute of a study: what it searches
_WAIT = 60  # seconds at most for another worker's look at the study


class SharedStudy:
    """An Optuna study and the folder of its trials.

    Args:
        out: The folder.
        settings: What the study searches, as plain data: another study in the same place is refused.
        storage: sqlite or journal, for a file in the folder; or a database's URL.
        name: Of the study.
        maximize: Whether more is better.
        seed: Of the search.
        startup: Trials that are drawn at random.
        pruner: As from `make_pruner`.

    Raises:
        ConfigError: Optuna is not installed, the storage cannot be used, or it holds another study.
    """

    def __init__(
        self,
        out: Path,
        settings: Mapping[str, Any],
        *,
        storage: str,
        name: str,
        maximize: bool,
        seed: int,
        startup: int,
        pruner: "BasePruner",
    ) -> None:
        self.out, self.seed, self.startup = out, seed, startup
        out.mkdir(parents=True, exist_ok=True)
        with self._alone():
            self.study = _open(storage, out, name=name, maximize=maximize, pruner=pruner)
            known, given = self.study.user_attrs.get(_SETTINGS), json.loads(json.dumps(settings))
            if known is None and not self.study.trials:
                self.study.set_user_attr(_SETTINGS, given)
            elif known != given:
                raise ConfigError(
                    f"out={out}: holds another study, {_difference(known, given)}; give another out or study"
                )

    def folder(self, number: int) -> Path:
        """The folder of a trial."""
        return self.out / f"trial-{number:03d}"

    @contextmanager
    def next_trial(self, space: Sequence[Dimension], *, trials: int) -> "Iterator[tuple[Trial, list[str]] | None]":
        """Hold a trial: one whose worker has ended, else a new one. None: all are finished or have a worker.

        Args:
            space: What the trial's overrides are drawn from.
            trials: Trials of the study at most.

        Yields:
            The trial and its overrides of `train`.
        """
        with self._alone():
            trial, lock = self._abandoned() or self._new(trials)
            drawn = [] if trial is None else [f"{each.key}={each.suggest(trial)}" for each in space]
        try:
            yield None if trial is None else (trial, drawn)
        finally:
            if lock is not None:
                lock.release()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other workers from asking and reading meanwhile."""
        lock = FileLock(self.out / ".lock", timeout=_WAIT)
        try:
            lock.acquire()
        except Timeout:
            raise ConfigError(f"out={self.out}: another worker has held .lock for {_WAIT} s; is it stopped?") from None
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def reading(self) -> "Iterator[Study]":
        """Hold the study for a moment, so that what is read and written of it goes together."""
        with self._alone():
            yield self.study

    def _abandoned(self) -> "tuple[Trial, FileLock] | None":
        from optuna.trial import Trial, TrialState

        for frozen in self.study.get_trials(states=(TrialState.RUNNING,)):
            if (lock := self._hold(frozen.number)) is not None:
                log.info("%s: its worker has ended; going on with it", self.folder(frozen.number).name)
                return Trial(self.study, frozen._trial_id), lock
        return None

    def _new(self, trials: int) -> "tuple[Trial | None, FileLock | None]":
        from optuna.samplers import TPESampler

        count = len(self.study.get_trials(deepcopy=False))
        if count >= trials:
            return None, None
        seed = int(np.random.SeedSequence((self.seed, count)).generate_state(1)[0])  # no two workers draw alike
        self.study.sampler = TPESampler(seed=seed, n_startup_trials=self.startup)
        trial = self.study.ask()
        return trial, self._hold(trial.number)

    def _hold(self, number: int) -> FileLock | None:
        folder = self.folder(number)
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder / ".worker.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock


def make_pruner(name: str, *, startup: int, warmup: int) -> "BasePruner":
    """Optuna's pruner: "median", "hyperband" or "none".

    Args:
        name: Of the pruner.
        startup: Trials that are not pruned, at the beginning.
        warmup: Epochs of a trial before it may be pruned.

    Raises:
        ConfigError: Optuna is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed: pip install 'skinlesion[optuna]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup)
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=max(warmup, 1))
    return optuna.pruners.NopPruner()


def _open(storage: str, out: Path, *, name: str, maximize: bool, pruner: "BasePruner") -> "Study":
    import optuna
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.study import StudyDirection

    try:
        place: Any = storage
        if storage == "sqlite":
            wait = {"connect_args": {"timeout": _WAIT}}  # other workers write too
            place = RDBStorage(f"sqlite:///{(out / 'study.db').resolve()}", engine_kwargs=wait)
        elif storage == "journal":
            place = JournalStorage(JournalFileBackend(str(out / "journal.log")))
        direction = StudyDirection.MAXIMIZE if maximize else StudyDirection.MINIMIZE
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of experimental parts
            return optuna.create_study(
                storage=place, study_name=name, load_if_exists=True, direction=direction, pruner=pruner
            )
    except Exception as error:  # a database may raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"storage={storage}: cannot be used ({reason}); give sqlite, journal or a database's URL"
        ) from error


def _difference(known: Any, given: Mapping[str, Any]) -> str:
    if not isinstance(known, dict):
        return "made by another program"
    key = next(key for key in {**known, **given} if known.get(key) != given.get(key))
    return f"of {key}={known.get(key)}, not {given.get(key)}"
