"""Training in phases: successive fits, each from the best weights so far, each of which can be killed and resumed.

Lightning's BackboneFinetuning is not used: it freezes again on resume and leaves batch norm training while frozen.
"""

import hashlib
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import Logger

from skinlesion.config.train import PhaseConfig, TrainConfig, TrainerConfig
from skinlesion.data.datamodule import LesionDataModule, Part
from skinlesion.data.metadata import MetadataEncoder
from skinlesion.data.splits import fingerprint
from skinlesion.errors import CheckpointError, ConfigError, TimeLimitError, counted
from skinlesion.files import replacing, write_json
from skinlesion.training.callbacks import (
    EpochSeed,
    ExponentialMovingAverage,
    History,
    LastCheckpoint,
    PhaseCheckpoint,
    RunRecord,
    TimeLimit,
    write_history,
)
from skinlesion.training.checkpoint import read_checkpoint
from skinlesion.training.feature_cache import FeatureStore, weights_digest
from skinlesion.training.module import LesionClassifier
from skinlesion.training.run_folder import (
    PhaseResult,
    best_checkpoint,
    phases_folder,
    read_results,
    write_results,
)
from skinlesion.training.trainer import make_trainer, shows_bar

log = logging.getLogger(__name__)

_INPUTS = {
    "images": "the images",
    "diagnoses": "the diagnoses",
    "class_counts": "the diagnoses",
    "facts": "age, sex or localization",
    "encoder": "age, sex or localization",
    "fingerprint": "the split",
    "weights": "the weights that model.pretrained gives",
}


def run_phases(
    module: LesionClassifier,
    datamodule: LesionDataModule,
    *,
    config: TrainConfig,
    folder: Path,
    fabric: Fabric,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
) -> list[PhaseResult]:
    """Run the phases that have not run yet, and write best.ckpt, metrics.csv and layer_state.json.

    All processes that train together run it; the first one writes.

    Args:
        module: Takes each phase's weights, and holds the best ones in the end.
        datamodule: Gives images, or their cached feature maps where the backbone is frozen.
        config: Its schedule, trainer, logger and seed are used.
        folder: Of the run; an interrupted run in it is resumed.
        fabric: Tells the processes apart.
        loggers: Lightning's, which log all phases as one run.
        callbacks: Of the caller, in each phase behind our own.

    Raises:
        CheckpointError: The data have changed since the run in the folder began.
        ConfigError: A phase diverges.
        TimeLimitError: trainer.max_time has passed.
    """
    results, inputs = read_results(folder, list(config.schedule.phases)), run_inputs(module, datamodule)
    if fabric.is_global_zero and (reached := last_epoch(folder)):
        log.info("%s: resuming after %s", folder, reached)
    if (folder / "last.ckpt").exists():
        refuse_changed_inputs(inputs, folder / "last.ckpt")
    record = {**datamodule.record(), "inputs": inputs, "config": asdict(config)}
    fabric.barrier()  # all have read the folder before the first one writes
    limit = TimeLimit(config.trainer.seconds)
    for place, (name, phase) in enumerate(list(config.schedule.phases.items())[len(results) :]):
        if results:
            _load(module, best_checkpoint(results, folder))
        if place > 0 and fabric.broadcast(limit.is_over):
            raise _time_up(folder)
        own = [limit, *_callbacks(record, name, phase, config=config, folder=folder, before=results), *callbacks]
        trainer = make_trainer(config, folder, name=name, phase=phase, callbacks=own, loggers=loggers)
        made = _run_phase(module, datamodule, name, phase, trainer, limit=limit, folder=folder, before=results)
        results.append(made)
        if fabric.is_global_zero:
            write_results(results, folder)
        epochs = len(results[-1].rows) - (len(results[-2].rows) if len(results) > 1 else 0)
        best = results[-1].macro_f1
        log.info("%s: phase %s, %s, best val macro-F1 %.3f", folder.name, name, counted(epochs, "epoch"), best)
    best_path = best_checkpoint(results, folder)
    _load(module, best_path)
    if fabric.is_global_zero:
        with replacing(folder / "best.ckpt") as beside:
            shutil.copyfile(best_path, beside)
        write_history(results[-1].rows, folder / "metrics.csv")
        write_json(folder / "layer_state.json", {each.phase: {"head": True, **each.trainable} for each in results})
    return results


