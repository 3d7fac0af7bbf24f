"""`skinlesion train`: one run, from a table and images to an evaluated checkpoint."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from hydra.core.hydra_config import HydraConfig

from skinlesion.commands.launch import TERMINATED, command, multirun, starts_tasks, sweep_keys, swept
from skinlesion.config.train import TrainConfig
from skinlesion.config.validation import focal_name
from skinlesion.errors import ConfigError, SkinlesionError
from skinlesion.terminal import log_to, next_command, quiet

if TYPE_CHECKING:
    import torch
    from lightning import Callback
    from lightning.fabric import Fabric

    from skinlesion.data.datamodule import LesionDataModule
    from skinlesion.training.module import LesionClassifier
    from skinlesion.training.run_folder import Outcome

log = logging.getLogger(__name__)


def run(config: TrainConfig, *, callbacks: "Sequence[Callback]" = ()) -> "Outcome | None":
    """Train, or resume training, and evaluate the best checkpoint on the parts of `judge`.

    Where several devices train, each has a process that runs this; the first one alone writes and evaluates.

    Args:
        config: Of the run.
        callbacks: Lightning's, beside our own; a run that they end with an exception can be resumed.

    Returns:
        What has come of it; None in other processes than the first one.

    Raises:
        SkinlesionError: The data, the weights, the devices or the folder cannot be used.
    """
    from skinlesion.training.loggers import check_loggers

    check_loggers(config.loggers)
    if config.trainer.fast_dev_run:
        _try_out(config)
        return None
    outcome = _run(config, callbacks)
    if outcome is not None and not callbacks:
        _say_what_is_next(config, outcome.folder)
    return outcome


def _run(config: TrainConfig, callbacks: "Sequence[Callback]") -> "Outcome | None":
    from skinlesion.training.distributed import is_launched, joined, make_fabric
    from skinlesion.training.run_folder import Outcome, claimed, is_finished

    fabric = make_fabric(config.trainer)
    quiet(fabric.global_rank)
    if multirun() and fabric.world_size > 1 and not (is_launched(fabric) and starts_tasks()):
        raise ConfigError(
            f"trainer.devices={config.trainer.devices}: the members of a sweep take one device each, unless the "
            "launcher starts a task for each (hydra/launcher=slurm, docs/cluster.md); give trainer.devices=1, or train "
            "them one by one"
        )
    folder = run_folder(config)
    keys = tuple(swept()) if multirun() else ()
    with claimed(folder, config, swept=keys) if fabric.is_global_zero else nullcontext():
        if fabric.is_global_zero:
            log_to(folder)
        finished = fabric.is_global_zero and is_finished(folder)
        if finished and not is_launched(fabric):
            _compare_inputs(config, folder, fabric)
        else:
            with _saying_what_is_kept(folder) if fabric.is_global_zero else nullcontext():
                module, datamodule = _prepare(config, folder, fabric)  # refuses before other processes are started
                with joined(fabric, command):
                    if not fabric.broadcast(finished):
                        _train(module, datamodule, config=config, folder=folder, fabric=fabric, callbacks=callbacks)
    if fabric.is_global_zero:
        state = "already finished" if finished else "finished"
        outcome = Outcome.read(folder, list(config.schedule.phases))
        log.info("%s: %s; best.ckpt holds %s", folder, state, outcome.best_epoch)
        return outcome
    return None


def _try_out(config: TrainConfig) -> None:
    """Run a few batches of each phase, from images, and keep nothing; Lightning's own would leave no checkpoint."""
    count = int(config.trainer.fast_dev_run or 0)
    trainer = replace(config.trainer, fast_dev_run=None, limit_train_batches=count, limit_val_batches=count)
    phases = {name: replace(each, epochs=1, cached_views=0) for name, each in config.schedule.phases.items()}
    schedule = replace(config.schedule, phases=phases)
    own = replace(config, out=f"{config.out}.trial", resume="restart")  # the same for all that train together
    trial = replace(own, trainer=trainer, schedule=schedule, logger="none", judge=["val"])
    is_first = True
    try:
        is_first = _run(trial, ()) is not None
    finally:
        if is_first:
            shutil.rmtree(run_folder(trial), ignore_errors=True)
            with suppress(OSError):  # of a sweep, whose other members go on
                Path(trial.out).rmdir()
    log.info("trainer.fast_dev_run=%s: all phases run; nothing is kept in %s", count, run_folder(config))


def _compare_inputs(config: TrainConfig, folder: Path, fabric: "Fabric") -> None:
    """Refuse a finished run that would be made from other images, another table or other weights today."""
    from skinlesion.training.phases import refuse_changed_inputs, run_inputs

    try:
        module, datamodule = _prepare(config, folder, fabric)
        inputs = run_inputs(module, datamodule)
    except SkinlesionError as error:  # its data may be gone by now
        reason = str(error).splitlines()[0]
        log.info("%s: not compared with its data and weights: %s", folder, reason)
    else:
        refuse_changed_inputs(inputs, folder / "best.ckpt")


