"""Experiment trackers: one run over all phases and sittings, with its hyper-parameters and final metrics once."""

import csv
import os
import secrets
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from skinlesion.config.train import TrainConfig
from skinlesion.errors import CheckpointError, ConfigError
from skinlesion.files import read_json, write_json

_PROJECT = "skinlesion"  # of W&B, and experiment of MLflow, unless their environment variables name another
_IDS = "tracking.json"  # the ids by which trackers know the run, for its next sitting


def check_loggers(names: Sequence[str]) -> None:
    """Refuse now, not after the data have been read, a tracker whose package is not installed.

    Raises:
        ConfigError: It names the extra.
    """
    for name in names:
        if name in ("tensorboard", "wandb", "mlflow") and find_spec(name) is None:
            raise ConfigError(f"logger={name}: is not installed; pip install 'skinlesion[{name}]'")


@contextmanager
def open_loggers(config: TrainConfig, folder: Path, *, is_first: bool, step: int) -> Iterator[list[Logger]]:
    """Open the run's trackers, those of an earlier sitting again, and close them however the training ends.

    What they were told of steps that a killed run has to make once more stands there once.

    Args:
        config: Its `logger` names them; all of it but the taxonomy is the hyper-parameters.
        folder: Of the run.
        is_first: Whether this is the first of the processes that train together, which alone writes.
        step: Optimizer steps so far, in all phases.

    Raises:
        ConfigError: A tracker refuses, such as W&B without a login.
    """
    path = folder / _IDS
    known = read_json(path, dict[str, str], error=CheckpointError, advice="delete it") if path.exists() else {}
    ids = {"wandb": secrets.token_hex(4), **known}
    loggers: list[Logger] = []
    status = "failed"
    try:
        loggers.extend(_BUILDERS[name](folder, ids, step) for name in config.loggers)
        if is_first and config.loggers:
            hyper_parameters = {key: value for key, value in asdict(config).items() if key != "taxonomy"}
            for name, logger in zip(config.loggers, loggers, strict=True):
                if name not in known or name == "wandb":  # which writes late, and may have been killed before
                    logger.log_hyperparams(hyper_parameters)
                ids[name] = str(getattr(logger, "run_id", None) or ids.get(name, name))
            write_json(path, {name: ids[name] for name in config.loggers} | known)
        yield loggers
        status = "finished"
    finally:
        for logger in loggers:
            logger.finalize(status)
        if "wandb" in config.loggers:
            import wandb

            wandb.finish(exit_code=int(status == "failed"))  # the next member of a sweep would write to this run


def log_final(loggers: Sequence[Logger], measured: Mapping[str, Mapping[str, float]], *, step: int) -> None:
    """Log the metrics of the best checkpoint as `final/PART/METRIC`.

    Args:
        loggers: Of the run.
        measured: Metrics of each judged part.
        step: Optimizer steps of all phases.
    """
    final = {f"final/{part}/{name}": value for part, each in measured.items() for name, value in each.items()}
    for logger in loggers:
        logger.log_metrics(final, step=step)
        logger.save()


def _tensorboard(folder: Path, ids: Mapping[str, str], step: int) -> Logger:
    return TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False, purge_step=step)


def _csv(folder: Path, ids: Mapping[str, str], step: int) -> Logger:
    """Lightning's logger, which would delete the file of an earlier sitting."""
    logger = CSVLogger(folder, name="csv", version="")
    path = folder / "csv" / "metrics.csv"
    before = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*exists and is not empty.*")
        experiment: Any = logger.experiment
    rows = [row for row in csv.DictReader(before) if int(row["step"]) < step]
    if rows:
        experiment.metrics_keys, experiment.metrics = [*rows[0]], rows
        experiment.save()
    return logger


class _Once(Logger):
    """A tracker from which nothing can be taken back, and which is told nothing twice."""

    told_file: Path
    """A line for each time it was told something: step and digest of the metrics' names."""

    @cached_property
    def told_before(self) -> set[str]:
        """The lines of earlier sittings."""
        return {*self.told_file.read_text(encoding="utf-8").splitlines()} if self.told_file.exists() else set()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Tell it what an earlier sitting has not."""
        line = f"{step} {zlib.crc32(repr(sorted(metrics)).encode()):08x}"
        if line not in self.told_before:
            super().log_metrics(dict(metrics), step)  # type: ignore[safe-super]
            with self.told_file.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")


class _Wandb(_Once, WandbLogger):
    pass


class _Mlflow(_Once, MLFlowLogger):
    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """End the run, but not with each phase."""
        if status != "success":
            super().finalize(status)


def _wandb(folder: Path, ids: Mapping[str, str], step: int) -> Logger:
    project = os.environ.get("WANDB_PROJECT", _PROJECT)
    with _refusals("wandb", "log in, or set WANDB_MODE=offline"):
        logger = _Wandb(folder.name, save_dir=folder, project=project, id=ids["wandb"], resume="allow")
        logger.told_file = folder / "tracking.wandb.txt"
        logger.experiment  # noqa: B018  # logs in
    return logger


def _mlflow(folder: Path, ids: Mapping[str, str], step: int) -> Logger:
    place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.absolute() / 'mlflow.db'}"
    experiment, run = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT), ids.get("mlflow")
    with _refusals("mlflow", f"MLFLOW_TRACKING_URI is {place}"):
        logger = _Mlflow(experiment, run_name=folder.name, tracking_uri=place, run_id=run)
        logger.told_file = folder / "tracking.mlflow.txt"
        client = logger.experiment  # finds its server
        if run is not None:
            client.update_run(run, status="RUNNING")  # again
    return logger


@contextmanager
def _refusals(name: str, advice: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # trackers raise errors of many kinds
        raise ConfigError(f"logger={name}: {' '.join(str(error).split())[:300]}; {advice}") from error


_BUILDERS: dict[str, Callable[[Path, Mapping[str, str], int], Logger]] = {
    "tensorboard": _tensorboard,
    "csv": _csv,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
