"""Experiment trackers: one run over all phases and sittings, with its hyper-parameters and final metrics once."""

import os
import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

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
def open_loggers(config: TrainConfig, folder: Path, *, is_first: bool) -> Iterator[list[Logger]]:
    """Open the run's trackers, those of an earlier sitting again, and close them however the training ends.

    Args:
        config: Its `logger` names them; all of it but the taxonomy is the hyper-parameters.
        folder: Of the run.
        is_first: Whether this is the first of the processes that train together, which alone writes.

    Raises:
        ConfigError: A tracker refuses, such as W&B without a login.
    """
    path = folder / _IDS
    known = read_json(path, dict[str, str], error=CheckpointError, advice="delete it") if path.exists() else {}
    ids = {"wandb": secrets.token_hex(4), **known}
    try:
        loggers = [_BUILDERS[name](folder, ids) for name in config.loggers]
        if is_first and config.loggers:
            hyper_parameters = {key: value for key, value in asdict(config).items() if key != "taxonomy"}
            for name, logger in zip(config.loggers, loggers, strict=True):
                if name not in known:
                    logger.log_hyperparams(hyper_parameters)
                ids[name] = str(getattr(logger, "run_id", None) or ids.get(name, name))
            write_json(path, {name: ids[name] for name in config.loggers} | known)
        yield loggers
    finally:
        if "wandb" in config.loggers:
            import wandb

            wandb.finish()  # the next member of a sweep would write to this one's run


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
        logger.finalize("success")


def _tensorboard(folder: Path, ids: Mapping[str, str]) -> Logger:
    return TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)


def _csv(folder: Path, ids: Mapping[str, str]) -> Logger:
    """Lightning's logger, which would delete the file of an earlier sitting."""
    logger = CSVLogger(folder, name="csv", version="")
    path = folder / "csv" / "metrics.csv"
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*exists and is not empty.*")
        experiment: Any = logger.experiment
    if before:
        path.write_text(before, encoding="utf-8")
        experiment.metrics_keys = before.partition("\n")[0].strip().split(",")
    return logger


def _wandb(folder: Path, ids: Mapping[str, str]) -> Logger:
    project = os.environ.get("WANDB_PROJECT", _PROJECT)
    with _refusals("wandb", "log in, or set WANDB_MODE=offline"):
        logger = WandbLogger(folder.name, save_dir=folder, project=project, id=ids["wandb"], resume="allow")
        logger.experiment  # noqa: B018  # logs in
    return logger


def _mlflow(folder: Path, ids: Mapping[str, str]) -> Logger:
    place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.absolute() / 'mlflow.db'}"
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
    with _refusals("mlflow", f"MLFLOW_TRACKING_URI is {place}"):
        logger = MLFlowLogger(experiment, run_name=folder.name, tracking_uri=place, run_id=ids.get("mlflow"))
        logger.experiment  # noqa: B018  # finds its server
    return logger


@contextmanager
def _refusals(name: str, advice: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # trackers raise errors of many kinds
        raise ConfigError(f"logger={name}: {' '.join(str(error).split())[:300]}; {advice}") from error


_BUILDERS: dict[str, Callable[[Path, Mapping[str, str]], Logger]] = {
    "tensorboard": _tensorboard,
    "csv": _csv,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
