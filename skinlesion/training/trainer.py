"""Lightning's Trainer of a phase: the configuration's arguments and callbacks, and what phases need."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from lightning import Callback, Trainer
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import (
    DeviceStatsMonitor,
    EarlyStopping,
    LearningRateMonitor,
    ProgressBar,
    RichProgressBar,
)
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler

from skinlesion.config.train import PhaseConfig, TrainConfig
from skinlesion.errors import ConfigError
from skinlesion.training.callbacks import MEASURED, SameBatches
from skinlesion.training.checkpoint import AtomicCheckpointIO

_OUR_OWN = {
    "fast_dev_run",
    "max_time",
    "overfit_batches",
    "profiler",
}  # keys of trainer that Lightning's Trainer is not given
_PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}


def make_trainer(
    config: TrainConfig,
    folder: Path,
    *,
    name: str,
    phase: PhaseConfig,
    callbacks: list[Callback],
    loggers: Sequence[Logger] = (),
) -> Trainer:
    """Make a Lightning Trainer for one phase.

    Args:
        config: Its trainer and callbacks are used.
        folder: Of the run.
        name: Of the phase.
        phase: Its epochs are used.
        callbacks: Besides the user's, the progress bar and the monitor of learning rates.
        loggers: Lightning's.

    Raises:
        ConfigError: Lightning refuses the arguments, or a callback cannot be made.
    """
    own = [_callback(spec, has_logger=bool(config.loggers)) for spec in config.callback_specs()]
    bar = [RichProgressBar(console_kwargs={"stderr": True})] if shows_bar(config) else []
    bar = [] if any(isinstance(each, ProgressBar) for each in own) else bar
    wants_rates = loggers and not any(isinstance(each, LearningRateMonitor) for each in own)
    monitor = [LearningRateMonitor("epoch")] if wants_rates else []
    profiler = config.trainer.profiler and _PROFILERS[config.trainer.profiler](folder / "profile", name)
    given = {key: value for key, value in asdict(config.trainer).items() if value is not None and key not in _OUR_OWN}
    if few := config.trainer.overfit_batches:
        given |= {"limit_train_batches": few, **({"limit_val_batches": few} if isinstance(few, int) else {})}
        own.append(SameBatches())
    try:
        return Trainer(
            **{**given, "enable_progress_bar": shows_bar(config)},
            max_epochs=phase.epochs,
            callbacks=[*callbacks, *monitor, *bar, *own],
            logger=list(loggers),
            profiler=profiler,
            default_root_dir=folder,
            plugins=[AtomicCheckpointIO(), *_environment()],
            enable_model_summary=False,
            enable_autolog_hparams=False,  # logged once, of all phases
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # the samplers know their share
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError, ImportError) as error:
        raise ConfigError(f"trainer: Lightning refuses it: {str(error).splitlines()[0]}") from error


def _callback(spec: dict[str, Any], *, has_logger: bool) -> Callback:
    """Make a callback of the user's."""
    try:
        made = instantiate(spec)
    except Exception as error:  # a class of the user's may raise anything
        reason: BaseException = error
        while reason.__cause__ is not None:  # Hydra's own words tell less
            reason = reason.__cause__
        raise ConfigError(f"callbacks: {spec['_target_']}: {' '.join(str(reason).split())}") from error
    if not isinstance(made, Callback):
        raise ConfigError(f"callbacks: {spec['_target_']}: expected a lightning.pytorch.Callback")
    if type(made) is EarlyStopping and made.monitor == "val/loss":
        raise ConfigError(
            "callbacks: EarlyStopping: phases stop by val/loss already: give schedule.phases.NAME.patience"
        )
    if isinstance(made, DeviceStatsMonitor | LearningRateMonitor) and not has_logger:
        raise ConfigError(f"callbacks: {spec['_target_']}: has nothing to write to with logger=none; give logger=csv")
    monitor, is_own = getattr(made, "monitor", None), not type(made).__module__.startswith("lightning.")
    if monitor is not None and monitor not in MEASURED and not is_own:  # which may log what it monitors
        raise ConfigError(f"callbacks: {spec['_target_']}: monitor={monitor}: expected one of {', '.join(MEASURED)}")
    return made


def _environment() -> list[ClusterEnvironment]:
    """Slurm's, without Lightning's own checkpoint at USR1, which later fits in the same folder would load."""
    is_slurm = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return [SLURMEnvironment(auto_requeue=False)] if is_slurm else []


def shows_bar(config: TrainConfig) -> bool:
    """Whether a progress bar is wanted and there is a terminal for it."""
    return config.trainer.enable_progress_bar and sys.stderr.isatty()
