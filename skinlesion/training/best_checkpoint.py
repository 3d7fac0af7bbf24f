"""The best checkpoint of a phase, also when the run's folder has been moved between two sittings."""

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint


class PhaseCheckpoint(ModelCheckpoint):
    """Keeps the epoch with the best macro-F1 on validation.

    Lightning forgets the best score when the folder's absolute path has changed, so that a worse epoch could take the
    best one's place.

    Args:
        folder: Of the checkpoints of all phases.
        filename: Of this phase's, without its suffix.
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

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint stands, with the files where they are now."""
        here = Path(str(self.dirpath))

        def moved(path: str) -> str:
            return str(here / Path(path).name) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        best = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        renamed = {name: moved(state_dict[name]) for name in paths}
        super().load_state_dict({**state_dict, **renamed, "best_k_models": best, "dirpath": self.dirpath})
