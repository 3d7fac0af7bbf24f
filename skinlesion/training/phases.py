"""Training in phases: successive fits, each from the best weights so far, each of which can be killed and resumed.

Lightning's BackboneFinetuning is not used: it freezes again on resume and leaves batch norm training while frozen.
"""

import json
import logging
import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric import Fabric
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from skinlesion.config.train import PhaseConfig, TrainConfig
from skinlesion.data.datamodule import LesionDataModule
from skinlesion.errors import CheckpointError, ConfigError
from skinlesion.files import replacing, write_json
from skinlesion.training.best_checkpoint import PhaseCheckpoint
from skinlesion.training.checkpoint import read_checkpoint
from skinlesion.training.ema import ExponentialMovingAverage
from skinlesion.training.feature_cache import FeatureStore
from skinlesion.training.history import History, write_history
from skinlesion.training.module import LesionClassifier
from skinlesion.training.trainer import make_trainer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finished:
    """A phase that has run to its end."""

    phase: str
    checkpoint: str  # file name in the folder of phases
    macro_f1: float  # of the best epoch, on validation
    trainable: dict[str, bool]  # layers of the backbone, in depth order
    rows: list[dict[str, Any]]  # the history so far


def run_phases(
    module: LesionClassifier, datamodule: LesionDataModule, *, config: TrainConfig, folder: Path, fabric: Fabric
) -> list[Finished]:
    """Run the phases that have not run yet, and leave best.ckpt, metrics.csv and layer_state.json in `folder`.

    All processes that train together run it; the first one writes.

    Args:
        module: Takes each phase's weights, and holds the best ones in the end.
        datamodule: Gives images, or their cached feature maps where the backbone is frozen.
        config: Its schedule, trainer, logger and seed are used.
        folder: Of the run; what an earlier, interrupted run left in it is gone on with.
        fabric: Tells the processes apart.
    """
    finished = _read_finished(folder)
    _refuse_changed_data(module, folder)
    fabric.barrier()  # all have read what lies there before the first one writes
    for number, (name, phase) in enumerate(config.schedule.phases.items()):
        if number < len(finished):
            continue
        if finished:
            _load(module, _best(finished, folder))
        finished.append(_run_phase(module, datamodule, name, phase, config=config, folder=folder, before=finished))
        if fabric.is_global_zero:
            write_json(_state(folder), [asdict(one) for one in finished])
        log.info("%s: phase %s, %s", folder.name, name, _summary(finished))
    _load(module, _best(finished, folder))
    if fabric.is_global_zero:
        _leave(finished, folder)
    return finished


def _leave(finished: list[Finished], folder: Path) -> None:
    best = _best(finished, folder)
    with replacing(folder / "best.ckpt") as beside:
        shutil.copyfile(best, beside)
    write_history(finished[-1].rows, folder / "metrics.csv")
    write_json(folder / "layer_state.json", {one.phase: {"head": True, **one.trainable} for one in finished})


