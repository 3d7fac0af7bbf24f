"""One progress bar a phase on stderr, and one line when the phase ends."""

import logging
from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

log = logging.getLogger(__name__)


class PhaseBar(Callback):
    """Shows how far a phase has come.

    Args:
        phase: Its name.
        label: Of the run.
    """

    def __init__(self, phase: str, *, label: str) -> None:
        self.phase, self.label = phase, label
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar, in the first process alone, at the epoch where a resumed phase goes on."""
        total = (trainer.max_epochs or 0) * int(trainer.num_training_batches)
        if trainer.is_global_zero:
            self._progress.start()
        self._task = self._progress.add_task(self._describe(trainer), total=total, completed=trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move on by a batch."""
        self._progress.advance(self._task)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what validation gave."""
        self._progress.update(self._task, description=self._describe(trainer))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the bar away, however the phase ended."""
        self._progress.stop()

    def _describe(self, trainer: Trainer) -> str:
        measured = trainer.callback_metrics.get("val/macro_f1")
        score = "" if measured is None else f", val macro-F1 {float(measured):.3f}"
        return f"{self.label} · {self.phase} · epoch {trainer.current_epoch + 1}/{trainer.max_epochs}{score}"