def run_inputs(module: LesionClassifier, datamodule: LesionDataModule) -> dict[str, Any]:
    """What a run is made from beside its configuration, as plain data: a resumed run must find the same.

    Args:
        module: As it is before any training.
        datamodule: Its table is read.
    """
    frame = datamodule.frame

    def digest(*columns: str) -> str:
        rows = zip(*(frame[column].tolist() for column in ("image_id", *columns)), strict=True)
        return hashlib.sha256(repr([*map(list, rows)]).encode()).hexdigest()

    return {
        "images": datamodule.source.key,
        "diagnoses": digest("diagnosis"),
        "facts": digest(*datamodule.encoder.names),
        "fingerprint": fingerprint(datamodule.split),
        "class_counts": module.hparams["class_counts"],
        "encoder": module.hparams["encoder"],
        "weights": weights_digest(module.network.backbone),
    }


def refuse_changed_inputs(inputs: Mapping[str, Any], checkpoint: Path) -> None:
    """Refuse to go on from a checkpoint of a run that was made from something else.

    Args:
        inputs: As from `run_inputs`.
        checkpoint: Of the run. Those of earlier versions note neither images nor weights.

    Raises:
        CheckpointError: It names what has changed.
    """
    record = read_checkpoint(checkpoint)["skinlesion"]
    before = {**record.get("inputs", {}), **record}
    before["encoder"] = MetadataEncoder.from_state(before["encoder"]).state()  # of earlier versions too
    changed = dict.fromkeys(_INPUTS[key] for key in inputs if before.get(key, inputs[key]) != inputs[key])
    if changed:
        raise CheckpointError(
            f"{checkpoint.parent}: {' and '.join(changed)} have changed since this run began; put back what was there, "
            "give another out, or resume=restart to delete the run"
        )


def check_batches(datamodule: LesionDataModule, trainer: TrainerConfig) -> None:
    """Refuse now, not after maps have been computed, a fraction that leaves no batch, or an interval beyond the last.

    Raises:
        ConfigError: It names what fits.
    """
    batches = 0
    parts: dict[str, Part] = {"limit_val_batches": "val", "overfit_batches": "train", "limit_train_batches": "train"}
    for key, part in parts.items():
        share, images = getattr(trainer, key), len(datamodule.part_frame(part))
        batches = math.ceil(images / datamodule.batch_size)
        if isinstance(share, float) and share and share * batches < 1:
            raise ConfigError(
                f"trainer.{key}={share}: less than one batch ({part} has {counted(batches, 'batch')}); give a whole "
                f"number of batches, or {1 / batches:.2g} or more"
            )
    interval, few = trainer.val_check_interval, trainer.overfit_batches or trainer.limit_train_batches
    batches = min(few, batches) if isinstance(few, int) else int(few * batches)
    if isinstance(interval, int) and interval > batches:
        raise ConfigError(
            f"trainer.val_check_interval={interval}: an epoch has {counted(batches, 'batch')}; give as many or fewer"
        )


def check_phases(module: LesionClassifier, config: TrainConfig, folder: Path) -> None:
    """Refuse now, not hours later, a phase that cannot run.

    Raises:
        ConfigError: A stage that is not there, maps that cannot be cached, or a trainer that Lightning refuses.
    """
    for name, phase in config.schedule.phases.items():
        module.start_phase(phase)
        if phase.unfreeze is not None:
            trained = next(leaf for leaf, is_trained in module.network.backbone.trainable().items() if is_trained)
            log.info("phase %s: the backbone is trained from %s on", name, trained)
        if phase.cached_views:
            module.network.backbone.frozen_prefix()  # refuses a place from which the rest cannot run
        every = config.trainer.check_val_every_n_epoch or 1
        if every > phase.epochs:
            raise ConfigError(
                f"trainer.check_val_every_n_epoch={every}: phase {name} ends after {counted(phase.epochs, 'epoch')}"
            )
        make_trainer(config, folder, name=name, phase=phase, callbacks=[])