def _run_phase(
    module: LesionClassifier,
    datamodule: LesionDataModule,
    name: str,
    phase: PhaseConfig,
    *,
    config: TrainConfig,
    folder: Path,
    before: list[Finished],
) -> Finished:
    rows = before[-1].rows if before else []
    datamodule.first_draw = len(rows)
    module.begin(phase, weight_decay=config.schedule.weight_decay, speed=config.speed)
    module.record["phase"] = name
    best = PhaseCheckpoint(_phases(folder), filename=f"{len(before)}-{name}")
    last = ModelCheckpoint(folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
    history = History(folder / "metrics.csv", phase=name, rows=rows)
    stopping = EarlyStopping("val/loss", patience=phase.patience)
    average = [ExponentialMovingAverage(phase.ema_decay)] if phase.ema_decay else []
    callbacks = [history, stopping, EpochSeed(config.seed, first_draw=len(rows)), *average, best, last]
    trainer = make_trainer(config, folder, name=name, epochs=phase.epochs, callbacks=callbacks)
    resumed = _interrupted(folder, name, phase)
    if resumed is None or not resumed.complete:
        loaders = _loaders(module, datamodule, phase, trainer)
        if resumed is not None:
            loaders[0].sampler.set_epoch(resumed.epoch + 1)  # workers fetch ahead, before Lightning says so
        module.train()  # computing feature maps has put the backbone to rest; its frozen stages stay so
        trainer.fit(module, *loaders, ckpt_path=None if resumed is None else resumed.path, weights_only=True)
    checkpoint = read_checkpoint(folder / "last.ckpt")
    _refuse_divergence(_rows(checkpoint), name)
    macro_f1 = max(row["val/macro_f1"] for row in _rows(checkpoint)[len(rows) :])
    trainable = module.network.backbone.trainable()
    return Finished(name, f"{len(before)}-{name}.ckpt", macro_f1, trainable, _rows(checkpoint))


def check_phases(module: LesionClassifier, config: TrainConfig, folder: Path) -> None:
    """Find out now, not hours later, what the last phase would stumble over."""
    for name, phase in config.schedule.phases.items():
        module.begin(phase, weight_decay=config.schedule.weight_decay, speed=config.speed)
        if phase.cached_views:
            module.network.backbone.lower()  # refuses a place from which the rest cannot run
        make_trainer(config, folder, name=name, epochs=phase.epochs, callbacks=[])


def _refuse_changed_data(module: LesionClassifier, folder: Path) -> None:
    last = folder / "last.ckpt"
    if last.exists():
        before = read_checkpoint(last)["skinlesion"]
        if any(before[key] != module.record[key] for key in ("fingerprint", "encoder", "class_counts")):
            raise CheckpointError(
                f"{folder}: the data or their split have changed since this run began; "
                "give another out, or resume=restart to delete it"
            )


def _refuse_divergence(rows: list[dict[str, Any]], phase: str) -> None:
    if not math.isfinite(rows[-1]["val/loss"]):
        raise ConfigError(
            f"phase {phase} diverged in epoch {rows[-1]['epoch']}: val/loss is {rows[-1]['val/loss']}; "
            f"lower schedule.phases.{phase}.lr and start anew with resume=restart"
        )


def _loaders(
    module: LesionClassifier, datamodule: LesionDataModule, phase: PhaseConfig, trainer: Trainer
) -> tuple[Any, Any]:
    if not phase.cached_views:
        module.gpu_augmenter = datamodule.gpu_augmenter(trainer.strategy.root_device)
        return datamodule.train_dataloader(), datamodule.val_dataloader()
    store = FeatureStore(module.network.backbone, datamodule, device=trainer.strategy.root_device)
    return store.train_dataloader(phase.cached_views), store.val_dataloader()


class EpochSeed(Callback):
    """Seeds every epoch on its own, so that a resumed epoch draws what it would have drawn.

    Args:
        seed: Of the run.
        first_draw: Epochs of earlier phases.
    """

    def __init__(self, seed: int, *, first_draw: int) -> None:
        self.seed, self.first_draw = seed, first_draw

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed torch at an epoch's first batch: making a loader's iterator draws too, but not on resume."""
        if batch_idx == 0:
            rank = (trainer.global_rank,) if trainer.global_rank else ()  # no two processes draw alike
            torch.manual_seed(hash((self.seed, self.first_draw + trainer.current_epoch, *rank)))


@dataclass(frozen=True)
class _Interrupted:
    path: Path
    epoch: int  # that was finished last, from 0
    complete: bool  # the phase had come to its end, only its mark was missing


def _interrupted(folder: Path, name: str, phase: PhaseConfig) -> _Interrupted | None:
    path = folder / "last.ckpt"
    if not path.exists():
        return None
    checkpoint = read_checkpoint(path)
    if checkpoint["skinlesion"]["phase"] != name:
        return None
    waits = [state["wait_count"] for key, state in checkpoint["callbacks"].items() if key.startswith("EarlyStopping")]
    complete = waits[0] >= phase.patience or checkpoint["epoch"] + 1 >= phase.epochs
    return _Interrupted(path, checkpoint["epoch"], complete)


def _rows(checkpoint: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = checkpoint["callbacks"]["History"]["rows"]
    return rows


def _load(module: LesionClassifier, path: Path) -> None:
    module.float()  # precision=bf16-true leaves half of them
    module.load_state_dict(read_checkpoint(path)["state_dict"])


def _summary(finished: list[Finished]) -> str:
    before = len(finished[-2].rows) if len(finished) > 1 else 0
    epochs = len(finished[-1].rows) - before
    return f"{epochs} epochs, best val macro-F1 {finished[-1].macro_f1:.3f}"


def _phases(folder: Path) -> Path:
    return folder / "phases"


def _state(folder: Path) -> Path:
    return _phases(folder) / "finished.json"


def _read_finished(folder: Path) -> list[Finished]:
    path = _state(folder)
    return [Finished(**one) for one in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []


def _best(finished: list[Finished], folder: Path) -> Path:
    best = max(finished, key=lambda one: one.macro_f1)
    return _phases(folder) / best.checkpoint
