"""`skinlesion train`: one run, from a table and images to an evaluated checkpoint."""

import logging
import re
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from skinlesion.commands.launch import command, multirun, sweep_keys, swept
from skinlesion.config.train import TrainConfig
from skinlesion.errors import ConfigError
from skinlesion.terminal import log_to, quiet

if TYPE_CHECKING:
    import torch
    from lightning.fabric import Fabric

    from skinlesion.data.datamodule import LesionDataModule
    from skinlesion.training.module import LesionClassifier

log = logging.getLogger(__name__)


def run(config: TrainConfig) -> None:
    """Train, or resume training, and evaluate the best checkpoint on validation and test.

    Where several devices train, each has a process that runs this; the first one alone writes and evaluates.

    Raises:
        SkinlesionError: The data, the weights, the devices or the folder cannot be used.
    """
    from skinlesion.training.distributed import is_launched, joined, make_fabric
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
        if finished and not is_launched(fabric):
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
    """Make a part of a folder's name that needs no quotes, neither in a shell nor for Hydra."""
    return re.sub(r"[^A-Za-z0-9.]+", "_", text).strip("_")


def _prepare(config: TrainConfig, folder: Path, fabric: "Fabric") -> "tuple[LesionClassifier, LesionDataModule]":
    import lightning

    from skinlesion.data.datamodule import LesionDataModule
    from skinlesion.training.build import architecture, image_input
    from skinlesion.training.module import LesionClassifier
    from skinlesion.training.phases import check_phases

    lightning.seed_everything(config.seed, verbose=False)
    options = architecture(config.model)
    datamodule = LesionDataModule.from_config(config, image_input(options))
    datamodule.setup("fit")
    datamodule.check_cache()
    module = LesionClassifier.for_data(
        datamodule,
        **options,
        alpha=config.loss.alpha,
        gamma=config.loss.gamma,
        smoothing=config.loss.smoothing,
        weight_decay=config.schedule.weight_decay,
        **asdict(config.speed),
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
        _evaluate(module, datamodule, config=config, folder=folder, device=fabric.device)


def _evaluate(
    module: "LesionClassifier",
    datamodule: "LesionDataModule",
    *,
    config: TrainConfig,
    folder: Path,
    device: "torch.device",
) -> None:
    import pandas as pd

    from skinlesion.data.datamodule import HELD_OUT
    from skinlesion.files import file_digest, write_json
    from skinlesion.inference.predictor import Predictor
    from skinlesion.metrics.classification import headline
    from skinlesion.plots.history import history
    from skinlesion.plots.style import save
    from skinlesion.training.checkpoint import load_model
    from skinlesion.training.feature_cache import predict_from_maps

    measured: dict[str, object] = {}
    cached = all(phase.cached_views > 0 for phase in config.schedule.phases.values())
    predictor = None
    if not cached:
        trained = replace(load_model(folder), network=module.network)  # in its layout: others round differently
        predictor = Predictor.of([trained], device=device)
    for part in HELD_OUT:
        if predictor is None:
            table = predict_from_maps(module.network, datamodule, part, schedule=config.schedule, device=device)
        else:
            caches = dict.fromkeys(predictor.sizes, datamodule.cache)
            frame, label = datamodule.part_frame(part), f"predicting {part}"
            table = predictor.predict_frame(frame, caches=caches, batch=datamodule.batch_size, label=label)
        table.write(folder / f"predictions_{part}.csv")
        measured[part] = headline(table)
    save(history(pd.read_csv(folder / "metrics.csv")), folder / "history.png")
    write_json(folder / "metrics.json", {**measured, "checkpoint_sha256": file_digest(folder / "best.ckpt")})