def run_folder(config: TrainConfig) -> Path:
    """Where this run's files go: `out`, or the member's folder in it, whose name differs wherever a swept key does."""
    if not multirun():
        return Path(config.out)
    model, loss = config.model.name, config.loss.name
    member = config.member or f"{model}-{loss}"
    is_derived = loss == focal_name(config.loss.alpha, config.loss.gamma)
    names = {"model": model, "model.backbone": model, "loss": loss, "loss.alpha": loss, "loss.gamma": loss}

    def is_told(key: str, value: str) -> bool:
        """Whether the member's name differs with the key: by the network's or the loss's name in it, or by its file."""
        name = names.get(key, "")
        differs = name == value or (is_derived and name == loss)
        in_name = bool(name) and f"-{name}-" in f"-{member}-"
        by_file = config.member is not None and key in sweep_keys() and "member" not in given
        return value == member or by_file or (in_name and differs)

    given = {override.partition("=")[0].lstrip("+") for override in HydraConfig.get().overrides.task}
    rest = [f"{quote(key)}_{quote(value, safe=',')}" for key, value in swept().items() if not is_told(key, value)]
    return Path(config.out) / "-".join([member, *rest])


def _say_what_is_next(config: TrainConfig, folder: Path) -> None:
    done = len(list(folder.parent.glob("*/metrics.json")))
    if absent := [part for part in config.judge if not (folder / f"predictions_{part}.csv").exists()]:
        words = (f"checkpoint={folder}", f"split={absent[0]}", f"out={folder}")
        log.warning("%s: finished without judge=%s; %s", folder, absent[0], next_command("evaluate", *words))
    if not multirun():
        log.info(next_command("evaluate", f"checkpoint={folder / 'best.ckpt'}", "split=val"))
    elif done > 1 and done == (config.expected_members or done):
        log.info(next_command("ensemble", f"members={config.out}"))


@contextmanager
def _saying_what_is_kept(folder: Path) -> Iterator[None]:
    """Say what a run that is stopped has kept; Lightning makes an end with status 1 of Ctrl-C."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        interrupted = isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt)
        if interrupted or error.args == (TERMINATED,):
            from skinlesion.training.phases import last_epoch

            kept = last_epoch(folder)
            log.warning(
                "%s: stopped; %s; the same command goes on from there",
                folder,
                f"kept up to {kept}" if kept else "no epoch had ended",
            )
        if interrupted:
            raise KeyboardInterrupt from None
        raise


def _prepare(config: TrainConfig, folder: Path, fabric: "Fabric") -> "tuple[LesionClassifier, LesionDataModule]":
    import lightning

    from skinlesion.data.datamodule import LesionDataModule
    from skinlesion.training.build import architecture, check_image_size, image_input
    from skinlesion.training.module import LesionClassifier
    from skinlesion.training.phases import check_batches, check_phases

    lightning.seed_everything(config.seed, verbose=False)
    options = architecture(config.model)
    check_image_size(options)
    datamodule = LesionDataModule.from_config(config, image_input(options))
    datamodule.setup("fit")
    check_batches(datamodule, config.trainer)
    datamodule.source.check()
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
    callbacks: "Sequence[Callback]",
) -> None:
    from skinlesion.data.splits import write_split
    from skinlesion.files import file_digest, write_json
    from skinlesion.training.distributed import refuse_separate_folders
    from skinlesion.training.loggers import log_final, open_loggers
    from skinlesion.training.phases import logged_steps, run_phases

    refuse_separate_folders(fabric, folder)
    if fabric.is_global_zero:
        write_split(datamodule.split, folder / "split.csv")
    with open_loggers(config, folder, is_first=fabric.is_global_zero, step=logged_steps(folder)) as loggers:
        run_phases(
            module, datamodule, config=config, folder=folder, fabric=fabric, loggers=loggers, callbacks=callbacks
        )
        if fabric.is_global_zero:
            measured = _evaluate(module, datamodule, config=config, folder=folder, device=fabric.device)
            log_final(loggers, measured, step=logged_steps(folder))
            digest = file_digest(folder / "best.ckpt")
            write_json(folder / "metrics.json", {**measured, "checkpoint_sha256": digest})


def _evaluate(
    module: "LesionClassifier",
    datamodule: "LesionDataModule",
    *,
    config: TrainConfig,
    folder: Path,
    device: "torch.device",
) -> dict[str, dict[str, float]]:
    import pandas as pd

    from skinlesion.data.datamodule import HELD_OUT
    from skinlesion.data.image_io import area_shape, dimensions
    from skinlesion.inference.ledger import Examined
    from skinlesion.inference.predictor import Predictor
    from skinlesion.metrics.classification import headline
    from skinlesion.plots.history import history
    from skinlesion.plots.style import save
    from skinlesion.training.checkpoint import load_model
    from skinlesion.training.feature_cache import predict_from_maps

    measured: dict[str, dict[str, float]] = {}
    trained = load_model(folder)
    phases, size, paths = config.schedule.phases.values(), datamodule.spec.size, map(Path, datamodule.frame["path"])
    cached = all(each.cached_views > 0 for each in phases) and (
        trained.spec.padded or all(area_shape(dimensions(path), size) == size for path in paths)
    )
    predictor = None
    if not cached:
        same = replace(trained, network=module.network)  # in its layout: others round differently
        predictor = Predictor.of([same], device=device)
    for part in (each for each in HELD_OUT if each in config.judge):
        if part == "test":
            Examined.of(trained.path, [trained.name], [trained]).record("train")
        if predictor is None:
            table = predict_from_maps(module.network, datamodule, part, schedule=config.schedule, device=device)
        else:
            caches = dict.fromkeys(predictor.sizes, datamodule.cache)
            frame, label = datamodule.part_frame(part), f"predicting {part}"
            table = predictor.predict_frame(frame, caches=caches, batch=datamodule.batch_size, label=label)
        table.write(folder / f"predictions_{part}.csv")
        measured[part] = headline(table)
    save(history(pd.read_csv(folder / "metrics.csv")), folder / "history.png")
    return measured
