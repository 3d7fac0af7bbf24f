"""Callbacks of a phase: seeds, history, the best checkpoint, averaged weights and the record of the run."""

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from torch import Tensor

from skinlesion.files import replacing
from skinlesion.terminal import log_to_file_alone

log = logging.getLogger(__name__)

MEASURED = ("train/loss", "val/loss", "val/accuracy", "val/macro_f1")
LR = "lr-AdamW/head"
"""Learning rate of the head, as Lightning's LearningRateMonitor names it."""


class EpochSeed(Callback):
    """Seeds every epoch on its own, so that a resumed epoch draws what it would have drawn; trackers get its number.

    Args:
        seed: Of the run.
        first_epoch: Epochs of earlier phases.
    """

    def __init__(self, seed: int, *, first_epoch: int = 0) -> None:
        self.seed, self.first_epoch = seed, first_epoch

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed torch at an epoch's first batch: making a loader's iterator draws too, but not on resume."""
        if batch_idx == 0:
            rank = (trainer.global_rank,) if trainer.global_rank else ()  # no two processes draw alike
            torch.manual_seed(hash((self.seed, self.first_epoch + trainer.current_epoch, *rank)))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Number epochs over all phases, while Lightning would begin again."""
        pl_module.log("epoch", float(self.first_epoch + trainer.current_epoch), sync_dist=True)

    on_train_epoch_end = on_validation_epoch_end


class ExponentialMovingAverage(WeightAveraging):
    """Averages all weights and the statistics of batch norm over steps; validates and keeps the average.

    Frozen weights stay as they are to the bit, which Lightning's own EMAWeightAveraging does not guarantee: its sums of
    two products round, and cached maps of the frozen part would no longer be those of the network.

    Polyak & Juditsky, SIAM J. Control Optim. 30 (1992), doi:10.1137/0330046; as an exponential average Tarvainen &
    Valpola, "Mean teachers are better role models", NeurIPS 2017, arXiv:1703.01780.

    Args:
        decay: Share of the average that stays at a step, 0 to less than 1.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=True, avg_fn=partial(_move_average, share=1 - decay))


def _move_average(average: Tensor, current: Tensor, _: int, *, share: float) -> Tensor:
    """Move the average by a share of its distance from the current weights; counts are copied."""
    return average + share * (current - average) if average.is_floating_point() else current


class PhaseCheckpoint(ModelCheckpoint):
    """Keeps the epoch with the best macro-F1 on validation, also in a run folder that has been moved.

    Lightning forgets the best score when the folder's absolute path has changed, so that a worse epoch could take the
    best one's place.

    Args:
        folder: Holds the checkpoints of all phases.
        filename: Of this phase's checkpoint, without its suffix.
    """

    def __init__(self, folder: Path, *, filename: str) -> None:
        super().__init__(
            folder,
            filename=filename,
            monitor="val/macro_f1",
            mode="max",
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the first validation, which need not come with the first epoch."""
        if str(self.monitor) in trainer.callback_metrics:
            super().on_train_epoch_end(trainer, pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume with the files where they are now."""
        here = Path(str(self.dirpath))

        def moved(path: str) -> str:
            return str(here / Path(path).name) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        best = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        renamed = {name: moved(state_dict[name]) for name in paths}
        super().load_state_dict({**state_dict, **renamed, "best_k_models": best, "dirpath": self.dirpath})


class LastCheckpoint(ModelCheckpoint):
    """Keeps the last epoch; a class of its own, since Lightning keeps one state for all of the user's that are alike.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)


class History(Callback):
    """Writes metrics.csv, a row an epoch over all phases, and keeps the rows in checkpoints.

    Lightning's CSVLogger deletes its file when a run resumes.

    Args:
        path: The CSV.
        phase: Name of the phase that runs.
        rows: Of earlier phases.
        report: Log a line an epoch, for a process without a progress bar; otherwise it goes to the run's log alone.
    """

    def __init__(self, path: Path, *, phase: str, rows: list[dict[str, Any]], report: bool = False) -> None:
        self.path, self.phase, self.report = path, phase, report
        self.rows = list(rows)
        self.is_validated = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget that the last epoch was validated."""
        self.is_validated = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that this epoch is."""
        self.is_validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the row of the epoch that ends."""
        names = [name for name in MEASURED if self.is_validated or not name.startswith("val/")]
        measured = {name: float(trainer.callback_metrics[name]) for name in names}
        lr = float(trainer.optimizers[0].param_groups[0]["lr"])
        self.rows.append({"epoch": len(self.rows), "phase": self.phase, LR: lr, **dict.fromkeys(MEASURED), **measured})
        if trainer.is_global_zero:
            write_history(self.rows, self.path)
            listed = ", ".join(f"{name} {value:.3f}" for name, value in measured.items())
            epoch = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
            say = log.info if self.report else log_to_file_alone
            say(f"{self.path.parent.name}: phase {self.phase}, epoch {epoch}: {listed}")

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far, as plain data."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume with the rows of a checkpoint."""
        self.rows = list(state_dict["rows"])


class EpochReport(Callback):
    """Tells a function the history so far after each epoch, from which an exception ends the training.

    Args:
        report: Takes the rows of `History`.
    """

    def __init__(self, report: Callable[[list[dict[str, Any]]], None]) -> None:
        self.report = report

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell it the rows, to which `History`, an earlier callback, has added that of this epoch."""
        (history,) = (each for each in trainer.callbacks if isinstance(each, History))  # type: ignore[attr-defined]
        self.report(history.rows)


def write_history(rows: list[dict[str, Any]], path: Path) -> None:
    """Write rows as a CSV with six significant digits, whole or not at all."""
    with replacing(path) as beside:
        pd.DataFrame(rows, columns=["epoch", "phase", LR, *MEASURED]).to_csv(beside, index=False, float_format="%.6g")


class SameBatches(Callback):
    """Repeats the first epoch's batches, to overfit; Lightning's own way takes the sampler's draws away."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the sampler back, before its order is asked for."""
        loader: Any = trainer.train_dataloader
        loader.sampler.set_epoch(0)


class TimeLimit(Callback):
    """Stops a run with the end of the epoch in which its time runs out, so that it resumes as if it had not stopped.

    Lightning's Timer stops amid an epoch, and counts the time of earlier sittings too.

    Args:
        seconds: From now.
    """

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self.has_stopped = False

    @property
    def is_over(self) -> bool:
        """Whether the time has run out."""
        return time.monotonic() >= self.deadline

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop all processes where the first one's clock says so."""
        if trainer.strategy.broadcast(self.is_over):
            self.has_stopped = trainer.should_stop = True


class RunRecord(Callback):
    """Adds the record of a run to its checkpoints, under the key `skinlesion`.

    Args:
        record: Plain data: the configuration, the split and its fingerprint.
        phase: Name of the phase that runs.
    """

    def __init__(self, record: dict[str, Any], *, phase: str) -> None:
        self.record = {**record, "phase": phase}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the record; the module adds what it knows itself."""
        checkpoint["skinlesion"] = self.record
