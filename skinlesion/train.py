"""`skinlesion train`: one run, from a table and images to a judged checkpoint."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, cast

from skinlesion.config.train import TrainConfig
from skinlesion.launch import job_number, launch, multirun

if TYPE_CHECKING:
    from skinlesion.data.datamodule import LesionDataModule
    from skinlesion.learning.module import LesionClassifier
    from skinlesion.model.weights import Missing

log = logging.getLogger(__name__)


def run(config: TrainConfig) -> None:
    """Train, or go on training, and judge the best checkpoint on validation and test.

    Raises:
        SkinlesionError: The data, the weights or the folder cannot be used.
    """
    from skinlesion.learning.run_folder import claimed, is_finished  # heavy: after the gate

    folder = run_folder(config)
    with claimed(folder, config):
        if is_finished(folder):
            log.info("%s: already finished", folder)
            return
        _train(config, folder)
    log.info("%s: finished", folder)


def run_folder(config: TrainConfig) -> Path:
    """Where this run's files go: `out`, or the member's folder in it."""
    if not multirun():
        return Path(config.out)
    return Path(config.out) / (config.member or f"{job_number()}-{config.model.name}-{config.loss.name}")


def _train(config: TrainConfig, folder: Path) -> None:
    import lightning

    from skinlesion.data.datamodule import LesionDataModule
    from skinlesion.data.splits import write_split
    from skinlesion.learning.build import build_backbone, build_loss, build_network, image_input
    from skinlesion.learning.checkpoint import record
    from skinlesion.learning.module import LesionClassifier
    from skinlesion.learning.phases import run_phases
    from skinlesion.learning.quiet import quiet
    from skinlesion.model.weights import load_pretrained

    quiet()
    lightning.seed_everything(config.seed, verbose=False)
    backbone = build_backbone(config.model)
    load_pretrained(backbone, config.model.pretrained, missing=cast("Missing", config.model.missing_weights))
    datamodule = LesionDataModule(config, image_input(config.model, backbone))
    write_split(datamodule.split, folder / "split.csv")
    module = LesionClassifier(
        build_network(config.model, backbone, datamodule.encoder),
        build_loss(config.loss, datamodule.class_counts()),
        classes=len(datamodule.class_counts()),
        record=record(config, datamodule),
    )
    run_phases(module, datamodule, config=config, folder=folder)
    _judge(module, datamodule, folder)


def _judge(module: "LesionClassifier", datamodule: "LesionDataModule", folder: Path) -> None:
    import pandas as pd

    from skinlesion.data.datamodule import JUDGED
    from skinlesion.evaluation.figures import save
    from skinlesion.evaluation.history import history
    from skinlesion.evaluation.metrics import headline
    from skinlesion.evaluation.predictions import write_table
    from skinlesion.files import write_json
    from skinlesion.learning.checkpoint import file_digest
    from skinlesion.learning.judge import judge_run

    measured: dict[str, object] = {}
    for part in JUDGED:
        table = judge_run(module.network, datamodule, part)
        write_table(table, folder / f"predictions_{part}.csv")
        measured[part] = headline(table)
    save(history(pd.read_csv(folder / "metrics.csv")), folder / "history.png")
    write_json(folder / "metrics.json", {**measured, "checkpoint_sha256": file_digest(folder / "best.ckpt")})


if __name__ == "__main__":
    launch("train", TrainConfig, run)
