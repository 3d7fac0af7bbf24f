"""A Lightning Trainer for one phase, and how it writes checkpoints."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO

from skinlesion.config.train import TrainConfig
from skinlesion.errors import ConfigError
from skinlesion.files import replacing
from skinlesion.training.progress_bar import PhaseBar


def make_trainer(config: TrainConfig, folder: Path, *, name: str, epochs: int, callbacks: list[Callback]) -> Trainer:
    """A Lightning Trainer with the configuration's own arguments."""
    board = TensorBoardLogger(folder, name="tensorboard", version=name) if config.logger == "tensorboard" else False
    bar = [PhaseBar(name, label=folder.name)] if config.trainer.enable_progress_bar else []
    try:
        return Trainer(
            **{**asdict(config.trainer), "enable_progress_bar": False},  # PhaseBar takes the place of Lightning's
            max_epochs=epochs,
            callbacks=[*callbacks, *bar],
            logger=board,
            plugins=[WholeCheckpoints()],
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # the samplers know their share
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError, ImportError) as error:
        raise ConfigError(f"trainer: Lightning refuses it: {str(error).splitlines()[0]}") from error


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it. Lightning's own way goes through another file system."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint, whole or not at all."""
        with replacing(Path(path)) as beside:
            torch.save(checkpoint, beside)