def _run_phase(
    module: LesionClassifier,
    datamodule: LesionDataModule,
    name: str,
    phase: PhaseConfig,
    trainer: Trainer,
    *,
    limit: TimeLimit,
    folder: Path,
    before: list[PhaseResult],
) -> PhaseResult:
    rows = before[-1].rows if before else []
    module.start_phase(phase)
    last = _last(folder, name, phase)
    if not last.is_complete:
        data = datamodule.continued(first_epoch=len(rows))
        source: dict[str, Any] = {"datamodule": data}
        if phase.cached_views:
            store = FeatureStore(module.network.backbone, data, device=trainer.strategy.root_device)
            source = {"train_dataloaders": store.train_dataloader(phase.cached_views)}
            source["val_dataloaders"] = store.val_dataloader()
        trainer.fit_loop.epoch_loop._batches_that_stepped = last.steps  # the step that loggers are told
        module.train()  # computing feature maps has put the backbone into evaluation mode; its frozen stages stay so
        try:
            trainer.fit(module, **source, ckpt_path=last.resumed, weights_only=True)
        except MisconfigurationException as error:
            raise ConfigError(f"trainer, callbacks: Lightning refuses it: {str(error).splitlines()[0]}") from error
        if limit.has_stopped and not _last(folder, name, phase).is_complete:
            raise _time_up(folder)
    rows_now = _rows(read_checkpoint(folder / "last.ckpt"))
    validated = [row for row in rows_now[len(rows) :] if row["val/loss"] is not None]
    if not math.isfinite(validated[-1]["val/loss"]):
        raise ConfigError(
            f"phase {name} diverged in epoch {validated[-1]['epoch']}: val/loss is {validated[-1]['val/loss']}; "
            f"lower schedule.phases.{name}.lr and start anew with resume=restart"
        )
    macro_f1 = max(row["val/macro_f1"] for row in validated)
    trainable = module.network.backbone.trainable()
    return PhaseResult(name, f"{len(before)}-{name}.ckpt", macro_f1, trainable, rows_now)


def _callbacks(
    record: dict[str, Any],
    name: str,
    phase: PhaseConfig,
    *,
    config: TrainConfig,
    folder: Path,
    before: list[PhaseResult],
) -> list[Callback]:
    rows = before[-1].rows if before else []
    return [
        History(folder / "metrics.csv", phase=name, rows=rows, report=not shows_bar(config)),
        RunRecord(record, phase=name),
        EarlyStopping("val/loss", patience=phase.patience),
        EpochSeed(config.seed, first_epoch=len(rows)),
        *([ExponentialMovingAverage(phase.ema_decay)] if phase.ema_decay else []),
        PhaseCheckpoint(phases_folder(folder), filename=f"{len(before)}-{name}"),
        LastCheckpoint(folder),
    ]


def last_epoch(folder: Path) -> str | None:
    """Phase and epoch of a run's last.ckpt, for people, from which it resumes; None: no epoch has ended."""
    if not (folder / "last.ckpt").exists():
        return None
    phases = [row["phase"] for row in _rows(read_checkpoint(folder / "last.ckpt"))]
    return f"phase {phases[-1]}, epoch {phases.count(phases[-1])}"


def _time_up(folder: Path) -> TimeLimitError:
    return TimeLimitError(
        f"out={folder}: stopped by trainer.max_time after {last_epoch(folder)}; the same command goes on from there"
    )


def logged_steps(folder: Path) -> int:
    """Optimizer steps of all phases of a run so far."""
    if not (folder / "last.ckpt").exists():
        return 0
    loops = read_checkpoint(folder / "last.ckpt")["loops"]
    steps: int = loops["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"]
    return steps


@dataclass(frozen=True)
class _Last:
    """What last.ckpt means for a phase."""

    resumed: Path | None  # the checkpoint, where it is of this phase
    is_complete: bool  # the phase had come to its end, only its mark was missing
    steps: int  # of the optimizer, in all phases so far


def _last(folder: Path, name: str, phase: PhaseConfig) -> _Last:
    path = folder / "last.ckpt"
    if not path.exists():
        return _Last(None, is_complete=False, steps=0)
    checkpoint = read_checkpoint(path)
    steps = logged_steps(folder)
    if checkpoint["skinlesion"]["phase"] != name:
        return _Last(None, is_complete=False, steps=steps)
    stoppers = [state for state in checkpoint["callbacks"].values() if "wait_count" in (state or {})]  # the user's too
    has_stopped = any(state["wait_count"] >= state["patience"] for state in stoppers)
    return _Last(path, has_stopped or checkpoint["epoch"] + 1 >= phase.epochs, steps)


def _rows(checkpoint: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = checkpoint["callbacks"]["History"]["rows"]
    return rows


def _load(module: LesionClassifier, path: Path) -> None:
    module.float()  # precision=bf16-true leaves half of them
    module.load_state_dict(read_checkpoint(path)["state_dict"])
