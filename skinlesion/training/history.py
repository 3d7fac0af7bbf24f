"""What happened in each epoch, as rows: kept in checkpoints, so that a resumed run tells the whole story."""

from pathlib import Path
from typing import Any

import pandas as pd
from lightning import Callback, LightningModule, Trainer

from skinlesion.files import replacing

COLUMNS = ("epoch", "phase", "rate", "train/loss", "val/loss", "val/accuracy", "val/macro_f1")


class History(Callback):
    """Adds a row for each epoch and writes the table after it.

    Args:
        path: The CSV.
        phase: Name of the phase that runs.
        rows: Of earlier phases.
    """

    def __init__(self, path: Path, *, phase: str, rows: list[dict[str, Any]]) -> None:
        self.path, self.phase = path, phase
        self.rows = list(rows)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the row of the epoch that ends."""
        measured = {name: float(trainer.callback_metrics[name]) for name in COLUMNS[3:]}
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        self.rows.append({"epoch": len(self.rows), "phase": self.phase, "rate": rate, **measured})
        if trainer.is_global_zero:
            write_history(self.rows, self.path)

    def state_dict(self) -> dict[str, Any]:
        """The rows so far, as plain data."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint stands."""
        self.rows = list(state_dict["rows"])


def write_history(rows: list[dict[str, Any]], path: Path) -> None:
    """Write the rows as a CSV with six significant digits, whole or not at all."""
    with replacing(path) as beside:
        pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(beside, index=False, float_format="%.6g")
