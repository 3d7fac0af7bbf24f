"""`skinlesion train`: one run, from a table and images to a judged checkpoint."""

import logging
import re
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, cast

from skinlesion.commands.launch import command, multirun, sweep_keys, swept
from skinlesion.config.train import TrainConfig
from skinlesion.errors import ConfigError
from skinlesion.terminal import log_to, quiet

if TYPE_CHECKING:
    import torch
    from lightning.fabric import Fabric

    from skinlesion.data.datamodule import LesionDataModule
    from skinlesion.model.pretrained import Missing
    from skinlesion.training.module import LesionClassifier

log = logging.getLogger(__name__)


def run(config: TrainConfig) -> None:
    """Train, or go on training, and judge the best checkpoint on validation and test.

    Where several devices train, each has a process that runs this; the first one alone writes and judges.

    Raises:
        SkinlesionError: The data, the weights, the devices or the folder cannot be used.
    """
    from skinlesion.training.distributed import joined, make_fabric, others_run
    from skinlesion.training.run_folder import claimed, is_finished

    fabric = make_fabric(config.trainer)
    quiet(fabric.global_rank)
    if multirun() and fabric.world_size > 1:
        raise ConfigError(
            f"trainer.devices={config.trainer.devices}: the members of a sweep take one device each; "
            "give trainer.devices=1, or train them one by one"
        )
    folder = run_folder(config)
    with claimed(folder, config) if fabric.is_global_zero else nullcontext():
        if fabric.is_global_zero:
            log_to(folder)
        finished = fabric.is_global_zero and is_finished(folder)
        if finished and not others_run(fabric):
            log.info("%s: already finished", folder)
            return
        module, datamodule = _prepare(config, folder, fabric)  # refuses before other processes are started
        with joined(fabric, command):
            if not fabric.broadcast(finished):
                _train(module, datamodule, config=config, folder=folder, fabric=fabric)
    log.info("%s: finished", folder)


def run_folder(config: TrainConfig) -> Path:
    """Where this run's files go: `out`, or the member's folder in it, named by what is swept."""
    if not multirun():
        return Path(config.out)
    member = config.member or f"{config.model.name}-{config.loss.name}"
    named = sweep_keys() if config.member else ["model", "loss"]
    values = {key: value for key, value in swept().items() if key not in named}
    return Path(config.out) / "-".join([member, *(_word(f"{key}_{value}") for key, value in values.items())])


def _word(text: str) -> str:
    """A part of a folder's name that needs no quotes, neither in a shell nor on Hydra's command line."""
    return re.sub(r"[^A-Za-z0-9.]+", "_", text).strip("_")


def _prepare(config: TrainConfig, folder: Path, fabric: "Fabric") -> "tuple[LesionClassifier, LesionDataModule]":
    import lightning

    from skinlesion.data.datamodule import LesionDataModule
    from skinlesion.data.dataset import Share
    from skinlesion.model.pretrained import load_pretrained
    from skinlesion.training.build import build_backbone, build_loss, build_network, image_input
    from skinlesion.training.checkpoint import record
    from skinlesion.training.module import LesionClassifier
    from skinlesion.training.phases import check_phases

    lightning.seed_everything(config.seed, verbose=False)
    backbone = build_backbone(config.model)
    load_pretrained(backbone, config.model.pretrained, missing=cast("Missing", config.model.missing_weights))
    share = Share(fabric.global_rank, fabric.world_size)
    datamodule = LesionDataModule(config, image_input(config.model, backbone), share)
    module = LesionClassifier(
        build_network(config.model, backbone, datamodule.encoder),
        build_loss(config.loss, datamodule.class_counts()),
        classes=len(datamodule.class_counts()),
        record=record(config, datamodule),
    )
    check_phases(module, config, folder)
    return module, datamodule


def _train(
    module: "LesionClassifier",
    datamodule: "LesionDataModule",
    *,
    config: TrainConfig,
    folder: Path,
    fabric: "Fabric",
) -> None:
    from skinlesion.data.splits import write_split
    from skinlesion.training.distributed import refuse_separate_folders
    from skinlesion.training.phases import run_phases

    refuse_separate_folders(fabric, folder)
    if fabric.is_global_zero:
        write_split(datamodule.split, folder / "split.csv")
    run_phases(module, datamodule, config=config, folder=folder, fabric=fabric)
    if fabric.is_global_zero:
        _judge(module, datamodule, folder, fabric.device)


def _judge(module: "LesionClassifier", datamodule: "LesionDataModule", folder: Path, device: "torch.device") -> None:
    import pandas as pd

    from skinlesion.data.datamodule import JUDGED
    from skinlesion.files import file_digest, write_json
    from skinlesion.inference.predict_images import predict_run
    from skinlesion.inference.predictions import write_table
    from skinlesion.metrics.classification import headline
    from skinlesion.plots.history import history
    from skinlesion.plots.predictions import save

    measured: dict[str, object] = {}
    for part in JUDGED:
        table = predict_run(module.network, datamodule, part, device=device)
        write_table(table, folder / f"predictions_{part}.csv")
        measured[part] = headline(table)
    save(history(pd.read_csv(folder / "metrics.csv")), folder / "history.png")
    write_json(folder / "metrics.json", {**measured, "checkpoint_sha256": file_digest(folder / "best.ckpt")})
